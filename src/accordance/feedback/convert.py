"""Raw rows to Records: detection per file, rows that belong together, and the account of every row."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from itertools import chain, groupby, islice
from typing import Any, Literal

from accordance.core.errors import DataError
from accordance.core.record import Account, Record
from accordance.feedback.files import Bad, Item
from accordance.feedback.formats import Format, detect, named
from accordance.feedback.row import Place, Row, Unusable

OnError = Literal["raise", "skip"]
#: Called with the place of a dropped row, the row as it was read, and what was wrong with it.
Aside = Callable[[Place, Any, DataError | Unusable], object]
#: How many rows of a file are looked at to find its format.
SAMPLE = 32


def convert(
    items: Iterable[Item],
    account: Account,
    *,
    format: str | None = None,
    on_error: OnError = "raise",
    limit: int | None = None,
    only: Container[str] | None = None,
    aside: Aside | None = None,
) -> Iterator[Record]:
    """Records of raw rows, written into `account` as they are read.

    Args:
        items: rows with their places; `Bad` for those that couldn't be parsed.
        account: counts what was read, dropped, and done.
        format: the format of all of them; None detects it for each file.
        on_error: whether a row that can't be parsed, or holds a wrong value, is raised or dropped.
        limit: stop after so many records.
        only: the origins of the rows to read; the others are passed over, not counted.
        aside: called with each row that is dropped, and why.

    Raises:
        DataError: no format is recognised; or, with ``on_error="raise"``, a row is malformed.
    """
    return islice(_all(items, account, format, _Broken(account, on_error, aside), only), limit)


class _Broken:
    """What becomes of a row that can't be used: raised, or counted and handed on."""

    def __init__(self, account: Account, on_error: OnError, aside: Aside | None) -> None:
        self.account, self.on_error, self.aside = account, on_error, aside

    def drop(self, place: Place, raw: Any, why: DataError | Unusable) -> None:
        if isinstance(why, DataError) and self.on_error == "raise":
            raise why
        self.account.drop(why.problem if isinstance(why, DataError) else why.reason, str(place))
        if self.aside is not None:
            self.aside(place, raw, why)


def _all(
    items: Iterable[Item], account: Account, format: str | None, broken: _Broken, only: Container[str] | None
) -> Iterator[Record]:
    index = 0
    for _, group in groupby(items, key=lambda item: item[0].source):
        rows = iter(group)
        ahead, sample = _ahead(rows)
        wanted = (item for item in chain(ahead, rows) if only is None or str(item[0]) in only)
        good = _parsed(wanted, broken)
        if not sample:
            for _ in good:  # none can be parsed: each is raised, or skipped and counted
                pass
            continue
        form = named(format) if format else detect(sample, ahead[0][0])
        columns = {column for values in sample for column in values}

        numbered = enumerate(good, index + 1)
        made = (
            Row(v, place, account, index=n, columns=columns, format=form.name) for n, (place, v) in numbered
        )
        for joined in _groups(made, form):
            index = joined[-1].index
            yield from _records(joined, form, account, broken)


def _ahead(items: Iterator[Item]) -> tuple[list[Item], list[Mapping[str, Any]]]:
    """The first rows of a file, and of those the ones that could be parsed (at least one, if there is any)."""
    ahead: list[Item] = []
    sample: list[Mapping[str, Any]] = []
    for item in items:
        ahead.append(item)
        if not isinstance(item[1], Bad):
            sample.append(item[1])
        if len(ahead) >= SAMPLE and sample:
            break
    return ahead, sample


def _parsed(items: Iterable[Item], broken: _Broken) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    for place, values in items:
        if isinstance(values, Bad):
            broken.account.read += 1
            broken.drop(place, values.raw, values.error)
        else:
            yield place, values


def _groups(rows: Iterator[Row], form: Format) -> Iterator[list[Row]]:
    """Rows one by one, or those that the format joins."""
    if form.join is None:
        yield from ([row] for row in rows)
        return
    seen: set[Hashable] = set()
    for key, group in groupby(rows, key=form.join):
        joined = list(group)
        # Equal prompts may come again later (that is two records); parts of one conversation may not.
        if form.name != "helpsteer2" and hash(key) in seen:
            raise DataError(
                "rows that belong together are apart",
                where=joined[0].place.where(),
                found=f"{key!r} again, after rows of another one",
                expected="the rows of one conversation or tree next to each other",
                remedy="sort the file by that column",
            )
        seen.add(hash(key))
        yield joined


def _records(group: list[Row], form: Format, account: Account, broken: _Broken) -> Iterator[Record]:
    account.read += len(group)
    why: DataError | Unusable | None
    try:
        made = form.read(group if form.join else group[0])
        records = [made] if isinstance(made, Record) else list(made)
        why = None if records else Unusable("nothing in it that can be used")
    except (Unusable, DataError) as problem:
        records, why = [], problem
    if why is not None:
        for row in group:
            broken.drop(row.place, row.raw, why)
    elif len(group) > 1:
        account.notes["rows joined with others into one record or tree"] += len(group)
    elif len(records) > 1:
        account.notes["records beyond the first of their row"] += len(records) - 1
    yield from records
