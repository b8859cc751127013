"""What is in Records, counted in one pass: judgments, people, duplicates, ties, contradictions, biases."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from accordance.core.record import Message, Record, Records
from accordance.core.stats import Interval, wilson
from accordance.core.views import Pair, pairs


@dataclass
class Tally:
    """Pairs of which one response was preferred, and two habits that judges have."""

    pairs: int = 0
    longer: int = 0
    unequal: int = 0
    first: int = 0

    def add(self, pair: Pair) -> None:
        """Count one pair that is no tie."""
        self.pairs += 1
        self.first += pair.chosen_first
        lengths = len(pair.chosen.text), len(pair.rejected.text)
        self.unequal += lengths[0] != lengths[1]
        self.longer += lengths[0] > lengths[1]

    @property
    def longer_preferred(self) -> Interval:
        """Share of the pairs of unequal length (in characters) in which the longer response was preferred."""
        return wilson(self.longer, self.unequal)

    @property
    def first_preferred(self) -> Interval | None:
        """Share of the pairs in which the first shown was preferred; None where the order isn't known.

        Files that only say chosen and rejected put the chosen one first in every pair: that is no order of
        presentation.
        """
        return None if self.pairs and self.first == self.pairs else wilson(self.first, self.pairs)


@dataclass
class Survey:
    """Counts over Records.

    Attributes:
        kinds: judgments of each kind.
        annotators, groups, attributes: judgments by each; those who aren't named don't count.
        members: annotators of each group.
        templated: records that go through a chat template; the others are plain text.
        duplicates: records whose prompt and responses came before, with the origins of the first few.
        empty: responses that say nothing.
        identical: records with two equal responses.
        ties: comparisons without any difference.
        comparisons: judgments of that kind.
        tally: all pairs; by_attribute and by_group: some of them.
        contradictions_same: pairs that one annotator judged both ways.
        contradictions_between: other pairs that were judged both ways, by different or unnamed annotators.
    """

    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    annotators: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)
    members: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    templated: int = 0
    no_responses: int = 0
    duplicates: int = 0
    duplicate_rows: list[str] = field(default_factory=list)
    empty: int = 0
    empty_rows: list[str] = field(default_factory=list)
    identical: int = 0
    identical_rows: list[str] = field(default_factory=list)
    comparisons: int = 0
    ties: int = 0
    tally: Tally = field(default_factory=Tally)
    by_attribute: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    by_group: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    contradictions_same: int = 0
    contradictions_between: int = 0


def survey(records: Records) -> Survey:
    """Count everything in a table of records."""
    found = Survey()
    seen: set[bytes] = set()
    for record in records:
        _record(found, record, seen)
    directions: dict[Hashable, dict[str | None, set[bool]]] = defaultdict(lambda: defaultdict(set))
    for pair in pairs(records):
        judgment = pair.judgment
        found.tally.add(pair)
        found.by_attribute[judgment.attribute or "overall"].add(pair)
        if judgment.group is not None:
            found.by_group[judgment.group].add(pair)
        first, second = _key(pair.chosen.messages), _key(pair.rejected.messages)
        if first != second:
            place = (_key(pair.prompt), judgment.attribute, min(first, second), max(first, second))
            directions[place][judgment.annotator].add(first < second)
    for by in directions.values():
        if any(len(ways) == 2 for who, ways in by.items() if who is not None):
            found.contradictions_same += 1
        elif len(set().union(*by.values())) == 2:
            found.contradictions_between += 1
    return found


def _record(found: Survey, record: Record, seen: set[bytes]) -> None:
    found.records += 1
    found.templated += record.chat
    found.no_responses += not record.responses
    keys = [_key(response.messages) for response in record.responses]
    whole = _key(record.prompt) + b"".join(sorted(keys))
    if whole in seen:
        found.duplicates += 1
        _example(found.duplicate_rows, record)
    seen.add(whole)
    empty = sum(not response.text.strip() for response in record.responses)
    if empty:
        found.empty += empty
        _example(found.empty_rows, record)
    if len(set(keys)) < len(keys):
        found.identical += 1
        _example(found.identical_rows, record)
    for judgment in record.judgments:
        found.kinds[judgment.kind] += 1
        found.comparisons += judgment.kind == "comparison"
        found.ties += judgment.tie
        found.attributes[judgment.attribute or "overall"] += 1
        if judgment.annotator is not None:
            found.annotators[judgment.annotator] += 1
        if judgment.group is not None:
            found.groups[judgment.group] += 1
            if judgment.annotator is not None:
                found.members[judgment.group].add(judgment.annotator)


def _example(rows: list[str], record: Record, most: int = 3) -> None:
    if len(rows) < most:
        rows.append(record.origin or record.id)


def _key(turns: tuple[Message, ...]) -> bytes:
    return hashlib.blake2b(repr([(m.role, m.content) for m in turns]).encode(), digest_size=16).digest()
