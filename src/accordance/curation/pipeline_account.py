"""What a curation did to each row, why, and how to take it back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accordance.core.errors import DataError
from accordance.core.record import Account, Record, Records
from accordance.feedback.table import build

DROPPED, CHANGED, MOVED, COPIED, ADDED = "dropped", "changed", "moved", "copied", "added"


@dataclass(frozen=True, slots=True)
class Touch:
    """What one step did to one row.

    Attributes:
        step: the number of the step, from 1.
        name: its name.
        action: ``dropped``, ``changed``, ``moved``, ``copied`` or ``added``.
        row: the number of the row: its place in the input, from 0; rows that were added are counted on from there.
        origin: where the record came from.
        id: the record's id.
        reason: why.
        numbers: what the decision rested on.
        before: the columns as they were: all of them where the row was dropped, those that changed otherwise.
    """

    step: int
    name: str
    action: str
    row: int
    origin: str
    id: str
    reason: str
    numbers: dict[str, float]
    before: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The touch as plain data: a line of the account."""
        return asdict(self)


@dataclass(frozen=True)
class Done:
    """One step that was carried out.

    Attributes:
        name: of the step.
        options: as a recipe holds them.
        read, kept: rows before and after.
        counts: how many rows it dropped, changed, moved, copied and added.
        notes: numbers about the step as a whole.
    """

    name: str
    options: dict[str, Any]
    read: int
    kept: int
    counts: dict[str, int]
    notes: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The step as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Curated:
    """What came of a curation.

    Attributes:
        records: the curated records; their account names every row that was dropped, and why.
        original: the records that went in, as they were.
        touches: what each step did to each row.
        rows: the number of each curated record's row (see `Touch.row`).
        steps: what was done, in order.
    """

    records: Records
    original: Records
    touches: list[Touch]
    rows: list[int]
    steps: list[Done]

    def undo(self) -> Records:
        """The records as they were, from the curated ones and the account alone."""
        return undone(self.records, self.touches, self.rows, len(self.original), self.original.account)

    def reasons(self) -> dict[tuple[str, str, str], int]:
        """How many rows each (step, action, reason) touched."""
        found: dict[tuple[str, str, str], int] = defaultdict(int)
        for touch in self.touches:
            found[touch.name, touch.action, touch.reason] += 1
        return dict(found)


def undone(
    records: Records, touches: Iterable[Touch], rows: Sequence[int], size: int, account: Account | None = None
) -> Records:
    """Take a curation back.

    Args:
        records: the curated records.
        touches: the account.
        rows: the number of each curated record's row.
        size: how many records went in.
        account: that the records had before.

    Raises:
        DataError: account and records do not belong together.
    """
    if len(rows) != len(records):
        raise DataError(
            "the account is not of these records",
            where=records.source,
            found=f"{len(records)} records",
            expected=f"{len(rows)} records, as when they were curated",
        )
    by_row: dict[int, list[Touch]] = defaultdict(list)
    for touch in touches:
        if touch.before is not None and touch.row < size:
            by_row[touch.row].append(touch)
    present = sorted((row, place) for place, row in enumerate(rows) if row < size)

    def made() -> Iterator[Record]:
        kept = zip(present, records.select([place for _, place in present]))
        following = next(kept, None)
        for row in range(size):
            if following is not None and following[0][0] == row:
                values = following[1].to_row()
                following = next(kept, None)
            elif by_row[row] and by_row[row][-1].action == DROPPED:
                values = {}
            else:
                raise DataError("the account does not say what became of a row", found=f"row {row}")
            for touch in reversed(by_row[row]):
                values |= touch.before or {}
            yield Record.from_row(values)

    given = account or Account(read=size)
    return Records(build(made(), given), given, records.source)
