"""`accord lab`: the small world, its people, its base model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command

app = typer.Typer(
    help="The lab: a small world whose truth is known, its people, its base model.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("show")
@command
def show(
    terminal: Terminal,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many questions.")] = 8,
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Show questions of the world, what its writer answers, and what each answer is like.

    Example: `accord lab show -n 4 --seed 7`
    """
    from accordance.lab import world

    rng = random.Random(f"accord lab show {seed}")
    rows = []
    for _ in range(n):
        prompt = world.sample_prompt(rng)
        answer = world.write(prompt, rng)
        found = {name: round(float(value), 3) for name, value in world.attributes(prompt, answer).items()}
        kind = world.parse(prompt).kind
        rows.append({"kind": kind, "prompt": prompt, "answer": answer, "attributes": found})

    def draw(console: Any) -> None:
        for row in rows:
            console.print(f"({row['kind']}) {row['prompt']}", style="bold", markup=False, highlight=False)
            console.print("  " + row["answer"], markup=False, highlight=False)
            shown = ", ".join(f"{name} {value:g}" for name, value in row["attributes"].items() if value)
            console.print("  " + shown, style="dim", markup=False, highlight=False)

    terminal.result({"seed": seed, "rows": rows}, draw)


@app.command("write")
@command
def write(
    terminal: Terminal,
    output: Annotated[Path, typer.Option("--output", "-o", help="The jsonl file to write.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many prompts.")] = 400,
    seed: o.Seed = 0,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Whose answers are judged; by default those of the world's writer."),
    ] = None,
    responses: Annotated[int, typer.Option("--responses", min=2, help="Answers to each prompt.")] = 2,
    judges: Annotated[int, typer.Option("--judges", min=1, help="People who judge each.")] = 1,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Write feedback of the simulated people to a file.

    Examples: `accord lab write -o feedback.jsonl -n 2000`; `accord lab write -o more.jsonl --model lab:base -n 200`
    """
    from accordance.app.sources import model_source
    from accordance.feedback import save_records
    from accordance.lab import default_population, make_records, world
    from accordance.models import load_policy

    writer: Any = world.write if model is None else load_policy(model_source(model))
    made = make_records(writer, n, default_population(), seed, responses=responses, judges=judges)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_records(made, output)
    counts = made.counts()
    summary = {"output": str(output), "records": len(made), "judgments": counts}
    terminal.result(summary, lambda console: console.print(f"{len(made)} records ({counts}) in {output}"))


@app.command("people")
@command
def people(terminal: Terminal, as_json: o.AsJson = False, verbose: o.Verbose = False) -> None:
    """Show the population: its groups and what they want.

    Example: `accord lab people --json`
    """
    from accordance.lab import GROUPS, SHARED, default_population

    population = default_population()
    rows = [
        [name, len(population.members(name)), f"{group.share:g}", _weights(group.weights)]
        for name, group in GROUPS.items()
    ]
    groups = {
        name: {"people": len(population.members(name)), "share": g.share, "weights": dict(g.weights)}
        for name, g in GROUPS.items()
    }

    def draw(console: Any) -> None:
        console.print(f"Everybody cares about: {_weights(SHARED)}", markup=False, highlight=False)
        console.print(terminal.table("Groups", ["group", "people", "share", "differs in"], rows))

    terminal.result({"shared": dict(SHARED), "groups": groups, "people": len(population.people)}, draw)


@app.command("pretrain")
@command
def pretrain(
    terminal: Terminal,
    output_dir: Annotated[str, typer.Option("--output-dir", "--output_dir", help="Where the model goes.")],
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Stop after so long.")] = None,
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Train the base model of the small world from scratch: under 20 minutes on two cores.

    Example: `accord lab pretrain --output-dir runs/base`
    """
    from dataclasses import asdict

    from accordance.app.folder import check_folder, check_writable
    from accordance.lab.pretrain import pretrain as train

    check_folder(output_dir, resume=False, overwrite=False)
    check_writable(output_dir)
    given: dict[str, Any] = {
        key: value for key, value in (("steps", steps), ("minutes", minutes)) if value is not None
    }
    result = train(output_dir, seed=seed, show_progress=not terminal.json, **given)

    def draw(console: Any) -> None:
        console.print(
            f"{result.parameters:,} parameters, {result.steps} steps in {result.seconds:.0f} s, held-out loss "
            f"{result.held_out_loss:.3f} nats per token; the model is in {output_dir}"
        )

    terminal.result({"output_dir": output_dir, **asdict(result)}, draw)


def _weights(weights: Any) -> str:
    return ", ".join(f"{name} {value:+g}" for name, value in weights.items())
