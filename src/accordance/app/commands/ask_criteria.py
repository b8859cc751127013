"""`accord ask criteria` and `agree`: what can't be compared, and which norms groups can agree on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.commands.asking import OutputDir
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def criteria(
    terminal: Terminal,
    records: o.RecordsSource,
    format: o.Format = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    least: Annotated[int, typer.Option("--least", min=1, help="Comparisons that a group needs.")] = 20,
    output_dir: OutputDir = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Fit a partial order to judgments by criterion: what each group weighs, and what can't be compared.

    The records hold overall comparisons and comparisons by attribute of the same pairs, as
    `accord ask --criteria clear,kind` writes them.

    Example: `accord ask criteria --records said.jsonl --output-dir runs/criteria`
    """
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.sources import read_records
    from accordance.feedback.criteria_report import criteria_report

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)
    found = read_records(records, format=format, limit=limit, on_error=on_error).materialise()
    report = criteria_report(found, least=least)
    tell_set_aside(terminal, report, found, output_dir)
    if output_dir is not None:
        _, page = report.save(output_dir, "criteria")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)


@command
def agree(
    terminal: Terminal,
    scores: Annotated[
        str,
        typer.Argument(
            metavar="SCORES",
            help="A json file: `acceptance` {set: {group: number}}, `disagreement` {group: number}, perhaps `sizes`.",
        ),
    ],
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Find the set of norms that groups can agree on (Nash product, each with a veto), beside mean and worst-off.

    Example: `accord ask agree norms.json`
    """
    import json
    from pathlib import Path

    from accordance.core.errors import DataError
    from accordance.feedback.norms import agree as work

    text = Path(scores).expanduser().read_text(encoding="utf-8")
    try:
        held: Any = json.loads(text)
    except ValueError as error:
        raise DataError("this is no JSON", where=scores, found=str(error)) from error
    keys = {"acceptance", "disagreement", "sizes"}
    if not isinstance(held, dict) or not {"acceptance", "disagreement"} <= set(held) <= keys:
        raise DataError(
            "norm sets and their acceptance are missing",
            where=scores,
            found=sorted(held) if isinstance(held, dict) else type(held).__name__,
            expected="acceptance and disagreement, perhaps sizes, and nothing else",
            remedy="ask the groups what they would have without agreement; it can't be assumed",
        )
    found = work(held["acceptance"], held["disagreement"], held.get("sizes"))
    rows = [
        [
            name,
            *[given[group] for group in held["disagreement"]],
            found.product.get(name),
            "refused by " + ", ".join(found.vetoed[name]) if name in found.vetoed else "",
            ", ".join(
                why
                for why, best in (
                    ("agreed", found.chosen),
                    ("mean", found.by_mean),
                    ("worst-off", found.by_worst),
                )
                if best == name
            ),
        ]
        for name, given in held["acceptance"].items()
    ]

    def show(console: Any) -> None:
        console.print(f"Agreed: {found.chosen}", style="bold", markup=False)
        columns = ["set", *held["disagreement"], "product of gains", "veto", "best by"]
        console.print(terminal.table("Sets of norms", columns, rows))

    outcome = {"chosen": found.chosen, "by_mean": found.by_mean, "by_worst": found.by_worst,
               "vetoed": found.vetoed, "product": found.product}  # fmt: skip
    terminal.result(outcome, show)
