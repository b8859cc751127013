"""Debate as help for a weak judge: both sides are argued for, and the judge sees what was said (S167)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Policy
from accordance.core.record import Message, Record, Records


@dataclass(frozen=True)
class Statement:
    """What was said for a side: 1 for class 1 (the first answer is the better one), 0 for class 0."""

    side: int
    said: Any


Transcript = tuple[Statement, ...]


class Speaker(Protocol):
    """Argues for a side of each item."""

    def speak(
        self, items: Any, sides: np.ndarray, transcripts: Sequence[Transcript], seed: int
    ) -> Sequence[Any]:
        """One statement per item for its side, shape [n], given what was said before."""
        ...


@system("S167", "Debate helps weak-to-strong", paper="arXiv:2501.13124")
@dataclass(frozen=True)
class Debate:
    """Help for the teacher of a `WeakToStrong` experiment (its `advisor`): two debaters argue for opposite answers.

    Each side speaks `turns` times, seeing what was said before; which side begins is drawn for each item. In a
    ``consultancy`` one side, drawn at random, speaks alone. Every seed is another debate, so that an ensemble of
    teachers sees several. Turn count and prompts are our reading; the paper's code is not public.

    Attributes:
        speaker: who argues: the strong model before any alignment, in the paper.
        show: puts what was said before the teacher: from items and their transcripts to items.
        turns: statements of each side.
        kind: ``debate`` or ``consultancy``.
    """

    speaker: Speaker
    show: Callable[[Any, Sequence[Transcript]], Any]
    turns: int = 3
    kind: Literal["debate", "consultancy"] = "debate"

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ConfigError("nobody says anything", where="turns", found=self.turns, expected="1 or more")

    def __call__(self, items: Any, seed: int) -> Any:
        """The items with a debate about each."""
        return self.show(items, self.transcripts(items, seed))

    def transcripts(self, items: Any, seed: int) -> list[Transcript]:
        """What is said about each item."""
        first = np.random.default_rng(seed).integers(0, 2, len(items))
        both = self.kind == "debate"
        transcripts: list[Transcript] = [()] * len(items)
        for turn in range(self.turns * (2 if both else 1)):
            sides = first if not both or turn % 2 == 0 else 1 - first
            said = self.speaker.speak(items, sides, transcripts, seed + turn)
            if len(said) != len(items):
                raise DataError("a debater must say something about every item", found=len(said))
            transcripts = [
                (*before, Statement(int(side), what)) for before, side, what in zip(transcripts, sides, said)
            ]
        return transcripts


_NAMES = {1: "first", 0: "second"}


@dataclass(frozen=True)
class PolicySpeaker:
    """A debater that is a text model; items are records of two responses.

    Attributes:
        policy: who writes.
        max_new_tokens, temperature: of a statement.
    """

    policy: Policy
    max_new_tokens: int = 128
    temperature: float = 1.0

    def speak(
        self, items: Records, sides: np.ndarray, transcripts: Sequence[Transcript], seed: int
    ) -> Sequence[str]:
        """See `Speaker.speak`."""
        prompts = [_request(*row) for row in zip(items, sides.tolist(), transcripts)]
        written = self.policy.generate(
            prompts, max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=seed
        )
        return [completions[0].text.strip() for completions in written]


def _request(record: Record, side: int, transcript: Transcript) -> str:
    first, second = (response.text for response in record.responses)
    lines = [
        f"Question: {record.prompt_text}",
        f"First answer: {first}",
        f"Second answer: {second}",
        *(f"For the {_NAMES[s.side]} answer: {s.said}" for s in transcript),
        f"Argue in a few sentences that the {_NAMES[side]} answer is the better one.",
    ]
    return "\n".join(lines)


def show_records(items: Records, transcripts: Sequence[Transcript]) -> Records:
    """Records whose prompts end with both answers and what was said about them."""
    made = []
    for record, transcript in zip(items, transcripts, strict=True):
        first, second = (response.text for response in record.responses)
        said = "\n".join(f"For the {_NAMES[s.side]} answer: {s.said}" for s in transcript)
        help_ = f"\n\nFirst answer: {first}\nSecond answer: {second}\n{said}\nGive the better answer."
        *before, last = record.prompt
        made.append(replace(record, prompt=(*before, Message(last.role, last.content + help_))))
    return Records.of(made, account=items.account.copy(), source=items.source)
