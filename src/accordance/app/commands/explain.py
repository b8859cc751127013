"""`accord explain`: what the preferences in some feedback encode, how surely, and who disagrees."""

from __future__ import annotations

from typing import Annotated

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def explain(
    terminal: Terminal,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Feedback: a file, a folder, a hub name, or `lab:demo`.")
    ],
    attribute: Annotated[
        str | None, typer.Option("--attribute", help="Judgments of this attribute, where there are several.")
    ] = None,
    control: Annotated[
        list[str] | None, typer.Option("--control", help="A factor held fixed; again for more. Else length.")
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option("--scorer", help="One more factor: scores by `module:function` or `file.py:function`."),
    ] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: Annotated[
        str, typer.Option("--on-error", "--on_error", help="`raise`, or `skip` malformed rows.")
    ] = "raise",
    samples: Annotated[int, typer.Option("--samples", min=100, help="Bootstrap resamples.")] = 1000,
    level: Annotated[
        float, typer.Option("--level", min=0.0001, max=0.5, help="False discovery rate that is allowed.")
    ] = 0.05,
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help="Explain shuffled labels: nothing should be found.")
    ] = False,
    seed: o.Seed = 0,
    output_dir: Annotated[
        str | None,
        typer.Option("--output-dir", "--output_dir", help="Also write explain.json and explain.html there."),
    ] = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Say what preferences encode: which differences make a response preferred, for whom, with intervals.

    Examples: `accord explain feedback.jsonl --output-dir runs/explain`; `accord explain lab:demo`
    """
    from accordance.analysis import LENGTH, FeatureMaker, JudgeRatings, TextFeatures
    from accordance.analysis import explain as work
    from accordance.app.folder import check_writable
    from accordance.app.scorers import resolve_scorer
    from accordance.app.sources import is_lab, lab_records
    from accordance.core.errors import ConfigError
    from accordance.feedback import load_records

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)
    features: list[FeatureMaker] = [TextFeatures()]
    for name in scorer or ():
        judge, _ = resolve_scorer(name)
        if not hasattr(judge, "score"):
            raise ConfigError("this scorer compares pairs; it gives single responses no score", found=name)
        features.append(JudgeRatings({name: judge}))  # type: ignore[dict-item]
    if is_lab(data):
        found = lab_records(data)
        found = found if limit is None else found.select(range(min(limit, len(found))))
    else:
        found = load_records(data, format=format, split=split, limit=limit, on_error=on_error).materialise()  # type: ignore[arg-type]
    report = work(
        found,
        features=features,
        controls=control or [LENGTH],
        attribute=attribute,
        samples=samples,
        level=level,
        shuffle_labels=shuffle_labels,
        seed=seed,
    )
    report.data("records", found.account.to_dict())
    if found.account.dropped:
        report.warn(f"{sum(found.account.dropped.values())} of {found.account.read} rows were not used")
    if output_dir is not None:
        _, page = report.save(output_dir, "explain")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)
