"""Rows that could not be used: set aside in the command's folder, named in its report, its JSON and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accordance.core.errors import DataError
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.feedback.aside import SET_ASIDE, save_set_aside

if TYPE_CHECKING:
    from accordance.app.terminal import Terminal

#: How many rows a message names for each reason.
_NAMED = 3


def keep_set_aside(records: Records, folder: str | Path | None) -> dict[str, Any]:
    """Write the rows that could not be used into a folder; what `--json` says of them.

    Args:
        records: as they were read.
        folder: of the command's output; None keeps no file.

    Returns:
        ``rows`` (how many), ``file`` (None where there is none), and by ``reasons`` the first few origins.
    """
    account = records.account
    file = None if folder is None else save_set_aside(account, folder)
    reasons = {
        why: {"rows": count, "first": account.rows[why][:_NAMED]}
        for why, count in account.dropped.most_common()
    }
    return {"rows": sum(account.dropped.values()), "file": file and str(file), "reasons": reasons}


def tell_set_aside(
    terminal: Terminal | None,
    report: Report | None,
    records: Records,
    folder: str | Path | None,
    *,
    listed: bool = True,
) -> dict[str, Any]:
    """Set the rows that could not be used aside, and say so everywhere; see `keep_set_aside`.

    Args:
        terminal: where a line is said; None says nothing there.
        report: gets a warning, ``set_aside`` and a table.
        records: as they were read.
        folder: of the command's output; None keeps no file, and the message says how to.
        listed: whether the report gets the table; those that list what was read have one.
    """
    found = keep_set_aside(records, folder)
    if report is not None:
        report.data("set_aside", found)
    if not found["rows"]:
        return found
    said = records.account.unused()
    if report is not None:
        beside = f"they stand in {SET_ASIDE}, beside this report" if found["file"] else how_to_keep(records)
        if said in report.warnings:  # the preflight said so, too
            report.warnings.remove(said)
        report.warn(f"{said}; {beside}")
        if listed:
            rows = [[why, told["rows"], ", ".join(told["first"])] for why, told in found["reasons"].items()]
            report.section("Rows set aside", "What was read and could not be used.")
            report.table("Why", ["why", "rows", "for instance"], rows)
    if terminal is not None and (report is None or found["file"]):
        kept = f"they are in {found['file']}" if found["file"] else how_to_keep(records)
        terminal.say(f"{said}; {kept}", "yellow")
    return found


def how_to_keep(records: Records) -> str:
    """How rows that were set aside get into a file."""
    source = records.account.reading.get("source", records.source)
    return f"accord data --records {source} --output-dir FOLDER writes them to FOLDER/{SET_ASIDE}"


def refuse_empty(records: Records) -> None:
    """Refuse records of which no row could be used.

    Raises:
        DataError: that is so; names the reasons and rows.
    """
    account = records.account
    if not records.streaming and not len(records) and account.dropped:
        raise DataError(
            "no row can be used",
            where=records.source,
            found=account.unused(),
            expected="one or more rows of feedback",
            remedy=f"mend them, or pass another format; {how_to_keep(records)}",
        )
