"""`load_records`: feedback from wherever it lies, as Records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import FEATURES, Account, Record, Records
from accordance.feedback import hub, table
from accordance.feedback.convert import OnError, convert
from accordance.feedback.files import Item, files_of, read_file
from accordance.feedback.formats import named
from accordance.feedback.row import Place

Source = (
    str
    | Path
    | Dataset
    | IterableDataset
    | DatasetDict
    | IterableDatasetDict
    | Records
    | Iterable[Mapping[str, Any]]
    | Iterable[Record]
)


@dataclass(frozen=True)
class _How:
    """How to read: the options of `load_records` that every kind of source knows."""

    format: str | None
    streaming: bool
    limit: int | None
    on_error: OnError


def load_records(
    source: Source,
    *,
    format: str | None = None,
    split: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    on_error: OnError = "raise",
) -> Records:
    """Feedback as Records.

    Args:
        source: a path to a json, jsonl, csv or parquet file (each perhaps with .gz) or to a folder of such
            files; the name of a dataset on the hub (``owner/name`` or ``owner/name:config``); a
            `datasets.Dataset`, `IterableDataset` or `DatasetDict`; dicts; `Record` objects; or Records.
        format: the name of the format (see `accordance.feedback.formats`); by default it is found by the
            columns and values of each file's first rows.
        split: of a hub dataset, a DatasetDict, or a folder (files named after it); which part to read.
        streaming: read while iterating, for what doesn't fit on the disk; the account fills as it is read.
        limit: at most so many records.
        on_error: ``raise``, or ``skip`` to drop rows that can't be parsed or hold a wrong value; each is in
            the account either way.

    Returns:
        Records whose `account` tells what became of every row. A row that can't be used (nothing chosen, no
        common prompt) is dropped with its reason; identical responses are kept and noted.

    Raises:
        DataError: nothing there, no format recognised, or a malformed row; names file, row and remedy.
        ConfigError: an option is out of range or would have no effect.
    """
    if format is not None:
        format = named(format).name
    if on_error not in ("raise", "skip"):
        raise ConfigError("unknown on_error", found=on_error, expected="'raise' or 'skip'")
    if limit is not None and limit < 1:
        raise ConfigError("limit is too small", found=limit, expected="1 or more")
    how = _How(format, streaming, limit, on_error)
    if isinstance(source, Records):
        return _given(source, split, how)
    found = _read(source, split, how)
    if isinstance(source, (str, Path)):
        named_by = {"source": str(source), "format": format, "split": split}
        found.account.reading = {name: value for name, value in named_by.items() if value is not None}
    return found


def raw_rows(source: str | Path, split: str | None = None) -> Iterator[Item]:
    """The rows of a file, a folder or a data set of the hub, each with its place, before anything is made of them."""
    path = Path(source).expanduser()
    if path.exists():
        for file, label in files_of(path, split):
            yield from read_file(file, label)
        return
    yield from hub.rows(hub.load(str(source), split, False), str(source))()


def _read(source: Source, split: str | None, how: _How) -> Records:
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if path.exists():
            return _from_files(path, split, how)
        source, name = hub.load(str(source), split, how.streaming), str(source)
    elif isinstance(source, (DatasetDict, IterableDatasetDict)):
        source, name = hub.choose(source, split), f"DatasetDict[{split or next(iter(source))}]"
    else:
        _no_split(split, "this source")
        name = type(source).__name__
    if isinstance(source, (Dataset, IterableDataset)):
        if source.features is not None and source.features == FEATURES:
            return _given(Records(source, source=name), None, how)
        return _build(hub.rows(source, name), name, how)
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise DataError(
            "nothing that can be read as feedback",
            found=type(source).__name__,
            expected="a path, a hub name, a datasets table, or an iterable of dicts or Records",
            remedy="put a single row into a list" if isinstance(source, Mapping) else None,
        )
    return _build(_repeatable(source), name, how)


def _given(records: Records, split: str | None, how: _How) -> Records:
    """Records as they are, perhaps fewer."""
    for option, value in (("format", how.format), ("split", split)):
        if value is not None:
            raise ConfigError(f"{option}= would have no effect: these are Records already", found=value)
    if how.streaming and not records.streaming:
        records = Records(records._table().to_iterable_dataset(), records.account.copy(), records.source)
    if not how.streaming and records.streaming:
        return records.materialise(how.limit)
    if how.limit is None:
        return records
    if records.streaming:
        return Records(records.dataset.take(how.limit), records.account, records.source)
    return records.select(range(min(how.limit, len(records))))


def _from_files(path: Path, split: str | None, how: _How) -> Records:
    if path.is_file():
        _no_split(split, "a single file")
    files = files_of(path, split)

    def items() -> Iterator[Item]:
        for file, label in files:
            yield from read_file(file, label)

    if how.streaming:
        return _build(items, str(path), how)
    key = None
    if sum(file.stat().st_size for file, _ in files) > table.MEMORY // 16:  # what gzip may unpack to much
        key = table.key_of(files, how)
        if key and (found := table.find(key)):
            return Records(*found, str(path))
    return _build(items, str(path), how, key)


def _build(items: Callable[[], Iterator[Item]], name: str, how: _How, key: str | None = None) -> Records:
    account = Account()

    def records(account: Account = account) -> Iterator[Record]:
        yield from convert(items(), account, format=how.format, on_error=how.on_error, limit=how.limit)
        if account.read == 0:
            raise DataError(
                "no rows", where=name, expected="one or more rows of feedback", remedy="check the source"
            )

    if not how.streaming:
        return Records(table.build(records(), account, key), account, name)

    def rows() -> Iterator[dict[str, Any]]:
        account.read = 0  # each time it is read, the account starts again
        for part in (account.dropped, account.rows, account.notes):
            part.clear()
        for record in records():
            yield record.to_row()

    if getattr(items, "repeatable", True):
        next(records(Account()), None)  # what is wrong with the source shows now, not in mid-training
    return Records(IterableDataset.from_generator(rows, features=FEATURES), account, name)


def _repeatable(source: Iterable[Any]) -> Callable[[], Iterator[Item]]:
    """Rows of an iterable; an iterator (which can be read once) says so when it is read twice."""
    once = isinstance(source, Iterator)
    used = False

    def items() -> Iterator[Item]:
        nonlocal used
        if once and used:
            raise DataError(
                "this iterator was read before", remedy="pass a list, or load without streaming=True"
            )
        used = True
        for number, row in enumerate(source, 1):
            yield _item(row, number)

    items.repeatable = not once  # type: ignore[attr-defined]
    return items


def _item(row: Any, number: int) -> Item:
    place = Place("memory", "memory", number)
    if isinstance(row, Record):
        values = row.to_row()
        return place, {**values, "id": row.id or None, "origin": row.origin or None}
    if not isinstance(row, Mapping):
        raise DataError(
            "this is no row",
            where=place.where(),
            found=f"{type(row).__name__}: {row!r}",
            expected="a dict from column to value, or a Record",
        )
    return place, row


def _no_split(split: str | None, what: str) -> None:
    if split is not None:
        raise ConfigError(
            f"split= has no effect on {what}",
            found=split,
            remedy="leave it out; Records.split(share) holds a part back",
        )
