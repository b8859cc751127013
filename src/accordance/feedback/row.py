"""One raw row of a source: where it stands, and typed access to its columns with errors that can be mended."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from io import BytesIO
from typing import Any, NoReturn

from accordance.core.errors import DataError, nearest
from accordance.core.record import Account, Judgment, Message, Record, Response

#: How an error about one row ends.
SKIP = "pass on_error='skip' (--on-error skip) to set such rows aside"
_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no"}


class Unusable(Exception):
    """This row can't become a record; the reason goes into the account. Not an error: the rest is read.

    Args:
        reason: in a few words, the same for all rows of its kind.
        expected: what should have been there.
    """

    def __init__(self, reason: str, expected: str = "something to learn from") -> None:
        super().__init__(reason)
        self.reason, self.expected = reason, expected


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        source: the file as the user named it, or what else the rows come from.
        label: a short name of it, for `Record.origin`.
        number: the 1-based line (jsonl) or data row (everything else).
        unit: ``line`` or ``row``.
        cells: whether every value of the row is text (csv), so that lists and numbers are written out.
    """

    source: str
    label: str
    number: int
    unit: str = "row"
    cells: bool = False

    def __str__(self) -> str:
        return f"{self.label}:{self.number}"

    def where(self, column: str | None = None) -> str:
        """The place in words, for errors."""
        place = f"{self.source}, {self.unit} {self.number}"
        return f"{place}, column {column!r}" if column else place


class Row(Mapping[str, Any]):
    """The values of one raw row. Columns that no one reads end up in the record's extras.

    Args:
        values: column to value.
        place: where the row stands.
        account: takes notes on what was done to the row.
        index: 1-based count of rows over the whole source; the default id of the record.
        columns: every column of the file, where this row may lack some.
        format: name of the format that reads the row, and the columns it needs, for errors.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        place: Place,
        account: Account,
        *,
        index: int = 1,
        columns: Iterable[str] = (),
        format: str = "",
    ) -> None:
        self.raw, self.place, self.account, self.index = values, place, account, index
        self.columns = set(columns) | set(values)
        self.format = format
        self._used: set[str] = set()
        self._made = 0

    def __getitem__(self, column: str) -> Any:
        self._used.add(column)
        if column in self.raw:
            return self.raw[column]
        if column in self.columns:
            raise Unusable(f"no {column!r} in the row", f"a value for {column!r}, as in other rows")
        close = nearest(column, self.columns)
        self._fail(
            f"column {column!r} is missing",
            found=f"columns {sorted(self.columns)}",
            expected=f"column {column!r}" + (f" for the format {self.format!r}" if self.format else ""),
            remedy=f"rename column {close!r} to {column!r}" if close else "add it, or pass another format=",
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __contains__(self, column: object) -> bool:
        return column in self.raw

    def has(self, column: str) -> bool:
        """Whether the row has a value there: neither absent, null, nor an empty cell."""
        value = self.raw.get(column)  # type: ignore[arg-type]
        return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))

    def note(self, text: str) -> None:
        """Count something that was done to this row."""
        self.account.notes[text] += 1

    def wrong(self, column: str, found: Any, expected: str, remedy: str | None = None) -> NoReturn:
        """Refuse the value of a column.

        Raises:
            DataError: always.
        """
        self._fail(
            f"column {column!r} has a value that can't be read",
            column=column,
            found=f"{type(found).__name__}: {found!r}",
            expected=expected,
            remedy=remedy or f"mend the value, pass another format=, or {SKIP}",
        )

    def _fail(self, problem: str, *, column: str | None = None, **parts: Any) -> NoReturn:
        raise DataError(problem, where=self.place.where(column), **parts)

    # Typed access

    def text(self, column: str, *, empty: bool = False) -> str:
        """A string. A null, or (unless `empty`) a blank one, makes the row unusable."""
        value = self[column]
        if value is None:
            raise Unusable(f"null {column!r}", "a string")
        if not isinstance(value, str):
            self.wrong(column, value, "a string")
        if not empty and not value.strip():
            raise Unusable(f"empty {column!r}", "text that is more than blanks")
        return self.clean(value)

    def optional(self, column: str) -> str | None:
        """A value as a string (numbers are written out), or None where there is none."""
        self._used.add(column)
        return self.clean(str(self.raw[column])) if self.has(column) else None

    def number(self, column: str) -> float:
        """A finite number; csv cells are parsed. A null makes the row unusable."""
        value = self[column]
        if value is None or value == "":
            raise Unusable(f"null {column!r}", "a number")
        return self.as_number(value, column)

    def as_number(self, value: Any, column: str) -> float:
        """A finite number out of a value found in `column`."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            self.wrong(column, value, "a number")
        if not math.isfinite(number):
            self.wrong(column, value, "a finite number")
        return number

    def flag(self, column: str) -> bool:
        """True or false; 1 and 0 and their names count too. A null makes the row unusable."""
        value = self[column]
        if value is None or value == "":
            raise Unusable(f"null {column!r}", "true or false")
        return self.as_flag(value, column)

    def as_flag(self, value: Any, column: str) -> bool:
        """True or false out of a value found in `column`."""
        name = (
            str(int(value) if isinstance(value, (bool, float)) and value in (0, 1) else value).strip().lower()
        )
        if name not in _TRUE | _FALSE:
            self.wrong(column, value, "true or false")
        return name in _TRUE

    def listed(self, column: str) -> list[Any]:
        """The list in a column; a csv cell is parsed as JSON."""
        value = self[column]
        if value is None:
            raise Unusable(f"null {column!r}", "a list")
        if isinstance(value, str) and self.place.cells:
            value = parsed(value)
        if isinstance(value, str) or not isinstance(value, Sequence):
            self.wrong(column, value, "a list")
        return list(value)

    def clean(self, text: str) -> str:
        """Text without lone surrogates, which no file can hold; replacing one is noted."""
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            self.note("half of a surrogate pair replaced by U+FFFD")
            # A pair written as two escapes is one character; what remains alone is not.
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    # What it becomes

    def record(
        self,
        prompt: Sequence[Message],
        responses: Sequence[Response] = (),
        judgments: Sequence[Judgment] = (),
        *,
        id: str | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> Record:
        """A record of this row: its origin, an id, and the columns nobody read as extras."""
        self._made += 1
        name = id or (str(self.index) if self._made == 1 else f"{self.index}-{self._made}")
        record = Record(tuple(prompt), tuple(responses), tuple(judgments), name, str(self.place))
        return replace(record, extras=plain({**self.rest(), **(extras or {})}))

    def read_all(self) -> None:
        """Count every column as read: nothing of the row goes into extras."""
        self._used |= set(self.raw)

    def rest(self) -> dict[str, Any]:
        """The columns that were not read and hold something."""
        return {c: v for c, v in self.raw.items() if c and c not in self._used and self.has(c)}


def parsed(cell: str) -> Any:
    """A csv cell that holds a JSON list or object; any other text as it is."""
    if cell[:1] in "[{" and cell.strip()[-1:] in "]}":
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dates as ISO text, bytes and pictures as data URIs, arrays as lists."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        if set(value) == {"bytes", "path"}:
            return plain(value["bytes"]) if value["bytes"] is not None else value["path"]
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray)):
        return "data:application/octet-stream;base64," + base64.b64encode(value).decode()
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if hasattr(value, "save") and hasattr(value, "mode"):  # a PIL image, without importing PIL
        held = BytesIO()
        value.save(held, format="PNG")
        return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)
