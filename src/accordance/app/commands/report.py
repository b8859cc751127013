"""`accord report`: show a saved report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command


@command
def report(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(help="A run's folder, or a report's JSON file.")],
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page there (the folder has report.html already).")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Print a report, or make its HTML page from the JSON.

    Examples: `accord report runs/demo`; `accord report runs/demo --html page.html --open`
    """
    from accordance.core.report import Report, write_whole

    found = Report.load(path)
    page = html
    if page is not None:
        write_whole({page: found.to_html()})
    elif open_page:
        source = path / "report.json" if path.is_dir() else path
        page = source.with_suffix(".html")
        if not page.exists():
            write_whole({page: found.to_html()})
    if open_page and page is not None:
        typer.launch(str(page.resolve()))

    def show(console: Any) -> None:
        found.print(console)
        if page is not None:
            console.print(f"\nPage: {page}", markup=False)

    terminal.result(found.to_dict() | ({"html": str(page)} if page else {}), show)
