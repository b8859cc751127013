"""Making feedback: prompts in, Records with responses, judgments and provenance out, an account of what was dropped.

A `Synthesis` says how drafts become records (sample, gather evidence, rank, filter) and what that costs; the driver
`synthesize` runs it block by block. Put the policies of a synthesis into `accordance.core.asking.Asked` with one
cache and one budget: then a run that fails or stops for its budget goes on where it was, for free.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from accordance.core.asking import BudgetSpent
from accordance.core.errors import ConfigError
from accordance.core.judge import Judge
from accordance.core.policy import Completion, Policy
from accordance.core.record import Account, Judgment, Message, Record, Records, Response

#: Reason in the account for prompts that were not reached.
SPENT = "the budget was spent"
EMPTY = "a response is empty"


@dataclass
class Draft:
    """A record in the making.

    Attributes:
        prompt: the conversation to be answered.
        id: of the record it comes from; the draws for this draft are seeded by it.
        origin: where its prompt stood.
        responses: what was answered so far.
        judgments: what was said about the responses so far.
        extras: what the record will carry besides.
        provenance: where prompt, responses and labels came from; becomes ``extras["provenance"]``.
        dropped: why it will not become a record; None as long as it may.
    """

    prompt: tuple[Message, ...]
    id: str = ""
    origin: str = ""
    responses: list[Response] = field(default_factory=list)
    judgments: list[Judgment] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    dropped: str | None = None

    @property
    def texts(self) -> list[str]:
        """The texts of the responses."""
        return [response.text for response in self.responses]

    def record(self) -> Record:
        """The record, provenance included."""
        extras = {**self.extras, "provenance": self.provenance}
        return Record(self.prompt, tuple(self.responses), tuple(self.judgments), self.id, self.origin, extras)


@dataclass(frozen=True)
class Cost:
    """Calls that one part of a synthesis makes.

    Attributes:
        what: the part, such as ``responses`` or ``verdicts``.
        who: who is asked.
        calls: how many responses are asked for, at most.
    """

    what: str
    who: str
    calls: int


class Synthesis(ABC):
    """A way of making feedback.

    Subclasses name themselves, say what `n` prompts cost at most, and fill drafts in place. A draft that can't
    become a record gets `dropped`; what else is left out (pairs that tie) is counted in the account's notes.
    """

    name: ClassVar[str]

    @abstractmethod
    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """What these drafts cost at most, before anything is asked."""

    @abstractmethod
    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Fill the drafts in place."""

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """What to work on: by default the prompts of the records, each once; `account` counts rows and drops."""
        seen: set[tuple[Message, ...]] = set()
        drafts = []
        for number, record in enumerate(records):
            account.read += 1
            if not record.prompt:
                account.drop("there is no prompt", record.origin)
            elif record.prompt in seen:
                account.drop("the prompt stood there before", record.origin)
            else:
                seen.add(record.prompt)
                drafts.append(draft_of(record, number, records.source))
        return drafts


def draft_of(record: Record, number: int, source: str) -> Draft:
    """A draft with the prompt of a record, and nothing else of it but what concerns the prompt."""
    kept = {k: v for k, v in record.extras.items() if k != "provenance"}
    origin = record.origin or f"{source} record {number + 1}"
    return Draft(
        record.prompt, record.id or f"{source}-{number}", origin, extras=kept, provenance={"prompt": origin}
    )


def synthesize(
    method: Synthesis,
    records: Records,
    *,
    block: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Records:
    """Make feedback on the prompts of some records.

    Args:
        method: how.
        records: where the prompts come from (and the responses, where the method judges given ones).
        block: drafts worked on at once.
        progress: called with (drafts done, drafts in all).

    Returns:
        The records made. Their account counts every prompt: kept, or dropped and why. Where the budget was spent,
        the records finished before are returned, and the prompts not reached are in the account under `SPENT`.

    Raises:
        ConfigError: there is nothing to work on.
        ModelError: a policy failed. What it had answered is in its cache: run again to go on from there.
    """
    account = Account()
    drafts = method.drafts(records, account)
    if not drafts:
        raise ConfigError(
            "there is nothing to work on",
            where=records.source,
            found=f"{account.read} rows: {dict(account.dropped)}",
        )
    made: list[Record] = []
    for start in range(0, len(drafts), block):
        some = drafts[start : start + block]
        notes = account.notes.copy()
        try:
            method.make(some, account)
        except BudgetSpent:
            account.notes = notes  # of a block that is not finished nothing is told
            for draft in drafts[start:]:
                account.drop(SPENT, draft.origin)
            break
        for draft in some:
            if draft.dropped is not None:
                account.drop(draft.dropped, draft.origin)
            else:
                draft.provenance = {"method": method.name, **draft.provenance}
                made.append(draft.record())
        if progress is not None:
            progress(min(start + block, len(drafts)), len(drafts))
    found = Records.of(made, source=f"{method.name} of {records.source}")
    return Records(found.dataset, account, found.source)


def alive(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts that were not dropped."""
    return [draft for draft in drafts if draft.dropped is None]


def generator(seed: int, draft: Draft, what: str = "") -> random.Random:
    """Randomness of one draft: from the seed and its id, so that it does not depend on its neighbours."""
    return random.Random(f"{seed} {draft.id} {what}".encode("utf-8", "surrogatepass"))


def answers(policy: Policy, drafts: Sequence[Draft], told: str = "", **options: Any) -> list[list[Completion]]:
    """What a policy answers to the prompts of drafts, under a system message where there is something to tell."""
    prompts = [instructed(draft.prompt, told) for draft in drafts]
    return policy.generate(prompts, **options) if prompts else []


def instructed(prompt: Sequence[Message], told: str) -> tuple[Message, ...]:
    """A prompt with a system message put before it, or added to the one it has."""
    if not told:
        return tuple(prompt)
    if prompt and prompt[0].role == "system":
        return (Message("system", f"{prompt[0].content}\n\n{told}"), *prompt[1:])
    return (Message("system", told), *prompt)


def pairs_of(values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Every (better, worse) among some values, ties left out."""
    for i, one in enumerate(values):
        for j, other in enumerate(values):
            if one > other:
                yield i, j


def best_and_worst(
    draft: Draft, values: Sequence[float], judge: str, account: Account, *, reason: str = "", **more: Any
) -> None:
    """Keep the best and the worst response of a draft as a pair; drop it where they tie.

    The comparison's strength is their gap.
    """
    best = max(range(len(values)), key=values.__getitem__)
    worst = min(range(len(values)), key=values.__getitem__)
    if values[best] == values[worst]:
        draft.dropped = "the best and the worst tie"
        return
    if draft.texts[best] == draft.texts[worst]:
        draft.dropped = "the best and the worst are the same text"
        return
    note(account, "responses between the best and the worst, left out", len(values) - 2)
    gap = values[best] - values[worst]
    draft.responses = [draft.responses[best], draft.responses[worst]]
    draft.judgments = [
        Judgment("comparison", (0, 1), (1.0, 0.0), reason or None, annotator=judge, strength=gap, **more)
    ]
    draft.provenance |= {"responses": [r.source for r in draft.responses], "labels": judge}


class SampleAndRank(Synthesis):
    """The plain way: sample, let a judge see all responses of a prompt side by side, keep best and worst.

    With the policy as its own judge this is self-rewarding.

    Args:
        sampler: writes candidates; see `accordance.feedback.candidates`.
        judge: ranks them.
        rubric: what counts; the judge's own by default.
    """

    name = "rank"

    def __init__(self, sampler: Any, judge: Judge, *, rubric: str | None = None) -> None:
        self.sampler, self.judge, self.rubric = sampler, judge, rubric

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """Candidates, and one ranking per prompt and vote."""
        votes = getattr(self.judge, "votes", 1)
        return [*self.sampler.cost(len(drafts)), Cost("rankings", self.judge.name, len(drafts) * votes)]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Sample, rank, keep best and worst."""
        self.sampler.fill(drafts, account)
        ready = alive(drafts)
        ranked = self.judge.rank([d.prompt for d in ready], [d.texts for d in ready], rubric=self.rubric)
        for draft, found in zip(ready, ranked, strict=True):
            count_flags(account, found.flags)
            if found.values is None:
                draft.dropped = "the judge could not be read"
                continue
            best_and_worst(draft, found.values, self.judge.name, account, reason=found.reason)


def count_flags(account: Account, flags: Sequence[Sequence[str]]) -> None:
    """Count responses that look as if they speak to the judge."""
    note(account, "responses that may be hostile to the judge", sum(bool(kinds) for kinds in flags))


def note(account: Account, what: str, many: int = 1) -> None:
    """Count something that was done, where there is something to count."""
    if many:
        account.notes[what] += many


def total(costs: Sequence[Cost]) -> int:
    """Calls in all, at most."""
    return sum(cost.calls for cost in costs)


def by_who(costs: Sequence[Cost]) -> Mapping[str, int]:
    """Calls of each one who is asked."""
    found: dict[str, int] = {}
    for cost in costs:
        found[cost.who] = found.get(cost.who, 0) + cost.calls
    return found
