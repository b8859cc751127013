"""How a Report looks: one HTML page that needs nothing else, and a terminal view.

Texts come from models and data files, so nothing in them may act: HTML escapes everything, the page forbids
scripts and requests, and characters that steer a terminal or the reading direction are shown, not obeyed.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from accordance.core import svg

if TYPE_CHECKING:
    from accordance.core.report import Report

#: C0 and C1 controls but tab and newline, line and paragraph separators, and what overrides reading direction.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """`text` with characters that steer a terminal or the reading direction shown as marks of their own."""

    return _STEERING.sub(lambda match: f"‹U+{ord(match.group()):04X}›", text.replace("\r\n", "\n"))


def number(value: Any, unit: str = "") -> str:
    """A number for people: enough digits to compare, none to distract. ``unit="share"`` gives percent; ``"p"`` is of
    p-values, which have no exponents."""
    if value is None:
        return "n/a"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if unit == "share":
        return f"{100 * value:.1f}%"
    if unit == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        shown = f"{value:,.0f}"
    elif size >= 100:
        shown = f"{value:.1f}"
    elif size >= 1:
        shown = f"{value:.2f}"
    elif size >= 0.001 or size == 0:
        shown = f"{value:.3f}"
    else:
        shown = f"{value:.1e}"
    shown = shown.replace("-", "−", 1) if value < 0 else shown
    return f"{shown} {unit}" if unit else shown


def bounds(ci: list[float | None] | None, unit: str = "") -> str:
    """An interval for people, empty where there is none."""
    if not ci or None in ci:
        return ""
    share = unit if unit == "share" else ""  # other units stand beside the estimate already
    return f"{number(ci[0], share)} to {number(ci[1], share)}"


def cell(value: Any) -> str:
    """A table cell: number, text, or an estimate with its interval, and with a `unit` where it has one."""
    if isinstance(value, dict) and "estimate" in value:
        unit = value.get("unit", "")
        around = bounds([value.get("low"), value.get("high")], unit)
        return number(value["estimate"], unit) + (f"  [{around}]" if around else "")
    if value is None:
        return "–"
    return number(value)


def numeric(column: list[Any]) -> bool:
    """Whether a column of cells holds numbers (it is set flush right then)."""
    given = [c for c in column if c is not None]
    return bool(given) and all(isinstance(c, (int, float, dict)) and not isinstance(c, bool) for c in given)


def sample_parts(row: dict[str, Any]) -> dict[str, Any]:
    """A row of samples: the prompt, the texts side by side, and the facts (numbers, None) beside the prompt."""
    rest = {k: v for k, v in row.items() if k not in ("prompt", "highlights")}
    texts = {k: v for k, v in rest.items() if isinstance(v, str)}
    marks = row.get("highlights") or []
    return {
        "prompt": row.get("prompt"),
        "texts": [
            (k, v, [str(m) for m in (marks.get(k, []) if isinstance(marks, dict) else marks)])
            for k, v in texts.items()
        ],
        "facts": [(k, cell(v)) for k, v in rest.items() if k not in texts],
    }


def marked(text: str, marks: list[str]) -> Markup:
    """Escaped text with every occurrence of `marks` highlighted."""
    wanted = sorted({m for m in marks if m}, key=len, reverse=True)
    if not wanted:
        return escape(visible(text))
    parts = re.split("(" + "|".join(re.escape(m) for m in wanted) + ")", text)
    return Markup("").join(
        Markup("<mark>{}</mark>").format(visible(part)) if i % 2 else visible(part)
        for i, part in enumerate(parts)
    )


def to_html(report: Report) -> str:
    """The page. Numbers marked as headlines are cards at the top; the rest follows in order."""
    drawings = iter(range(10**6))
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            headlines=[b for b in report.blocks if b["kind"] == "number" and b["headline"]],
            chapters=_chapters(report.blocks),
            draw=lambda drawing: Markup(svg.inline(visible(drawing), prefix=f"f{next(drawings)}-")),
        )
    )


def to_terminal(report: Report, console: Console | None = None) -> None:
    """Print the report; figures by name only."""
    console = console or Console()
    head = Text(visible(report.title), style="bold")
    console.print(Panel(Group(head, Text(visible(report.summary))) if report.summary else head, expand=False))
    for warning in report.warnings:
        console.print(Text("! " + visible(warning), style="yellow"))
    for chapter in _chapters(report.blocks):
        if chapter["title"]:
            console.print(Text("\n" + visible(chapter["title"]), style="bold underline"))
        if chapter["intro"]:
            console.print(Text(visible(chapter["intro"]), style="dim"))
        for kind, blocks in chapter["runs"]:
            if kind == "number":
                console.print(_number_table(blocks))
            for block in blocks if kind != "number" else ():
                _print_block(console, kind, block)


def _chapters(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sections, each with its runs of blocks of one kind, so that figures and numbers stand together."""
    chapters: list[dict[str, Any]] = [{"title": "", "intro": "", "level": 1, "runs": []}]
    for block in blocks:
        if block["kind"] == "section":
            chapters.append({**block, "runs": []})
        elif chapters[-1]["runs"] and chapters[-1]["runs"][-1][0] == block["kind"]:
            chapters[-1]["runs"][-1][1].append(block)
        else:
            chapters[-1]["runs"].append((block["kind"], [block]))
    return [chapter for chapter in chapters if chapter["title"] or chapter["runs"]]


def _number_table(blocks: list[dict[str, Any]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for block in blocks:
        ci = bounds(block["ci"], block["unit"])
        table.add_row(
            Text(visible(block["label"])),
            Text(visible(number(block["value"], block["unit"])), style="bold" if block["headline"] else ""),
            Text(f"[{ci}]" if ci else "", style="dim"),
            Text(visible(block["note"]), style="dim"),
        )
    return table


def _print_block(console: Console, kind: str, block: dict[str, Any]) -> None:
    title = Text(visible(block["title"]), style="bold")
    if kind == "table":
        table = Table(title=title, title_justify="left", caption=Text(visible(block["note"])) or None)
        for i, column in enumerate(block["columns"]):
            right = numeric([row[i] for row in block["rows"]])
            table.add_column(Text(visible(column)), justify="right" if right else "left")
        for row in block["rows"]:
            table.add_row(*(Text(visible(cell(value))) for value in row))
        console.print(table)
    elif kind == "samples":
        console.print(title)
        for row in map(sample_parts, block["rows"]):
            lines = [("prompt", row["prompt"] or ""), *((name, text) for name, text, _ in row["texts"])]
            body = Text("\n").join(
                Text(f"{name}: ", style="bold") + Text(visible(text)) for name, text in lines
            )
            facts = ", ".join(f"{name} {value}" for name, value in row["facts"])
            console.print(Panel(body, subtitle=Text(visible(facts)) if facts else None))
    elif kind == "figure":
        console.print(Text(f"(figure in the HTML page: {visible(block['title'])})", style="dim"))
    else:
        console.print(title, Text(visible(block["body"])), sep="\n")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("accordance.core"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters.update(number=number, bounds=bounds, cell=cell, marked=marked, parts=sample_parts)
    environment.globals.update(numeric=numeric)
    return environment
