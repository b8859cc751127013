"""`accord explain`: what the preferences in some feedback encode, how surely, and who disagrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

if TYPE_CHECKING:
    from accordance.analysis import FeatureMaker
    from accordance.core.policy_judge import PolicyJudge


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
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            help="`text` (rules and statistics, the default), `model` (states and log-probabilities of the packaged "
            "model), a checkpoint for the same of another, or `sparse` (found by an autoencoder); again for more.",
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            "--quality", help="The factor (a --scorer) that says how good responses are: what rides on it?"
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge", help="Find principles with this judge: `lab`, `api:provider/model`, a checkpoint."
        ),
    ] = None,
    principles: Annotated[int, typer.Option("--principles", min=1, help="How many principles.")] = 5,
    judged: Annotated[
        int, typer.Option("--judged", min=10, help="Comparisons that the judge sees at most.")
    ] = 300,
    budget: Annotated[
        int | None, typer.Option("--budget", min=0, help="At most so many calls of the judge.")
    ] = None,
    cache: Annotated[str | None, typer.Option("--cache", help="A file that keeps the judge's answers.")] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
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

    Examples: `accord explain feedback.jsonl --output-dir runs/explain`; `accord explain lab:demo`;
    `accord explain feedback.jsonl --features text --features model --judge api:openai/gpt-4o --budget 2000`
    """
    from accordance.analysis import LENGTH, JudgeRatings
    from accordance.analysis import explain as work
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.scorers import resolve_scorer
    from accordance.app.sources import read_records
    from accordance.core.errors import ConfigError

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)
    if judge is None and (budget is not None or cache is not None or principles != 5 or judged != 300):
        raise ConfigError(
            "--principles, --judged, --budget and --cache are of a judge", remedy="name one: --judge lab"
        )
    makers = _makers(features or ["text"])
    for name in scorer or ():
        rater, _ = resolve_scorer(name)
        if not hasattr(rater, "score"):
            raise ConfigError("this scorer compares pairs; it gives single responses no score", found=name)
        makers.append(JudgeRatings({name: rater}))  # type: ignore[dict-item]
    found = read_records(data, format=format, split=split, limit=limit, on_error=on_error).materialise()
    report = work(
        found,
        features=makers,
        controls=control or [LENGTH],
        attribute=attribute,
        samples=samples,
        level=level,
        shuffle_labels=shuffle_labels,
        quality=quality,
        judge=None if judge is None else asked_judge(judge, budget, cache),
        principles=principles,
        judged=judged,
        seed=seed,
    )
    report.data("records", found.account.to_dict())
    tell_set_aside(terminal, report, found, output_dir)
    if output_dir is not None:
        _, page = report.save(output_dir, "explain")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)


def _makers(names: list[str]) -> list[FeatureMaker]:
    """Makers of features by name; length always is one of them."""
    from accordance.analysis import TextFeatures

    text = "text" in names
    makers: list[FeatureMaker] = [TextFeatures(rules=text, statistics=text)]
    if "sparse" in names:
        from accordance.analysis import SparseFeatures

        makers.append(SparseFeatures(batch_size=64, learning_rate=5e-3))
    given = [name for name in dict.fromkeys(names) if name not in ("text", "sparse")]
    models = ["lab:base" if name == "model" else name for name in given]
    if len(models) > 1:
        from accordance.core.errors import ConfigError

        raise ConfigError(
            "one model at a time: their features have the same names", where="--features", found=models
        )
    for name in models:
        from accordance.analysis.hidden import ModelFeatures
        from accordance.app.sources import model_source
        from accordance.models import load_policy

        makers.append(ModelFeatures(load_policy(model_source(name))))
    return makers


def asked_judge(name: str, budget: int | None, cache: str | None) -> PolicyJudge:
    """A judge by name, whose answers are kept and counted."""
    from accordance.app.assistants import assistants
    from accordance.core.asking import Asked
    from accordance.core.policy_judge import PolicyJudge

    return PolicyJudge(Asked(assistants([name], "judge")[0], cache=cache, budget=budget))
