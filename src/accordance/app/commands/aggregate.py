"""`accord aggregate`: many judgments into one order of models, and how far each annotator can be trusted."""

from __future__ import annotations

from typing import Annotated

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def aggregate(
    terminal: Terminal,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Comparisons: a file, a folder, or a hub name.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="bradley_terry (the default), elo, rank_centrality, ranked_pairs, pagerank, win_share, or all; "
            "again for more.",
        ),
    ] = None,
    attribute: Annotated[
        str | None, typer.Option("--attribute", help="Judgments of this attribute, where there are several.")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="Resamples of people; 0: no intervals.")
    ] = 200,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output-dir", "--output_dir", help="Also write aggregate.json and aggregate.html there."
        ),
    ] = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Rank models by people's comparisons, with intervals over people; rate the annotators by each other.

    Examples: `accord aggregate arena.jsonl --method bradley_terry --method elo --output-dir runs/aggregate`;
    `accord aggregate votes.jsonl --method all --json`
    """
    from accordance.analysis import aggregation_report
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.sources import read_records
    from accordance.core.aggregate import METHODS

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)
    found = read_records(data, format=format, split=split, limit=limit, on_error=on_error).materialise()
    methods = method or ["bradley_terry"]
    methods = [*METHODS, "elo"] if "all" in methods else list(dict.fromkeys(methods))
    report = aggregation_report(found, methods, attribute=attribute, samples=samples, seed=seed)
    report.data("records", found.account.to_dict())
    tell_set_aside(terminal, report, found, output_dir)
    if output_dir is not None:
        _, page = report.save(output_dir, "aggregate")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)
