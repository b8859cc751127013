"""Anyprefer: a target writes, a judge with tools ranks, a third one rates the pair, a critic mends both prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from accordance.core import requests
from accordance.core.asking import identity
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.judge import Judge, Notes
from accordance.core.policy import Policy
from accordance.core.policy_judge import asker, conversation
from accordance.core.record import Account, Judgment, Response
from accordance.core.requests import Request
from accordance.feedback.synthesis import Cost, Draft, Synthesis, count_flags, instructed, note

#: An edited prompt is at most this long, and shares no run of this many words with a candidate.
LONGEST, RUN = 600, 6


class Tool(Protocol):
    """Something a judge may ask: a calculator, a table of facts, a search."""

    @property
    def name(self) -> str:
        """What evidence is called by."""
        ...

    def __call__(self, prompt: str) -> str | None:
        """What it finds out about a prompt, or None where it does not apply."""
        ...


@dataclass(frozen=True)
class FunctionTool:
    """A tool from a function of the prompt."""

    name: str
    function: Callable[[str], str | None]

    def __call__(self, prompt: str) -> str | None:
        """See `Tool`."""
        return self.function(prompt)


@dataclass
class _Pair:
    draft: Draft
    chosen: str
    rejected: str
    evidence: list[tuple[str, str]]
    gap: float
    score: float | None = None
    reason: str = ""


@system("S021", "Anyprefer", paper="arXiv:2504.19276")
class Anyprefer(Synthesis):
    """Pairs of which a pair scorer approves; where it does not, the prompts of target and judge are edited.

    For each prompt, up to `rounds` times: the target writes candidates under its own prompt; the tools that apply
    give evidence; the judge rates the candidates side by side with it; the scorer rates best against worst from 1 to
    10 and says why. Pairs of `threshold` or more are kept with evidence, score and round; for the others the critic
    edits both prompts from the scorer's reasons, and they are tried again. Both prompts are learnt over all
    prompts, never for one of them; an edit that quotes a candidate, or is overlong, is refused and counted.

    Departures: a tool says itself whether it applies to a prompt, the judge does not choose among them. Training on
    the pairs, and the next pass with the new target, are elsewhere.

    Args:
        target: the model to be aligned.
        judge: with a scale; sees the evidence as notes.
        scorer: rates pairs (a text model that answers ``SCORE: n``); never the target itself.
        critic: edits prompts (answers ``TARGET: ...`` and ``JUDGE: ...``).
        tools: what the judge may rely on.
        candidates: C.
        threshold: t, on a scale of 1 to 10.
        rounds: how often a prompt is tried, the first time included (m + 1).
        target_prompt, judge_prompt: to start from.
        max_new_tokens, temperature, seed: of the candidates.

    Attributes:
        target_prompt, judge_prompt: as they are after the last round; learnt.
        rounds_: for each round over all blocks: tried, accepted, and the sum of the scores.
        calls_: how often each tool gave evidence.

    Raises:
        ConfigError: the scorer is the target, fewer than two candidates, no round, or a threshold outside [1, 10].
    """

    name = "anyprefer"

    def __init__(
        self,
        target: Policy,
        judge: Judge,
        scorer: Policy,
        critic: Policy,
        tools: Sequence[Tool] = (),
        *,
        candidates: int = 5,
        threshold: float = 7.0,
        rounds: int = 4,
        target_prompt: str = "",
        judge_prompt: str = "Which response is right, and helps the user more?",
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if identity(scorer) == identity(target):
            raise ConfigError(
                "a model can't rate pairs of its own answers",
                where="scorer",
                found=scorer.name,
                remedy="another model",
            )
        if candidates < 2 or rounds < 1 or not 1 <= threshold <= 10:
            raise ConfigError("out of range", found=f"{candidates=}, {rounds=}, {threshold=}")
        self.target, self.judge, self.scorer, self.critic = target, judge, scorer, critic
        self.tools, self.candidates, self.threshold, self.rounds = list(tools), candidates, threshold, rounds
        self.target_prompt, self.judge_prompt = target_prompt, judge_prompt
        self.options = {"n": candidates, "max_new_tokens": max_new_tokens, "temperature": temperature}
        self.seed = seed
        self.rounds_ = [Counter[str]() for _ in range(rounds)]
        self.calls_: Counter[str] = Counter()

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """At most: every prompt tried in every round, and one edit per round (per block of prompts)."""
        n = len(drafts) * self.rounds
        return [
            Cost("responses", self.target.name, n * self.candidates),
            Cost("rankings", self.judge.name, n * getattr(self.judge, "votes", 1)),
            Cost("pair scores", self.scorer.name, n),
            Cost("edits of prompts", self.critic.name, min(len(drafts), n) * (self.rounds - 1)),
        ]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Try, and mend the prompts, until every draft has a pair or the rounds are over."""
        pending = list(drafts)
        for number in range(self.rounds):
            pairs = self._try(pending, number, account)
            self._score(pairs, number, account)
            accepted = [p for p in pairs if p.score is not None and p.score >= self.threshold]
            for pair in accepted:
                self._keep(pair, number)
            done = {id(pair.draft) for pair in accepted}
            pending = [draft for draft in pending if id(draft) not in done]
            if not pending:
                return
            if number + 1 < self.rounds:
                self._mend([p for p in pairs if id(p.draft) not in done], account)
        for draft in pending:
            draft.dropped = "no pair was good enough to learn from"

    def _try(self, drafts: Sequence[Draft], number: int, account: Account) -> list[_Pair]:
        """Best against worst for every draft whose candidates the judge can tell apart."""
        prompts = [instructed(d.prompt, self.target_prompt) for d in drafts]
        groups = self.target.generate(prompts, seed=self.seed + number, **self.options)
        texts = [[completion.text for completion in group] for group in groups]
        evidence = [self._evidence(conversation(d.prompt)) for d in drafts]
        notes: Notes = ["\n".join(text for _, text in found) or None for found in evidence]
        ranked = self.judge.rank([d.prompt for d in drafts], texts, rubric=self.judge_prompt, notes=notes)
        pairs = []
        for draft, some, found, scores in zip(drafts, texts, evidence, ranked, strict=True):
            self.rounds_[number]["tried"] += 1
            count_flags(account, scores.flags)
            if scores.values is None or max(scores.values) == min(scores.values):
                note(
                    account,
                    "rounds in which the judge could not be read"
                    if scores.values is None
                    else "rounds that tied",
                )
                continue
            best, worst = scores.values.index(max(scores.values)), scores.values.index(min(scores.values))
            pairs.append(
                _Pair(draft, some[best], some[worst], found, scores.values[best] - scores.values[worst])
            )
        return pairs

    def _evidence(self, prompt: str) -> list[tuple[str, str]]:
        found = [(tool.name, tool(prompt)) for tool in self.tools]
        told = [(name, text) for name, text in found if text is not None]
        self.calls_.update(name for name, _ in told)
        return told

    def _score(self, pairs: Sequence[_Pair], number: int, account: Account) -> None:
        how = (
            "Rate from 1 to 10 how good a pair of responses is to learn from: the preferred one must be right, the "
            "other plausible but worse, and the difference must teach something. Rely on the notes where there are "
            "any. First say what is wrong with the pair. Then end with exactly one line: SCORE: and the number."
        )
        asked = [
            Request(
                "pair",
                how,
                {
                    "prompt": conversation(p.draft.prompt),
                    **({"notes": "\n".join(text for _, text in p.evidence)} if p.evidence else {}),
                    "preferred": p.chosen,
                    "other": p.rejected,
                },
            )
            for p in pairs
        ]
        for pair, answer in zip(pairs, asker(self.scorer)(asked), strict=True):
            pair.score = requests.number(answer.text, "SCORE", 1, 10)
            pair.reason = requests.reason(answer.text)
            note(account, "pair scores that could not be read", int(pair.score is None))
            self.rounds_[number]["scored"] += pair.score is not None
            self.rounds_[number]["score"] += round(pair.score or 0)
            self.rounds_[number]["accepted"] += pair.score is not None and pair.score >= self.threshold

    def _mend(self, pairs: Sequence[_Pair], account: Account) -> None:
        """New prompts for target and judge, from all the reasons at once."""
        reasons = Counter(pair.reason for pair in pairs if pair.reason)
        if not reasons:
            return
        how = (
            "Pairs of responses were not good enough. From the reasons, write a better prompt for the target, who "
            "writes the responses, and one for the judge, who chooses between them. Write what holds for every "
            "question; name no answer to any one of them. Answer with a line TARGET: ... and a line JUDGE: ..."
        )
        request = Request(
            "edit",
            how,
            {
                "reasons": "\n".join(
                    f"{many} x {' '.join(text.split())}" for text, many in reasons.most_common(20)
                ),
                "target prompt": self.target_prompt or "(none)",
                "judge prompt": self.judge_prompt,
            },
        )
        answer = asker(self.critic)([request])[0].text
        for name, where in (("TARGET", "target_prompt"), ("JUDGE", "judge_prompt")):
            new = requests.one(answer, name)
            if new is None or len(new) > LONGEST or _quotes(new, pairs):
                note(
                    account, "edits of prompts that were refused (unreadable, overlong, or quoting a response)"
                )
            elif new not in getattr(self, where):
                setattr(self, where, f"{getattr(self, where)} {new}".strip())
                note(account, f"edits of the {where.replace('_', ' ')}")

    def _keep(self, pair: _Pair, number: int) -> None:
        draft = pair.draft
        source = self.target.name
        draft.responses = [Response.of(pair.chosen, source=source), Response.of(pair.rejected, source=source)]
        draft.judgments = [
            Judgment(
                "comparison",
                (0, 1),
                (1.0, 0.0),
                pair.reason or None,
                annotator=self.judge.name,
                strength=pair.gap,
            )
        ]
        draft.extras |= {
            "evidence": dict(pair.evidence),
            "pair_score": pair.score,
            "round": number + 1,
        }
        draft.provenance |= {
            "responses": [source, source],
            "labels": f"{self.judge.name} with {', '.join(n for n, _ in pair.evidence) or 'no tools'}",
            "approved": self.scorer.name,
        }


def _quotes(edit: str, pairs: Sequence[_Pair]) -> bool:
    """Whether an edit repeats a run of words of some response: it would tell the answer to one question."""
    words = edit.casefold().split()
    runs = {" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
    said = (" ".join(text.casefold().split()) for pair in pairs for text in (pair.chosen, pair.rejected))
    return any(run in text for text in said for run in runs)


__all__ = ["Anyprefer", "FunctionTool", "Tool"]
