"""Typed views of Records: what an objective or a measurement needs of the judgments, item by item.

A view is a sequence: cheap to make, items built when asked for. Each item says which record it came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Generic, TypeVar, overload

from accordance.core.errors import DataError
from accordance.core.record import Judgment, Message, Record, Records, Response


@dataclass(frozen=True)
class Demonstration:
    """A response to imitate."""

    record: Record
    response: Response

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The prompt of the record."""
        return self.record.prompt


@dataclass(frozen=True)
class Pair:
    """Two responses of which `chosen` was preferred (or neither, where `tie`)."""

    record: Record
    chosen: Response
    rejected: Response
    judgment: Judgment
    #: How much better, in the judgment's own unit (difference of values); 0 for a tie.
    gap: float
    #: Whether the chosen response was shown first.
    chosen_first: bool

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The prompt of the record."""
        return self.record.prompt

    @property
    def tie(self) -> bool:
        """Whether no difference was found."""
        return self.gap == 0


@dataclass(frozen=True)
class Ranking:
    """Two or more responses with one number each, best first; equal numbers are ties."""

    record: Record
    responses: tuple[Response, ...]
    scores: tuple[float, ...]
    judgment: Judgment

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The prompt of the record."""
        return self.record.prompt


@dataclass(frozen=True)
class Scored:
    """One response with one number: a rating, or a thumb (1 up, 0 down)."""

    record: Record
    response: Response
    value: float
    judgment: Judgment

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The prompt of the record."""
        return self.record.prompt


@dataclass(frozen=True)
class Critique:
    """One response with what was said about it."""

    record: Record
    response: Response
    text: str
    judgment: Judgment

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The prompt of the record."""
        return self.record.prompt


@dataclass(frozen=True)
class Steps:
    """One response cut into steps, with a number per step."""

    record: Record
    response: Response
    values: tuple[float, ...]
    judgment: Judgment

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The prompt of the record."""
        return self.record.prompt


Item = TypeVar("Item")


class View(Sequence[Item], Generic[Item]):
    """A sequence of typed items over Records.

    Args:
        records: the table.
        places: for each item the index of its record and whatever `build` needs to make it.
        build: makes the item from the record and the place.
    """

    def __init__(
        self, records: Records, places: list[tuple[int, ...]], build: Callable[[Record, tuple[int, ...]], Item]
    ) -> None:
        self.records, self.places, self._build = records, places, build

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> View[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | View[Item]:
        if isinstance(index, slice):
            return View(self.records, self.places[index], self._build)
        place = self.places[index]
        return self._build(self.records[place[0]], place)

    def __iter__(self) -> Iterator[Item]:
        block: list[Record] = []
        start = 0
        ascending = all(a[0] <= b[0] for a, b in pairwise(self.places))
        size = 256 if ascending else 1  # reading ahead pays only where what comes next is next in the table
        for place in self.places:
            if not start <= place[0] < start + len(block):
                start = place[0]
                block = self.records.block(start, start + size)
            yield self._build(block[place[0] - start], place)

    def select(self, indices: Sequence[int]) -> View[Item]:
        """The items at these indices, in this order."""
        return View(self.records, [self.places[i] for i in indices], self._build)


#: Judgments of every attribute, and overall ones.
ANY = "*"


def which_attribute(records: Records, kinds: Sequence[str], attribute: str | None = None) -> str | None:
    """The one attribute to learn from: what is better on one may be worse on another.

    Args:
        records: the table.
        kinds: kinds of judgment that count.
        attribute: the attribute that was asked for, or None for overall judgments.

    Returns:
        The attribute asked for; else None where there are overall judgments; else the only attribute there is.

    Raises:
        DataError: nobody judged that attribute, or there are several, none overall, and none was asked for.
    """
    found: Counter[str | None] = Counter()
    for judgments in records._table()["judgments"]:
        found.update(judgment["attribute"] for judgment in judgments if judgment["kind"] in kinds)
    if not found or attribute in found:
        return attribute
    named = ", ".join(f"{name or 'overall'} ({count})" for name, count in found.most_common())
    if attribute is not None or len(found) > 1:
        raise DataError(
            f"nobody judged {attribute!r}" if attribute else "the judgments are on several attributes",
            where=records.source,
            found=named,
            expected="one attribute to learn from",
            remedy=f"attribute={next(iter(found))!r}, for instance",
        )
    return next(iter(found))


def pairs(records: Records, *, ties: bool = False, attribute: str | None = ANY) -> View[Pair]:
    """Every two responses that one judgment compared.

    A ranking of K responses gives all its pairs. A rating by one annotator of two or more responses on one
    attribute counts as a comparison too.

    Args:
        records: the table.
        ties: whether pairs without a difference are in the view.
        attribute: only judgments of this attribute, or None for overall ones; all of them by default.
    """
    places: list[tuple[int, ...]] = []
    for index, judgments in enumerate(records._table()["judgments"]):
        for number, judgment in enumerate(judgments):
            if judgment["kind"] not in ("comparison", "rating") or len(judgment["responses"]) < 2:
                continue
            if attribute not in (ANY, judgment["attribute"]):
                continue
            values = judgment["values"]
            for a, b in combinations(range(len(values)), 2):
                if values[a] != values[b]:
                    places.append((index, number, *((a, b) if values[a] > values[b] else (b, a))))
                elif ties:
                    places.append((index, number, a, b))

    def build(record: Record, place: tuple[int, ...]) -> Pair:
        judgment, a, b = record.judgments[place[1]], place[2], place[3]
        return Pair(
            record,
            record.responses[judgment.responses[a]],
            record.responses[judgment.responses[b]],
            judgment,
            judgment.values[a] - judgment.values[b],
            a < b,
        )

    return View(records, places, build)


def rankings(records: Records, *, least: int = 2, attribute: str | None = ANY) -> View[Ranking]:
    """Judgments that compared or rated at least `least` responses, best first."""
    places = _places(
        records,
        lambda j: (
            j["kind"] in ("comparison", "rating")
            and len(j["responses"]) >= least
            and attribute in (ANY, j["attribute"])
        ),
    )

    def build(record: Record, place: tuple[int, ...]) -> Ranking:
        judgment = record.judgments[place[1]]
        order = sorted(range(len(judgment.values)), key=lambda i: -judgment.values[i])
        return Ranking(
            record,
            tuple(record.responses[judgment.responses[i]] for i in order),
            tuple(judgment.values[i] for i in order),
            judgment,
        )

    return View(records, places, build)


def thumbs(records: Records, *, attribute: str | None = ANY) -> View[Scored]:
    """Responses with a thumb: value 1 for up, 0 for down."""
    return _scored(records, "thumb", attribute)


def ratings(records: Records, *, attribute: str | None = ANY) -> View[Scored]:
    """Responses with a rating, one item per response and judgment."""
    return _scored(records, "rating", attribute)


def demonstrations(records: Records) -> View[Demonstration]:
    """Responses that say how to answer."""
    places = _places(records, lambda j: j["kind"] == "demonstration", each=True)
    return View(
        records,
        places,
        lambda record, p: Demonstration(record, record.responses[record.judgments[p[1]].responses[p[2]]]),
    )


def critiques(records: Records) -> View[Critique]:
    """Responses with what was said about them."""
    places = _places(records, lambda j: j["kind"] == "critique" and j["text"] is not None)

    def build(record: Record, place: tuple[int, ...]) -> Critique:
        judgment = record.judgments[place[1]]
        return Critique(record, record.responses[judgment.responses[0]], judgment.text or "", judgment)

    return View(records, places, build)


def steps(records: Records) -> View[Steps]:
    """Responses cut into steps with a number for each."""
    places = _places(records, lambda j: j["kind"] == "steps")

    def build(record: Record, place: tuple[int, ...]) -> Steps:
        judgment = record.judgments[place[1]]
        return Steps(record, record.responses[judgment.responses[0]], judgment.values, judgment)

    return View(records, places, build)


def _scored(records: Records, kind: str, attribute: str | None) -> View[Scored]:
    def build(record: Record, place: tuple[int, ...]) -> Scored:
        judgment = record.judgments[place[1]]
        return Scored(
            record, record.responses[judgment.responses[place[2]]], judgment.values[place[2]], judgment
        )

    places = _places(records, lambda j: j["kind"] == kind and attribute in (ANY, j["attribute"]), each=True)
    return View(records, places, build)


def _places(records: Records, keep: Callable[[dict], bool], *, each: bool = False) -> list[tuple[int, ...]]:
    """(record, judgment) of every judgment to keep, or (record, judgment, position) for each response of it."""
    places: list[tuple[int, ...]] = []
    for index, judgments in enumerate(records._table()["judgments"]):
        for number, judgment in enumerate(judgments):
            if keep(judgment):
                many = range(len(judgment["responses"])) if each else range(1)
                places += [(index, number, position) if each else (index, number) for position in many]
    return places
