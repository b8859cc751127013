"""`accord compare-objectives`: the same feedback and the same KL budget under several objectives."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

EXAMPLES = """\
**Examples**

`accord compare-objectives --model lab:base --records lab:demo --scorer population --objectives dpo,simpo,ipo`

`accord compare-objectives --model M --records F --scorer judge.py:better --noise 0.1,0.2 --seeds 0,1 --max-kl 6`

A study that was stopped goes on with the same command. Any other `--name value` is an option of training.
"""


@command
def compare_objectives(
    context: typer.Context,
    terminal: Terminal,
    model: o.Model,
    records: o.RecordsSource,
    objectives: Annotated[
        str | None, typer.Option("--objectives", help="Names with commas; by default the pairwise family.")
    ] = None,
    scorer: Annotated[
        str,
        typer.Option("--scorer", help="Who compares answers: `module:function`, or `population` for lab data."),
    ] = "population",
    factors: Annotated[
        str, typer.Option("--factors", help="Strengths to try: each objective's own beta times these.")
    ] = "1,4",
    seeds: Annotated[str, typer.Option("--seeds", help="Of the runs, with commas.")] = "0",
    noise: Annotated[
        str, typer.Option("--noise", help="Shares of labels flipped in further trials, with commas.")
    ] = "0.2",
    max_kl: Annotated[
        float, typer.Option("--max-kl", "--max_kl", min=0.01, help="Budget, nats per answer.")
    ] = 4.0,
    max_steps: Annotated[int, typer.Option("--max-steps", "--max_steps", min=1, help="Of every trial.")] = 120,
    probes: Annotated[int, typer.Option("--probes", min=1, help="How often a trial is looked at.")] = 5,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Prompts answered at each look.")] = 200,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Where answers are cut.")
    ] = 64,
    held_out: Annotated[
        float, typer.Option("--held-out", "--held_out", help="Share of prompts, or number of records.")
    ] = 0.2,
    output_dir: Annotated[
        str, typer.Option("--output-dir", "--output_dir", help="Folder of trials and report.")
    ] = "runs/compare",
    format: o.Format = None,
    on_error: o.OnError = "raise",
    dry_run: Annotated[bool, typer.Option("--dry-run", "--dry_run", help="List the trials; run none.")] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Train one start under several objectives and compare them where they are equally far from it."""
    from accordance.app.aside import tell_set_aside
    from accordance.app.compare import FAMILY, compare_objectives, plan_trials
    from accordance.app.sources import model_source, read_records
    from accordance.models import load_policy

    if not verbose:
        silence_loaded()
    names = [name.strip() for name in objectives.split(",")] if objectives else list(FAMILY)
    how: dict[str, Any] = {
        "objectives": names,
        "factors": _numbers(factors, "factors"),
        "seeds": [int(seed) for seed in _numbers(seeds, "seeds")],
        "noise": _numbers(noise, "noise"),
    }
    trials = plan_trials(**how)
    if dry_run:
        rows = [[t.objective, t.strength, t.seed, f"{t.noise:.0%}"] for t in trials]
        table = terminal.table(f"{len(trials)} trials", ["objective", "beta", "seed", "labels flipped"], rows)
        terminal.result({"trials": [t.name for t in trials]}, lambda console: console.print(table))
        return
    found = read_records(records, format=format, on_error=on_error).materialise()
    rest, out = found.split(held_out, seed=0)
    with terminal.progress() as note:
        report = compare_objectives(
            lambda: load_policy(model_source(model)),
            rest,
            out,
            output_dir=output_dir,
            max_kl=max_kl,
            max_steps=max_steps,
            probes=probes,
            samples=samples,
            max_new_tokens=max_new_tokens,
            scorer=scorer,
            progress=note,
            **how,
            **o.named_options(context.args, ()),
        )
    tell_set_aside(terminal, report, found, output_dir)
    if found.account.dropped:
        report.save(output_dir)

    def show(console: Any) -> None:
        report.print(console)
        console.print(f"\nThe figures are in {output_dir}/report.html", markup=False)

    terminal.result({"output_dir": output_dir} | report.to_dict(), show)


def _numbers(text: str, where: str) -> list[float]:
    from accordance.core.errors import ConfigError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError("numbers with commas are expected", where=f"--{where}", found=text) from error
