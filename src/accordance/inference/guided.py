"""Guided decoding: an answer is written step by step, each the best of several by somebody who scores unfinished ones.

The policy goes on from token ids, never from text that is tokenised anew: what was scored is what it continues.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion, Prompt, check_sampling
from accordance.core.record import as_prompt
from accordance.core.scorer import Scorer, StepScorer
from accordance.core.selection import best_of
from accordance.models import LocalPolicy

_SENTENCE = re.compile(r"[.!?。！？]['\"”’)\]*]*\s*$")
#: A number, a letter or a bullet that opens a list item, alone on its line.
_MARKER = re.compile(r"(?:^|\n)\s*(?:\(?(?:\d+|[A-Za-z])[.)]|[-*•]|\d+)\s*$")
#: A number that may go on behind its point.
_NUMBER = re.compile(r"\d\.$")


@dataclass(frozen=True)
class Boundary:
    """Where a step of an answer ends.

    Attributes:
        separators: a step ends with any of these; an empty line by default.
        sentences: whether it ends with a sentence, too; not after a list marker that stands alone, nor after a number
            that may go on behind its point.
        min_tokens: a step has at least so many tokens, but for the last one.
    """

    separators: tuple[str, ...] = ("\n\n",)
    sentences: bool = True
    min_tokens: int = 8

    def __post_init__(self) -> None:
        if self.min_tokens < 1 or not all(self.separators) or not (self.separators or self.sentences):
            raise ConfigError(
                "steps have at least one token and end somewhere",
                where="Boundary",
                found=self,
                expected="min_tokens >= 1; separators that are not empty, or sentences=True",
            )

    def __call__(self, text: str, tokens: int) -> bool:
        """Whether a step that reads so far like this, in so many tokens, is whole."""
        if tokens < self.min_tokens or not text.strip() or _MARKER.search(text):
            return False
        if any(text.rstrip(" ").endswith(separator) for separator in self.separators):
            return True
        return self.sentences and bool(_SENTENCE.search(text)) and not _NUMBER.search(text)


@dataclass
class GuidedPolicy:
    """A policy that writes each step of an answer several times and keeps the best (arXiv:2510.01167, section on
    guided decoding; S006).

    Each step: `candidates` continuations up to a boundary, all of them scored as prefix and continuation; the best
    one is kept, the first of several, and written on from its token ids. It costs `candidates` times the tokens, and
    what stands so far is computed anew at each step (the paper keeps it in the cache).

    Attributes:
        policy: who writes.
        scorer: says how good an answer is so far, unfinished ones included. Of a step scorer what counts is the score
            of the newest step. Where it has nothing to say of any candidate (None), the first is kept.
        candidates: continuations at each step; 1 leaves the policy as it is.
        boundary: where a step ends.
        name: what reports call it.
    """

    policy: LocalPolicy
    scorer: Scorer | StepScorer
    candidates: int = 5
    boundary: Boundary = field(default_factory=Boundary)
    name: str = ""

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError("a step has one candidate or more", where="candidates", found=self.candidates)
        self.name = self.name or f"{self.policy.name}, guided by {self.scorer.name}"

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Any = None,
    ) -> list[list[Completion]]:
        """Write `n` responses to each prompt; see `accordance.core.policy.Policy.generate`.

        Args:
            progress: called with the number of prompts done since the last call.

        Raises:
            ConfigError: an option is out of range, or candidates would all be the same (temperature 0).
        """
        check_sampling(n, max_new_tokens, temperature, top_p)
        if temperature == 0 and self.candidates > 1:
            raise ConfigError(
                "without temperature all candidates are the same",
                where="temperature",
                found=f"temperature=0, candidates={self.candidates}",
                remedy="temperature above 0, or candidates=1",
            )
        rows = self.policy.encoder.encode_many([(as_prompt(prompt), (), {}) for prompt in prompts])
        drafts = [_Draft(prompt, row.prompt_ids) for prompt, row in zip(prompts, rows) for _ in range(n)]
        options = {"temperature": temperature, "top_p": top_p}
        turn, told = 0, 0
        while going := [draft for draft in drafts if not draft.finished and len(draft.ids) < max_new_tokens]:
            self._step(going, max_new_tokens, seed * 1_000_003 + turn, options)
            turn += 1
            whole = sum(draft.finished or len(draft.ids) >= max_new_tokens for draft in drafts) // n
            if progress is not None and whole > told:
                progress(whole - told)
                told = whole
        done = [Completion(self._text(d.ids), d.finished, tuple(d.ids), tuple(d.logprobs)) for d in drafts]
        return [done[start : start + n] for start in range(0, len(done), n)]

    def _step(self, drafts: list[_Draft], limit: int, seed: int, options: dict[str, float]) -> None:
        """One step of every draft. Those with the same room go together."""
        for room in sorted({limit - len(draft.ids) for draft in drafts}):
            some = [draft for draft in drafts if limit - len(draft.ids) == room]
            found = self.policy.sample_ids(
                [[*draft.prompt_ids, *draft.ids] for draft in some],
                n=self.candidates,
                max_new_tokens=room,
                seed=seed,
                stop=self._ends,
                **options,
            )
            for draft, kept in zip(some, self._best(some, found)):
                draft.add(kept)

    def _ends(self, ids: Sequence[int]) -> bool:
        return len(ids) >= self.boundary.min_tokens and self.boundary(self._text(ids), len(ids))

    def _best(self, drafts: Sequence[_Draft], found: Sequence[Sequence[Completion]]) -> list[Completion]:
        """The best candidate of each draft; one call of the scorer for all."""
        if self.candidates == 1:
            return [candidates[0] for candidates in found]
        prompts = [draft.prompt for draft, candidates in zip(drafts, found) for _ in candidates]
        steps = [
            self._steps(draft, candidate)
            for draft, candidates in zip(drafts, found)
            for candidate in candidates
        ]
        scores: Sequence[float | None]
        if isinstance(self.scorer, Scorer):
            scores = self.scorer.score(prompts, ["".join(parts) for parts in steps])
        else:
            scores = [row[-1] for row in self.scorer.score_steps(prompts, steps)]
        if len(scores) != len(steps):
            raise DataError("a scorer gives one score for each text", where=self.scorer.name, found=len(scores))
        values = [-math.inf if score is None else score for score in scores]
        size = self.candidates
        return [
            candidates[best_of(values[place * size : (place + 1) * size])]
            for place, candidates in enumerate(found)
        ]

    def _steps(self, draft: _Draft, candidate: Completion) -> list[str]:
        """The steps so far and the new one; together they are the text of all tokens."""
        ids = [*draft.ids, *candidate.token_ids]
        texts = [self._text(ids[:end]) for end in (0, *draft.ends, len(ids))]
        return [after[len(before) :] for before, after in pairwise(texts)]

    def _text(self, ids: Sequence[int]) -> str:
        return self.policy.tokenizer.decode(list(ids), skip_special_tokens=True)


@dataclass
class _Draft:
    """An answer that is being written; `ends` says after how many tokens each step ends."""

    prompt: Prompt
    prompt_ids: Sequence[int]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    finished: bool = False

    def add(self, step: Completion) -> None:
        self.ids += step.token_ids
        self.logprobs += step.logprobs
        self.ends.append(len(self.ids))
        self.finished = step.finished
