"""Self-reference feedback: an annotator answers first, measures both candidates by its own answer, then chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.policy import Policy
from accordance.core.policy_judge import PolicyJudge, asker, conversation
from accordance.core.record import Account, Judgment, Records
from accordance.core.requests import Request
from accordance.feedback.synthesis import Cost, Draft, Synthesis, answers, count_flags, draft_of, note

PRINCIPLE = "Which response is better for humanity?"


@dataclass
class _Contest:
    draft: Draft
    one: int
    other: int
    #: log-odds that the first is better, one per readable vote; the order it was shown in is turned back.
    odds: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@system("S088", "Self-reference feedback", paper="arXiv:2406.11190")
class SelfReference(Synthesis):
    """Labels given pairs of responses under one sentence of principle.

    Each vote: the annotator answers the prompt itself, criticises both candidates by that answer, and gives its
    verdict with answer and critique before it. Votes alternate the order in which the candidates are shown. The
    majority decides and ties are dropped; the strength is the mean over votes of the log-odds of the two verdict
    sentences, orders turned back (so that a bias for the first cancels rather than being thrown away), and the margin
    ``min(scale * strength, limit)``, never negative.

    Departures: log-odds of the whole verdict sentences, not per token (both have as many tokens, so only `scale`
    changes). An annotator that tells no probabilities votes, and the strength is the log-odds of its votes with half a
    vote added to each side. A strength that contradicts the majority gives a margin of 0. Records with more than two
    responses get every pair judged.

    Args:
        annotator: who judges; with `probabilities` it must tell them (local weights, or `option_logps`).
        principle: the sentence.
        votes: how often each pair is judged, an even number, half in each order.
        reference: whether it answers first; without, it judges directly (the baseline).
        probabilities: whether strengths come from the probabilities of the verdicts.
        scale, limit: of the margin.
        max_new_tokens, temperature, seed: of its own answers and critiques.

    Raises:
        ConfigError: votes that are odd or none, or a margin without bounds.
    """

    name = "self-reference"

    def __init__(
        self,
        annotator: Policy,
        *,
        principle: str = PRINCIPLE,
        votes: int = 4,
        reference: bool = True,
        probabilities: bool = True,
        scale: float = 1.0,
        limit: float = 3.0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if votes < 2 or votes % 2:
            raise ConfigError(
                "votes are an even number, so that each order is shown as often", where="votes", found=votes
            )
        if not scale > 0 or not 0 < limit < math.inf:
            raise ConfigError("margins are positive and bounded", found=f"{scale=}, {limit=}")
        self.annotator, self.principle, self.votes = annotator, principle, votes
        self.reference, self.probabilities, self.scale, self.limit = reference, probabilities, scale, limit
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        self.seed = seed

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """The records with two or more responses; their judgments are left behind."""
        found = []
        for number, record in enumerate(records):
            account.read += 1
            if len(record.responses) < 2:
                account.drop("fewer than two responses to choose between", record.origin)
                continue
            draft = draft_of(record, number, records.source)
            draft.responses = list(record.responses)
            note(account, "judgments that were there before, left out", len(record.judgments))
            found.append(draft)
        return found

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """An answer and a critique per vote and pair (with `reference`), and a verdict."""
        calls = self.votes * sum(len(d.responses) * (len(d.responses) - 1) // 2 for d in drafts)
        parts = ("own answers", "critiques", "verdicts") if self.reference else ("verdicts",)
        return [Cost(part, self.annotator.name, calls) for part in parts]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Judge every pair of responses."""
        contests = [_Contest(d, i, j) for d in drafts for i, j in combinations(range(len(d.responses)), 2)]
        for vote in range(self.votes):
            self._vote(contests, vote, account, first=vote == 0)
        for draft in drafts:
            self._conclude(draft, [c for c in contests if c.draft is draft], account)

    def _vote(self, contests: Sequence[_Contest], vote: int, account: Account, *, first: bool) -> None:
        straight = vote % 2 == 0
        order = [(c.one, c.other) if straight else (c.other, c.one) for c in contests]
        left, right = ([c.draft.texts[pair[k]] for c, pair in zip(contests, order)] for k in (0, 1))
        notes = self._references(contests, left, right, vote) if self.reference else None
        judge = PolicyJudge(
            self.annotator,
            rubric=self.principle,
            seed=self.seed + vote,
            temperature=0.0 if self.probabilities else self.options["temperature"],
            log_odds=self.probabilities,
        )
        prompts = [c.draft.prompt for c in contests]
        verdicts = judge.compare(prompts, left, right, notes=notes, swap=False)
        for place, (contest, verdict) in enumerate(zip(contests, verdicts, strict=True)):
            if verdict.prob is None:
                note(account, "verdicts that could not be read")
                continue
            odds = verdict.log_odds if verdict.log_odds is not None else 2 * verdict.prob - 1
            contest.odds.append(odds if straight else -odds)
            contest.said.append(notes[place] if notes else verdict.reason)
        if first:
            count_flags(account, [verdict.flags for verdict in verdicts])

    def _references(
        self, contests: Sequence[_Contest], left: Sequence[str], right: Sequence[str], vote: int
    ) -> list[str]:
        seed = self.seed + vote
        own = [
            group[0].text
            for group in answers(self.annotator, [c.draft for c in contests], seed=seed, **self.options)
        ]
        how = (
            f"An answer of your own to the prompt is given as the reference; it does not take part. {self.principle} "
            "Say, by the reference, what is good and bad about each response. Answer with exactly one line: CRITIQUE: "
            "followed by what you have to say."
        )
        asked = [
            Request(
                "critique both",
                how,
                {"prompt": conversation(c.draft.prompt), "reference": r, "response 1": a, "response 2": b},
            )
            for c, r, a, b in zip(contests, own, left, right, strict=True)
        ]
        ask = asker(self.annotator, seed=seed, **self.options)
        return [f"My own answer: {r}\n{c.text}" for r, c in zip(own, ask(asked), strict=True)]

    def _conclude(self, draft: Draft, contests: Sequence[_Contest], account: Account) -> None:
        for contest in contests:
            won = sum((o > 0) + 0.5 * (o == 0) for o in contest.odds)
            lost = len(contest.odds) - won
            if won == lost:
                note(account, "pairs whose votes tie" if contest.odds else "pairs without a readable vote")
                continue
            strength = sum(contest.odds) / len(contest.odds)
            if not self.probabilities:
                strength = math.log((won + 0.5) / (lost + 0.5))
            chosen = max(0.0, strength if won > lost else -strength)
            margin = min(self.scale * chosen, self.limit)
            values = (1.0, 0.0) if won > lost else (0.0, 1.0)
            shown = (contest.one, contest.other)
            draft.judgments.append(
                Judgment(
                    "comparison",
                    shown,
                    values,
                    contest.said[0] or None,
                    annotator=self.annotator.name,
                    strength=margin,
                    principle=self.principle,
                )
            )
        if not draft.judgments:
            draft.dropped = "the votes tie"
        draft.provenance |= {
            "responses": [response.source for response in draft.responses],
            "labels": f"{self.annotator.name}, {self.votes} votes",
        }


def soft_label(margin: float, scale: float = 1.0) -> float:
    """A strength as the probability that the label is right, in [0.5, 1]: sigmoid(scale * margin)."""
    return 1 / (1 + math.exp(-scale * margin))


def margins(records: Records) -> Mapping[str, list[float]]:
    """The margins of every comparison, by record id; what a margin-aware reward loss subtracts."""
    return {
        record.id: [j.strength or 0.0 for j in record.judgments if j.kind == "comparison"] for record in records
    }
