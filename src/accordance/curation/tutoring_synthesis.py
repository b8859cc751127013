"""Tutoring as a way of making feedback: problems in records, pairs of tutor's turns out, nobody asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Account, Record, Records
from accordance.curation.tutoring import Fault, Problem, Step, Student, Tutor, tutoring_pairs
from accordance.feedback.synthesis import Cost, Draft, Synthesis

LACKS = "no answer and steps with hints stand beside the prompt"
_STEP = {"question", "answer", "hints", "mistakes"}


def problem_of(record: Record) -> Problem | None:
    """The problem in a record: its prompt, and in the extras ``answer`` and ``steps``; None where these are not there.

    Each of ``steps`` has ``question``, ``answer``, ``hints`` (from large to small) and perhaps ``mistakes``.

    Raises:
        DataError: there are steps, but not of this form.
    """
    steps, answer = record.extras.get("steps"), record.extras.get("answer")
    if not record.prompt or not steps or answer is None:
        return None
    try:
        made = tuple(_step(one) for one in steps)
        return Problem(record.prompt_text, str(answer), made, record.id)
    except (TypeError, KeyError, DataError) as problem:
        raise DataError(
            "these are no steps of a problem",
            where=record.origin or record.id,
            found=str(steps),
            expected="a list of objects with question, answer, hints (one or more), and perhaps mistakes",
        ) from problem


def _step(given: Mapping[str, Any]) -> Step:
    lists = {name: given.get(name, []) for name in ("hints", "mistakes")}
    if set(given) - _STEP or not all(isinstance(some, list) for some in lists.values()):
        raise TypeError("an unknown name, or no list")
    hints, mistakes = (tuple(map(str, some)) for some in lists.values())
    return Step(str(given["question"]), str(given["answer"]), hints, mistakes)


class Tutoring(Synthesis):
    """Pairs of tutor's turns by `tutoring_pairs` (S048), of the problems that records hold; see `problem_of`.

    Args:
        tutor: the state machine.
        student: who answers.
        dialogues, turns, faults, balance, seed: see `tutoring_pairs`.
    """

    name = "tutoring"

    def __init__(
        self,
        *,
        tutor: Tutor | None = None,
        student: Student | None = None,
        dialogues: int = 4,
        turns: int = 8,
        faults: Sequence[Fault] = get_args(Fault),
        balance: bool = True,
        seed: int = 0,
    ) -> None:
        if dialogues < 1 or turns < 1:
            raise ConfigError("a tutor needs a dialogue and a turn", found=f"{dialogues=}, {turns=}")
        self.how: dict[str, Any] = {"tutor": tutor, "student": student, "dialogues": dialogues, "turns": turns}
        self.how |= {"faults": tuple(faults), "balance": balance, "seed": seed}

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """A draft per turn of the tutor, complete; problems without steps are dropped.

        Raises:
            ConfigError: no record holds a problem.
        """
        problems = []
        for record in records:
            if (problem := problem_of(record)) is None:
                account.read += 1
                account.drop(LACKS, record.origin)
            else:
                problems.append(problem)
        if not problems:
            raise ConfigError(
                "no record holds a problem",
                where=records.source,
                found=f"{account.read} records; {LACKS}",
                expected='{"prompt": ..., "answer": ..., "steps": [{"question", "answer", "hints", "mistakes"}]}',
                remedy="--records lab:steps, to try it",
            )
        made = tutoring_pairs(problems, **self.how)
        account.read += made.account.read
        for reason, origins in made.account.rows.items():
            for origin in origins:
                account.drop(reason, origin)
        return [_draft(record) for record in made]

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """Nothing: tutor and student are scripted."""
        return []

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Nothing is left to be done."""


def _draft(record: Record) -> Draft:
    extras = {key: value for key, value in record.extras.items() if key != "provenance"}
    provenance = dict(record.extras["provenance"])
    responses, judgments = list(record.responses), list(record.judgments)
    return Draft(record.prompt, record.id, record.origin, responses, judgments, extras, provenance)
