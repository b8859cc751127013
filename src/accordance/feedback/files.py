"""Rows out of files: json, jsonl, csv, parquet, each also gzipped, and folders of them. One row at a time."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from accordance.core.errors import DataError
from accordance.feedback.row import SKIP, Place

#: The kinds of file that are read, by the end of their names; each may be followed by ``.gz``.
KINDS = (".json", ".jsonl", ".csv", ".parquet")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Bad:
    """A row that can't be parsed, as it stands there. Whether it is raised or skipped is for the reader to say."""

    error: DataError
    raw: str | list[str] = ""


Item = tuple[Place, Mapping[str, Any] | Bad]


def kind_of(path: Path) -> str | None:
    """``.json``, ``.jsonl``, ``.csv`` or ``.parquet``; None where the name tells none of them."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def files_of(path: Path, split: str | None) -> list[tuple[Path, str]]:
    """(file, label) of every file of feedback at `path`, sorted by name.

    Args:
        path: a file or a folder; folders are searched to the bottom, hidden names are passed over.
        split: of a folder, only files in a folder of that name or whose name begins with it.

    Raises:
        DataError: nothing to read there.
    """
    if path.is_file():
        if kind_of(path) is None:
            raise DataError(
                "this kind of file is not read",
                where=str(path),
                found=f"a name that ends in {path.suffix or 'nothing'!r}",
                expected="a name that ends in " + ", ".join(KINDS) + ", each perhaps with .gz",
                remedy="rename or convert the file",
            )
        return [(path, path.name)]
    inside = [p for p in sorted(path.rglob("*")) if p.is_file() and kind_of(p)]
    found = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    if split is not None:
        found = [p for p in found if _in_split(p.relative_to(path), split)]
    if not found:
        raise DataError(
            f"no file of the split {split!r} in the folder" if split else "no file of feedback in the folder",
            where=str(path),
            found=f"{len(inside)} files of feedback in all",
            expected=(f"files named {split}*, or a folder {split}/, " if split else "files ")
            + f"of {', '.join(KINDS)}",
            remedy="name the file itself" if inside else "check the path",
        )
    return [(p, str(p.relative_to(path))) for p in found]


def _in_split(path: Path, split: str) -> bool:
    stem = path.name.split(".")[0]
    return split in path.parts[:-1] or stem == split or stem.startswith((f"{split}-", f"{split}_"))


def rows_of(source: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows as they come, each with where it stands: of a file or folder, or of an iterable.

    Raises:
        DataError: there is no such file, or a row of it can't be read.
    """
    if not isinstance(source, (str, Path)):
        yield from ((f"row {number}", row) for number, row in enumerate(source, 1))
        return
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError("there is no such file", where=str(path))
    for file, label in files_of(path, None):
        for place, row in read_file(file, label):
            if isinstance(row, Bad):
                raise row.error
            yield place.where(), row


def read_file(path: Path, label: str) -> Iterator[Item]:
    """The rows of one file, in order, each with its place.

    Yields:
        The place and the values; `Bad` instead of values for a line that can't be parsed.

    Raises:
        DataError: the file is empty, isn't what its name says, or can't be read.
    """
    kind = kind_of(path) or ""
    try:
        if path.stat().st_size == 0:
            raise _empty(path)
        count = 0
        for item in _READERS[kind](path, label):
            count += 1
            yield item
        if count == 0:
            raise _empty(path)
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(
            "the file can't be read", where=str(path), found=str(problem), remedy="check it"
        ) from problem


def _empty(path: Path) -> DataError:
    return DataError(
        "the file is empty",
        where=str(path),
        found="no rows",
        expected="one or more rows of feedback",
        remedy="check the path, or write the file again",
    )


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _malformed(
    place: Place, why: str, found: str, expected: str = "one JSON object", raw: str | None = None
) -> Bad:
    remedy = f"mend it, or {SKIP}"
    error = DataError(
        "malformed JSON",
        where=place.where(),
        found=f"{why}: {found[:120]}",
        expected=expected,
        remedy=remedy,
    )
    return Bad(error, found if raw is None else raw)


def _values(place: Place, value: Any) -> Mapping[str, Any] | Bad:
    if isinstance(value, Mapping):
        return value
    return _malformed(place, f"a {type(value).__name__}", repr(value), "an object from column to value")


def _jsonl(path: Path, label: str) -> Iterator[Item]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            place = Place(str(path), label, number, "line")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                yield place, _values(place, json.loads(line.decode()))
            except UnicodeDecodeError as problem:
                raw = line.decode(errors="backslashreplace").strip()
                yield place, _malformed(place, "not UTF-8", str(problem), "text in UTF-8", raw)
            except (ValueError, RecursionError) as problem:
                yield place, _malformed(place, str(problem), line.decode(errors="replace").strip())


def _json(path: Path, label: str) -> Iterator[Item]:
    """A list of objects, or objects one after the other; read piece by piece, never the whole file."""
    with _open(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig")
        try:
            yield from _json_rows(file, path, label)
        except UnicodeDecodeError as problem:
            raise DataError("not UTF-8", where=str(path), found=str(problem), expected="text in UTF-8",
                            remedy="convert the file to UTF-8") from problem  # fmt: skip


class _Pieces:
    """A window over a text file that grows when a value doesn't fit into it, and knows its line."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.text, self.at, self.line = file, "", 0, 1
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        """Read on; False at the end."""
        piece = self.file.read(max(_CHUNK, len(self.text)))
        if piece:
            self.line += self.text.count("\n", 0, self.at)
            self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """The next JSON value."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except ValueError:
                if not self.more():
                    raise
                continue
            if end < len(self.text) or not self.more():
                self.at = end
                return value
            # The value touches the end of the window: a number could go on. Read it again in the larger one.


def _json_rows(file: IO[str], path: Path, label: str) -> Iterator[Item]:
    pieces = _Pieces(file)
    listed = pieces.peek() == "["
    pieces.at += listed
    number = 0
    while (head := pieces.peek()) and head != "]":
        number += 1
        place = Place(str(path), label, number)
        line = pieces.line + pieces.text.count("\n", 0, pieces.at)
        try:
            value = pieces.value()
        except (ValueError, RecursionError) as problem:
            # What follows a broken value can't be told apart from it.
            why = problem.msg if isinstance(problem, json.JSONDecodeError) else str(problem)
            line += pieces.text.count("\n", pieces.at, getattr(problem, "pos", pieces.at))
            raise DataError(
                "malformed JSON",
                where=f"{place.where()}, line {line}",
                found=f"{why}: {pieces.text[pieces.at : pieces.at + 120]}",
                expected="a list of JSON objects, or one object per line",
                remedy="mend the file; in a .jsonl file, on_error='skip' (--on-error skip) can pass over bad lines",
            ) from problem
        yield place, _values(place, value)
        if pieces.peek() == ",":
            pieces.at += 1
    if listed and pieces.peek() != "]":
        raise DataError("malformed JSON", where=f"{path}, after row {number}", found="the end of the file",
                        expected="a closing ]", remedy="the file seems cut off: write it again")  # fmt: skip


def _csv(path: Path, label: str) -> Iterator[Item]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _open(path) as raw:
        reader = csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), strict=True)
        number = 0
        try:
            header = next(reader, [])
            doubled = sorted({name for name in header if header.count(name) > 1})
            if doubled:
                raise DataError("a column stands twice", where=f"{path}, header", found=doubled,
                                expected="each column once", remedy="rename one of them")  # fmt: skip
            for cells in reader:
                if not cells:
                    continue
                number += 1
                place = Place(str(path), label, number, cells=True)
                if len(cells) != len(header):
                    yield place, Bad(_ragged(place, cells, header), cells)
                else:
                    yield place, dict(zip(header, cells))
        except (csv.Error, UnicodeDecodeError) as problem:
            raise DataError(
                "malformed csv",
                where=f"{path}, row {number + 1} (line {reader.line_num})",
                found=str(problem),
                expected="comma-separated cells in UTF-8; quotes inside a quoted cell are doubled",
                remedy="write the file with a csv library",
            ) from problem


def _ragged(place: Place, cells: list[str], header: list[str]) -> DataError:
    return DataError(
        "malformed csv",
        where=place.where(),
        found=f"{len(cells)} cells: {cells}",
        expected=f"{len(header)} cells, as in the header: {header}",
        remedy=f"quote cells that hold commas or line ends, or {SKIP}",
    )


def _parquet(path: Path, label: str) -> Iterator[Item]:
    if path.suffix.lower() == ".gz":
        with tempfile.TemporaryFile() as whole:
            with _open(path) as packed:
                shutil.copyfileobj(packed, whole)
            whole.seek(0)
            yield from _parquet_rows(path, label, whole)
    else:
        yield from _parquet_rows(path, label, path)


def _parquet_rows(path: Path, label: str, file: Any) -> Iterator[Item]:
    try:
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1000):
            for values in batch.to_pylist():
                number += 1
                yield Place(str(path), label, number), values
    except pa.ArrowInvalid as problem:
        raise DataError("not a parquet file", where=str(path), found=str(problem), expected="a parquet file",
                        remedy="write the file again, or correct its name") from problem  # fmt: skip


_READERS: dict[str, Callable[[Path, str], Iterator[Item]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
