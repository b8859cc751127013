"""Asking a policy at a price: answers kept on disk, a budget of calls, a failure that loses nothing paid for.

`Asked` wraps any `Policy` and is one. Whatever was answered once is never asked again, whichever run asked it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accordance.core.errors import AccordanceError, ConfigError, DataError, ModelError
from accordance.core.policy import Completion, Policy, Prompt
from accordance.core.record import as_prompt


class BudgetSpent(AccordanceError):
    """The calls that were allowed are used up; what was answered is kept."""


class PartlyAnswered(ModelError):
    """A policy failed after it had answered some of the prompts; those answers are not lost.

    Attributes:
        finished: the completions of each prompt that was answered in full, by its place in the call.
    """

    def __init__(self, problem: str, finished: Mapping[int, list[Completion]], **parts: Any) -> None:
        super().__init__(problem, **parts)
        self.finished = dict(finished)


class Budget:
    """How many responses may be asked for, over all policies that share it.

    Args:
        calls: the most; None for no limit.

    Attributes:
        spent: responses that policies wrote and that were paid for.
        saved: responses that the cache held.
    """

    def __init__(self, calls: int | None = None) -> None:
        if calls is not None and calls < 0:
            raise ConfigError("a budget can't be negative", where="budget", found=calls)
        self.calls, self.spent, self.saved = calls, 0, 0

    @property
    def left(self) -> float:
        """Responses that may still be asked for; infinite without a limit."""
        return float("inf") if self.calls is None else self.calls - self.spent


class AnswerCache:
    """Answers on disk (SQLite), each under a hash of its whole request.

    Args:
        path: the file; made where it is not there. None keeps the answers in memory.

    Raises:
        DataError: the file can't be opened, or is something else.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._lock = threading.Lock()
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path or ":memory:", timeout=60, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, policy TEXT, answer TEXT)"
            )
            self._base.commit()
        except (sqlite3.Error, OSError) as problem:
            raise DataError(
                "the cache of answers can't be used",
                where=str(path),
                found=str(problem),
                remedy="name another file, or remove this one",
            ) from problem

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM answers").fetchone()[0])

    def get(self, keys: Sequence[str]) -> list[list[Completion] | None]:
        """What is known under each key."""
        with self._lock:
            rows = [
                self._base.execute("SELECT answer FROM answers WHERE key = ?", (k,)).fetchone() for k in keys
            ]
        return [None if row is None else _completions(row[0]) for row in rows]

    def put(self, policy: str, answers: Iterable[tuple[str, Sequence[Completion]]]) -> None:
        """Keep answers; they are on disk when this returns."""
        rows = [(key, policy, json.dumps([_plain(c) for c in group])) for key, group in answers]
        with self._lock, self._base:
            self._base.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._base.close()


class Asked:
    """A policy whose answers are kept and counted.

    Answers are kept block by block, so that a run that fails goes on where it stopped and pays for nothing
    twice. A request is the policy's identity, the messages and every option of sampling; the same prompt twice
    in one call is two requests.

    Args:
        policy: who answers. Its `identity` (or its name, and the hash of its weights where it has any) is part
            of the key: another model, or other settings of a scripted one, is asked anew.
        cache: where answers are kept; a path, or a cache that several policies share. In memory by default.
        budget: how many responses may be paid for; a number, or a budget that several policies share.
        block: prompts asked at once.
        progress: called with the number of responses of each block, whether asked for or remembered.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        cache: AnswerCache | str | Path | None = None,
        budget: Budget | int | None = None,
        block: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if block < 1:
            raise ConfigError("prompts are asked at least one at a time", where="block", found=block)
        self.policy, self.name, self.block, self.progress = policy, policy.name, block, progress
        self.cache = cache if isinstance(cache, AnswerCache) else AnswerCache(cache)
        self.budget = budget if isinstance(budget, Budget) else Budget(budget)
        self.identity = identity(policy)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[Completion]]:
        """See `accordance.core.policy.Policy.generate`.

        Raises:
            BudgetSpent: more responses are needed than may be asked for; those that were affordable are kept.
            ModelError: the policy failed, or answered another number of prompts than it was asked.
        """
        options = {
            "n": n,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
        }
        keys = self._keys(prompts, options)
        found = self.cache.get(keys)
        missing = [i for i, answer in enumerate(found) if answer is None]
        self._note((len(prompts) - len(missing)) * n, paid=False)
        for start in range(0, len(missing), self.block):
            rows = missing[start : start + self.block]
            affordable = rows[: int(min(len(rows), self.budget.left // n))]
            if affordable:
                answers = self._ask(affordable, [prompts[i] for i in affordable], keys, options)
                for i, answer in zip(affordable, answers):
                    found[i] = answer
            if len(affordable) < len(rows):
                raise BudgetSpent(
                    "the budget is spent",
                    where=self.name,
                    found=f"{self.budget.spent} calls made, {(len(missing) - start - len(affordable)) * n} more wanted",
                    expected=f"at most {self.budget.calls}",
                    remedy="run again with a larger budget and the same cache: what is answered costs nothing",
                )
        return [answer for answer in found if answer is not None]

    def option_logps(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[float]]:
        """See `accordance.core.judge.OptionPolicy`; each prompt counts as one call, and is kept like an answer.

        Raises:
            ConfigError: the policy says nothing of probabilities.
        """
        from accordance.core.judge import option_logps

        keys = self._keys(prompts, {"options": [list(row) for row in options]})
        found = [None if c is None else list(c[0].logprobs) for c in self.cache.get(keys)]
        missing = [i for i, row in enumerate(found) if row is None]
        self._note(len(prompts) - len(missing), paid=False)
        for start in range(0, len(missing), self.block):
            rows = missing[start : start + self.block]
            if len(rows) > self.budget.left:
                raise BudgetSpent(
                    "the budget is spent", where=self.name, expected=f"at most {self.budget.calls}"
                )
            logps = option_logps(self.policy, [prompts[i] for i in rows], [options[i] for i in rows])
            self.cache.put(
                self.identity, [(keys[i], [Completion("", logprobs=tuple(p))]) for i, p in zip(rows, logps)]
            )
            self._note(len(rows), paid=True)
            for i, row in zip(rows, logps):
                found[i] = row
        return [row for row in found if row is not None]

    def _ask(
        self, rows: Sequence[int], prompts: Sequence[Prompt], keys: Sequence[str], options: dict[str, Any]
    ) -> list[list[Completion]]:
        try:
            answers = self.policy.generate(prompts, **options)
        except PartlyAnswered as partly:
            self._keep([(keys[rows[i]], group) for i, group in partly.finished.items()])
            raise
        if len(answers) != len(prompts) or any(len(group) != options["n"] for group in answers):
            raise ModelError(
                "the policy answered another number of prompts, or with another number of responses",
                where=self.name,
                found=f"{[len(group) for group in answers]}",
                expected=f"{len(prompts)} x {options['n']}",
            )
        self._keep([(keys[i], group) for i, group in zip(rows, answers)])
        return answers

    def _keep(self, answers: Sequence[tuple[str, Sequence[Completion]]]) -> None:
        self.cache.put(self.identity, answers)
        self._note(sum(len(group) for _, group in answers), paid=True)

    def _note(self, responses: int, *, paid: bool) -> None:
        self.budget.spent += responses if paid else 0
        self.budget.saved += 0 if paid else responses
        if self.progress is not None and responses:
            self.progress(responses)

    def _keys(self, prompts: Sequence[Prompt], options: Mapping[str, Any]) -> list[str]:
        seen: Counter[str] = Counter()
        per_prompt, keys = options.get("options"), []
        for i, prompt in enumerate(prompts):
            own = options if per_prompt is None else {"options": per_prompt[i]}
            messages = [[m.role, m.content] for m in as_prompt(prompt)]
            text = json.dumps([self.identity, messages, own], ensure_ascii=True, sort_keys=True)
            seen[text] += 1
            keys.append(hashlib.blake2b(f"{seen[text]} {text}".encode(), digest_size=20).hexdigest())
        return keys


def identity(policy: Policy) -> str:
    """What tells a policy from every other: its own `identity`, else its name and the hash of its weights."""
    own = getattr(policy, "identity", None)
    if own is not None:
        return str(own)
    weights = getattr(policy, "weights_hash", None)
    return f"{policy.name} {weights()}" if callable(weights) else policy.name


def _plain(completion: Completion) -> list[Any]:
    return [completion.text, completion.finished, completion.token_ids, completion.logprobs]


def _completions(answer: str) -> list[Completion]:
    return [
        Completion(text, finished, tuple(ids), tuple(logps))
        for text, finished, ids, logps in json.loads(answer)
    ]
