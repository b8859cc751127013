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


Scenes = Annotated[
    str | None, typer.Option("--scene", help="A scene (see `accord lab scenes`), such as steps.")
]


@app.command("show")
@command
def show(
    terminal: Terminal,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many questions.")] = 8,
    seed: o.Seed = 0,
    scene: Scenes = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Show questions of the world or of a scene, what the writer answers, and what each answer is like.

    Examples: `accord lab show -n 4 --seed 7`; `accord lab show --scene dialogues -n 2`
    """
    rng = random.Random(f"accord lab show {seed}")
    rows = [_answered(scene, None, {}, rng) for _ in range(n)]
    terminal.result({"seed": seed, "rows": rows}, lambda console: [_draw(console, row) for row in rows])


@app.command("scenes")
@command
def scenes(terminal: Terminal, as_json: o.AsJson = False, verbose: o.Verbose = False) -> None:
    """Show the scenes: sorts of prompts, each with attributes, a writer, and records named `lab:` and its name.

    Example: `accord align --model lab:base --records "lab:critiques?n=400&seed=1" --objective cut`
    """
    from accordance.lab import SCENES

    found = {
        one.name: {"about": one.about, "attributes": dict(one.attributes), "settable": dict(one.settable)}
        for one in SCENES.values()
    }

    def draw(console: Any) -> None:
        for name, row in found.items():
            console.print(f"{name}: {row['about']}", style="bold", markup=False, highlight=False)
            for attribute, meaning in row["attributes"].items():
                values = ", ".join(f"{value:g}" for value in row["settable"].get(attribute, ()))
                can = f" (can be written: {values})" if values else ""
                console.print(f"  {attribute}: {meaning}{can}", markup=False, highlight=False)

    terminal.result(found, draw)


@app.command("answer")
@command
def answer(
    terminal: Terminal,
    prompt: Annotated[str | None, typer.Argument(help="What is asked; by default a question is drawn.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="`attribute=value` of the answer; may be repeated.")
    ] = None,
    scene: Scenes = None,
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Write an answer with the attributes that you choose; what you don't choose is drawn.

    Examples: `accord lab answer "What colour is the lemon?" --set politeness=1 --set correctness=0`;
    `accord lab answer --scene steps --set outcome=1 --set sound=0`
    """
    wanted = o.named_options((), assign or ())
    row = _answered(scene, prompt, wanted, random.Random(f"accord lab answer {seed}"))
    terminal.result(row, lambda console: _draw(console, row))


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
    scene: Scenes = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Write feedback of the simulated people to a file, or the records of a scene.

    Examples: `accord lab write -o feedback.jsonl -n 2000`; `accord lab write -o more.jsonl --model lab:base -n 200`;
    `accord lab write -o steps.jsonl --scene steps`
    """
    from accordance.app.sources import model_source
    from accordance.core.errors import ConfigError
    from accordance.feedback import save_records
    from accordance.lab import default_population, make_records, world
    from accordance.lab import scene as find_scene
    from accordance.models import load_policy

    if scene is not None:
        if (model, responses, judges) != (None, 2, 1):
            raise ConfigError(
                "a scene has its own answers and judges", found=f"{model=}, {responses=}, {judges=}"
            )
        made = find_scene(scene).records(n, seed)
    else:
        writer: Any = world.write if model is None else load_policy(model_source(model))
        made = make_records(writer, n, default_population(), seed, responses=responses, judges=judges)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_records(made, output)
    counts = made.counts()
    summary = {"output": str(output), "records": len(made), "judgments": counts}
    terminal.result(summary, lambda console: console.print(f"{len(made)} records ({counts}) in {output}"))


Size = Annotated[int, typer.Option("--size", min=1, help="How many people.")]
Cycle = Annotated[bool, typer.Option("--cycle", help="The people whose majorities run in a circle.")]


@app.command("people")
@command
def people(
    terminal: Terminal,
    size: Size = 30,
    seed: o.Seed = 0,
    each: Annotated[bool, typer.Option("--each", help="Show every person, too.")] = False,
    cycle: Cycle = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Sample a population and show what it believes: its groups, what they want, and how each person judges.

    Examples: `accord lab people --json`; `accord lab people --size 6 --seed 3 --each`; `accord lab people --cycle`
    """
    found = _population(size, seed, cycle)
    shared, groups = _tastes(found, cycle)
    persons = {
        p.name: {
            "group": p.group,
            "weights": dict(p.weights),
            "temperature": p.temperature,
            "flips": p.flips,
            "position_bias": p.position_bias,
            "tie": p.tie,
        }
        for p in found.people
    }
    rows = [[name, g["people"], f"{g['share']:.3g}", _weights(g["weights"])] for name, g in groups.items()]

    def draw(console: Any) -> None:
        console.print(f"Everybody cares about: {_weights(shared)}", markup=False, highlight=False)
        console.print(terminal.table("Groups", ["group", "people", "share", "differs in"], rows))
        for name, person in persons.items() if each else ():
            manner = ", ".join(f"{key} {person[key]:.2f}" for key in list(person)[2:])
            console.print(f"{name}: {_weights(person['weights'])}; {manner}", markup=False, highlight=False)

    value = {"seed": seed, "shared": shared, "groups": groups, "people": len(found.people)}
    terminal.result(value | ({"persons": persons} if each else {}), draw)


@app.command("judge")
@command
def judge(
    terminal: Terminal,
    prompt: Annotated[str, typer.Argument(help="What was asked.")],
    first: Annotated[str, typer.Argument(help="The answer shown first.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    size: Size = 30,
    seed: o.Seed = 0,
    cycle: Cycle = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Have every person of a population judge two answers once, and tell what truly caused each judgment.

    Example: `accord lab judge "What is 2 plus 2?" "2 plus 2 is 4." "What a silly question. 2 plus 2 is 4."`
    """
    from accordance.lab.collect import judged

    found = _population(size, seed, cycle)
    (record,) = judged([prompt], [[first, second]], found, seed, judges=len(found.people))
    said = []
    for judgment in record.judgments:
        cause = found.cause(record, judgment)
        winner = None if judgment.tie else judgment.responses[int(cause.outcome < 0)] + 1
        said.append(
            {
                "person": judgment.annotator,
                "group": judgment.group,
                "prefers": winner,
                "cause": cause.kind,
                "attribute": cause.decisive,
                "chance": round(cause.chance, 4),
            }
        )
    shares = {group: found.prob(prompt, first, second, group) for group in found.groups}
    rows = [[str(v) if v is not None else "-" for v in one.values()] for one in said]

    def draw(console: Any) -> None:
        for group, share in shares.items():
            console.print(
                f"{group}: prefers the first, shown first, with probability {share:.2f}", markup=False
            )
        heads = ["person", "group", "prefers", "cause", "attribute", "chance of saying so"]
        console.print(terminal.table("Judgments", heads, rows))

    terminal.result({"seed": seed, "prefer_first": shares, "judgments": said}, draw)


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
    """Train the base model of the small world from scratch: about 20 minutes on two cores.

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


def _answered(
    scene: str | None, prompt: str | None, wanted: dict[str, Any], rng: random.Random
) -> dict[str, Any]:
    """A prompt, drawn where none is given, with an answer and its attributes."""
    from accordance.core.record import as_prompt
    from accordance.lab import scene as find_scene
    from accordance.lab import world

    if scene is None:
        asked = as_prompt(prompt if prompt is not None else world.sample_prompt(rng))
        text = world.write(asked, rng, **wanted)
        kind, found = world.parse(asked).kind, world.attributes(asked, text)
    else:
        one = find_scene(scene)
        asked = as_prompt(prompt) if prompt is not None else one.ask(rng)
        text = one.write(asked, rng, **wanted)
        kind, found = one.label, one.measure(asked, text)
    turns = [{"role": turn.role, "content": turn.content} for turn in asked]
    said = asked[0].content if len(asked) == 1 else turns
    return {
        "kind": kind,
        "prompt": said,
        "answer": text,
        "attributes": {name: round(float(value), 3) for name, value in found.items()},
    }


def _draw(console: Any, row: dict[str, Any]) -> None:
    asked = row["prompt"]
    lines = [asked] if isinstance(asked, str) else [f"{turn['role']}: {turn['content']}" for turn in asked]
    for place, line in enumerate(lines):
        lead = f"({row['kind']}) " if place == 0 else "  "
        console.print(lead + line, style="bold", markup=False, highlight=False)
    console.print("  " + row["answer"].replace("\n\n", "\n  "), markup=False, highlight=False)
    shown = ", ".join(f"{name} {value:g}" for name, value in row["attributes"].items() if value)
    console.print("  " + shown, style="dim", markup=False, highlight=False)


def _population(size: int, seed: int, cycle: bool) -> Any:
    from accordance.core.errors import ConfigError
    from accordance.lab import Population, cyclic_population

    if not cycle:
        return Population.sample(seed, size=size)
    if size % 3:
        raise ConfigError("the three groups of the circle are of equal size", where="--size", found=size)
    return cyclic_population(each=size // 3)


def _tastes(population: Any, cycle: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """What everybody cares about, and each group: how many, which share, in what it differs."""
    from accordance.lab import GROUPS, SHARED

    everyone, members = len(population.people), {g: population.members(g) for g in population.groups}
    if not cycle:
        return dict(SHARED), {
            name: {"people": len(some), "share": GROUPS[name].share, "weights": dict(GROUPS[name].weights)}
            for name, some in members.items()
        }
    tastes = {name: dict(some[0].weights) for name, some in members.items()}
    first = next(iter(tastes.values()))
    shared = {k: v for k, v in first.items() if all(taste.get(k) == v for taste in tastes.values())}
    return shared, {
        name: {
            "people": len(members[name]),
            "share": len(members[name]) / everyone,
            "weights": {k: v for k, v in taste.items() if k not in shared},
        }
        for name, taste in tastes.items()
    }


def _weights(weights: Any) -> str:
    return ", ".join(f"{name} {value:+.3g}" for name, value in weights.items())
