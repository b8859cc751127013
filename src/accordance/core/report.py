"""Report: findings with numbers, tables and figures. What every measurement of the house returns.

A report is filled in order, then printed to a terminal, saved as JSON for programs (`report.json`: each number
at the top level under its key) and rendered as one HTML page for people (`report.html`, no script or requests).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from accordance.core import svg
from accordance.core.errors import ConfigError, DataError, TrainingError
from accordance.core.jsonable import plain
from accordance.core.stats import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

RESERVED = frozenset({"title", "summary", "warnings", "meta", "sections"})


class Report:
    """Findings, in the order in which they were added.

    Args:
        title: what was measured.
        summary: the finding in a sentence or two.
        meta: what it was measured on and with (versions, seeds, fingerprints, paths).

    Attributes:
        values: every number by its key, plain data; what `report.json` has at its top level.
        warnings: what a reader must know before believing the numbers.
        blocks: numbers, tables, texts, samples and figures as plain data, in order.
    """

    def __init__(self, title: str, summary: str = "", *, meta: Mapping[str, Any] | None = None) -> None:
        self.warnings: list[str] = []
        self.values: dict[str, Any] = {}
        self.blocks: list[dict[str, Any]] = []
        self.title = self._plain(title, "title")
        self.summary = self._plain(summary, "summary")
        self.meta: dict[str, Any] = self._plain(dict(meta or {}), "meta")

    def add(
        self,
        key: str,
        value: float | str | Interval | None,
        *,
        ci: tuple[float, float] | Interval | None = None,
        label: str | None = None,
        note: str | None = None,
        unit: str | None = None,
        good: Literal["high", "low"] | None = None,
        headline: bool = False,
    ) -> Report:
        """Add one number: `values[key]`, and `values[key + "_ci95"]` = [low, high] where it has an interval.

        Args:
            key: its name in `report.json`.
            value: the number, an `Interval` (estimate and bounds), or None where it could not be measured.
            ci: its 95% interval.
            label: its name for people; made from the key by default.
            note: what it means, or why it is missing.
            unit: shown after it; ``"share"`` shows a number in [0, 1] as a percentage.
            good: which direction is good.
            headline: whether it is shown as a card at the top.

        Raises:
            ConfigError: the key is taken or reserved.
        """
        if isinstance(value, Interval):
            ci, value = ci or value, value.estimate
        bounds = list(ci.bounds) if isinstance(ci, Interval) else None if ci is None else list(ci)
        self._set(key, value)
        if bounds is not None:
            if len(bounds) != 2:
                raise ConfigError("an interval has two bounds", where=key, found=bounds)
            self._set(f"{key}_ci95", bounds)
        self._block(
            "number",
            key=key,
            label=label or key.replace("_", " ").capitalize(),
            value=self.values[key],
            ci=self.values.get(f"{key}_ci95"),
            note=note or "",
            unit=unit or "",
            good=good,
            headline=headline,
        )
        return self

    def data(self, key: str, obj: Any) -> Report:
        """Put plain data into `report.json` under `key`, without showing it."""
        self._set(key, obj)
        return self

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any] | Mapping[str, Any]],
        note: str = "",
    ) -> Report:
        """Add a table. Cells are numbers, text, None or `Interval`; rows are sequences or mappings by column.

        Raises:
            ConfigError: a row of another length than the columns.
        """
        lines = [[row.get(c) for c in columns] if isinstance(row, Mapping) else list(row) for row in rows]
        for number, line in enumerate(lines):
            if len(line) != len(columns):
                raise ConfigError(
                    "a table row has one cell per column",
                    where=f"table {title!r}, row {number}",
                    found=f"{len(line)} cells",
                    expected=f"{len(columns)}: {', '.join(columns)}",
                )
        self._block("table", title=title, columns=list(columns), rows=lines, note=note)
        return self

    def text(self, title: str, body: str) -> Report:
        """Add prose; empty lines part paragraphs."""
        self._block("text", title=title, body=body)
        return self

    def code(self, title: str, body: str) -> Report:
        """Add preformatted text, such as a rendered prompt or a recipe."""
        self._block("code", title=title, body=body)
        return self

    def samples(self, title: str, rows: Iterable[Mapping[str, Any]], note: str = "") -> Report:
        """Add texts side by side.

        Args:
            title: what they are.
            rows: each with ``prompt`` and further columns: text is set side by side (``before``, ``after``),
                numbers stand beside the prompt; ``highlights`` (a list of strings, or such a list by column)
                is marked in the texts.
            note: what to look for.
        """
        self._block("samples", title=title, rows=[dict(row) for row in rows], note=note)
        return self

    def figure(self, title: str, fig: Figure | str, note: str = "") -> Report:
        """Add a matplotlib `Figure`, or a drawing that is SVG already. It is kept as SVG.

        Raises:
            ConfigError: the SVG is malformed or holds more than a drawing.
        """
        if not isinstance(fig, str):
            from accordance.core.figures import to_svg

            fig = to_svg(fig)
        self._block("figure", title=title, svg=svg.inline(fig), note=note)
        return self

    def warn(self, message: str) -> Report:
        """Add a warning; it stands at the top. The same warning twice counts once."""
        message = self._plain(message, "warning")
        if message not in self.warnings:
            self.warnings.append(message)
        return self

    def section(self, title: str, intro: str = "") -> Report:
        """Start a section: what is added from here on stands under this heading."""
        self._block("section", title=title, intro=intro, level=1)
        return self

    def include(self, report: Report, *, prefix: str = "") -> Report:
        """Add all of another report as a section, its numbers among this report's, its warnings at the top.

        Args:
            report: the other one; it is not changed.
            prefix: put before the other's keys.

        Raises:
            ConfigError: a key is taken; a prefix helps.
        """
        for key, value in report.values.items():
            self._set(prefix + key, value)
        self._block("section", title=report.title, intro=report.summary, level=1)
        for block in report.blocks:
            copy = self._plain(block, "block")
            if copy["kind"] == "section":
                copy["level"] += 1
            elif copy["kind"] == "number":
                copy["key"] = prefix + copy["key"]
            self.blocks.append(copy)
        if report.meta:
            self.meta[prefix + report.title] = self._plain(report.meta, "meta")
        for warning in report.warnings:
            self.warn(warning)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data: title, summary, every value under its key, warnings, meta, sections."""
        head = {"title": self.title, "summary": self.summary}
        return {**head, **self.values, "warnings": self.warnings, "meta": self.meta, "sections": self.blocks}

    def to_html(self) -> str:
        """One self-contained HTML page."""
        from accordance.core.render import to_html

        return to_html(self)

    def print(self, console: Console | None = None) -> None:
        """Show the report in a terminal (figures only by name)."""
        from accordance.core.render import to_terminal

        to_terminal(self, console)

    def save(self, folder: str | os.PathLike[str], stem: str = "report") -> tuple[Path, Path]:
        """Write `<stem>.json` and `<stem>.html`; each is there whole or not at all.

        Returns:
            The paths of the JSON and the HTML file.

        Raises:
            TrainingError: the folder can't be written to, or the disk is full.
        """
        folder = Path(folder)
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)
        paths = (folder / f"{stem}.json", folder / f"{stem}.html")
        write_whole(dict(zip(paths, (text + "\n", self.to_html()))))
        return paths

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """A report from its JSON file, or from the folder that holds `report.json`.

        Raises:
            DataError: there is no such file, or it is not a report.
        """
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError("can't read the report", where=str(path), found=str(error)) from error
        if not isinstance(saved, dict) or not isinstance(saved.get("sections"), list) or "title" not in saved:
            raise DataError(
                "this JSON is not a report",
                where=str(path),
                found=f"keys {sorted(saved)[:8]}" if isinstance(saved, dict) else type(saved).__name__,
                expected="title, warnings, meta, sections, and numbers by key",
            )
        report = cls(saved["title"], saved.get("summary", ""), meta=saved.get("meta") or {})
        report.values = {key: value for key, value in saved.items() if key not in RESERVED}
        report.blocks, report.warnings = saved["sections"], list(saved.get("warnings") or [])
        return report

    def __repr__(self) -> str:
        return f"Report({self.title!r}, {len(self.values)} values, {len(self.warnings)} warnings)"

    def _plain(self, value: Any, where: str) -> Any:
        return plain(value, where, self.warnings.append)

    def _set(self, key: str, value: Any) -> None:
        if key in RESERVED or key in self.values:
            raise ConfigError(
                f"the key {key!r} is {'reserved' if key in RESERVED else 'in the report already'}",
                where=f"report {self.title!r}",
                remedy="choose another key, or include(..., prefix=...)",
            )
        self.values[key] = self._plain(value, key)

    def _block(self, kind: str, **content: Any) -> None:
        self.blocks.append({"kind": kind, **self._plain(content, str(content.get("title", kind)))})


def write_whole(files: Mapping[Path, str]) -> None:
    """Write text files so that each is there whole or as it was before; all are written before any is renamed.

    Raises:
        TrainingError: a folder can't be made or written to, or the disk is full.
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(parts[path], "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        raise TrainingError(
            "can't write the report",
            where=str(error.filename or next(iter(files))),
            found=error.strerror or str(error),
            expected="a folder that can be written to, with space left",
            remedy="free some space or choose another output folder",
        ) from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):  # where the folder is out of reach, the error above says so
                part.unlink(missing_ok=True)
