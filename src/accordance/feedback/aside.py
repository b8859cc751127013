"""Rows that could not be used, as they were read, in a file: where each stood, what was wrong, what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accordance.core.errors import DataError
from accordance.core.record import Account
from accordance.core.report import write_whole
from accordance.feedback.convert import convert
from accordance.feedback.loading import raw_rows
from accordance.feedback.row import Place, Unusable, plain

#: The file's name in an output folder.
SET_ASIDE = "set_aside.jsonl"


def set_aside(account: Account) -> list[dict[str, Any]]:
    """The rows that were dropped when records were read, as they stand in their source.

    The source is read again, and of it only the dropped rows are looked at. What can't be read again (objects of a
    program, a stream) is told by its place and the reason alone.

    Args:
        account: of the records.

    Returns:
        For each dropped row its ``origin``, ``file``, ``line`` (jsonl) or ``row`` (other kinds of file), ``raw``
        (values by column, or the text or cells where they could not be parsed), ``problem``, and where they are
        known ``found`` and ``expected``; in the order of the source.
    """
    reasons = {origin: reason for reason, rows in account.rows.items() for origin in rows}
    told = {row["origin"]: row for row in _again(account.reading, reasons)} if reasons else {}
    for origin, reason in reasons.items():
        told.setdefault(origin, {"origin": origin, "raw": None, "problem": reason})
    return list(told.values())


def save_set_aside(account: Account, folder: str | Path) -> Path | None:
    """Write the dropped rows into a folder, a line of JSON each; an older such file goes if there are none.

    Args:
        account: of the records.
        folder: made where it is not there.

    Returns:
        The file, or None where no row was dropped.
    """
    path = Path(folder) / SET_ASIDE
    rows = set_aside(account)
    if not rows:
        path.unlink(missing_ok=True)
        return None
    write_whole({path: "".join(map(_line, rows))})
    return path


def _line(row: Mapping[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False)
    if any(
        "\ud800" <= letter <= "\udfff" for letter in line
    ):  # half of a pair, which no file holds but as an escape
        line = json.dumps(row)
    return line + "\n"


def _again(reading: Mapping[str, str], reasons: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if "source" not in reading:
        return
    found: list[dict[str, Any]] = []

    def keep(place: Place, raw: Any, why: DataError | Unusable) -> None:
        found.append(_told(place, raw, why))

    rows = raw_rows(reading["source"], reading.get("split"))
    made = convert(
        rows, Account(), format=reading.get("format"), on_error="skip", only=reasons.keys(), aside=keep
    )
    for _ in made:
        pass
    yield from found


def _told(place: Place, raw: Any, why: DataError | Unusable) -> dict[str, Any]:
    row: dict[str, Any] = {"origin": str(place), "file": place.source, place.unit: place.number}
    row["raw"] = plain(raw)
    if isinstance(why, Unusable):
        return row | {"problem": why.reason, "expected": why.expected}
    parts = why.to_dict()
    return row | {key: parts[key] for key in ("problem", "found", "expected") if key in parts}
