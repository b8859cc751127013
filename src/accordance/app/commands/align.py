"""`accord align`: feedback in, an aligned model and the evidence out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import INTERRUPTED, Terminal, command, silence_loaded

if TYPE_CHECKING:
    from accordance.app.recipe import Recipe

EXAMPLES = """\
**Examples**

`accord align --model lab:base --records lab:demo --scorer population`

`accord align --model Qwen/Qwen2.5-0.5B-Instruct --records feedback.jsonl --objective dpo --beta 0.05 --use-peft`

`accord align --recipe recipe.yaml --set learning_rate=1e-5 --output-dir runs/second`

`accord align --recipe runs/first/recipe.yaml --output-dir runs/first --resume`

`accord align --model M --records F --num-processes 2 --parallel ddp`

`accord align --model lab:base --records lab:demo --objective grpo --reward population --max-completion-length 40`

Any other `--name value` is an option of the run, of the objective, or of transformers' TrainingArguments.
"""


@command
def align(
    context: typer.Context,
    terminal: Terminal,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--model-name-or-path",
            "--model_name_or_path",
            help="Checkpoint: a folder, a hub name, or `lab:base`, the model in the package.",
        ),
    ] = None,
    records: Annotated[
        str | None,
        typer.Option("--records", "--data", help="Feedback: a file, a folder, a hub name, or `lab:demo`."),
    ] = None,
    format: o.Format = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="The loss, or a sum: `dpo + 0.1*sft`. Default: dpo.")
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "--output_dir", help="Folder of the run. Default: runs/align.")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            "--held-out", "--held_out", help="Share of prompts, number of records, or a file. Default: 0.1."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="YAML file of options; the command line overrides it.")
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="`name=value`, for any option; may be repeated.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option("--scorer", help="Who compares answers: `module:function`, or `population` for lab data."),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            help="Learn online: who scores what is sampled (as --scorer); may be repeated, they are added up.",
        ),
    ] = None,
    chat_template: o.Template = None,
    eos_token: o.EndToken = None,
    dtype: o.Dtype = None,
    load_in_4bit: o.FourBit = False,
    use_peft: Annotated[bool, typer.Option("--use-peft", "--use_peft", help="Train a LoRA adapter.")] = False,
    num_processes: Annotated[
        int | None,
        typer.Option("--num-processes", "--num_processes", min=1, help="Start so many processes here."),
    ] = None,
    parallel: Annotated[
        str | None, typer.Option("--parallel", help="How they share the work: ddp, fsdp2, zero2 or zero3.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "--dry_run", help="Show preflight and resolved recipe; write and train nothing."
        ),
    ] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Align a model with feedback: look at the data, train, evaluate on held-out records, write the report."""
    given: dict[str, Any] = {
        "model": model,
        "records": records,
        "format": format,
        "objective": objective,
        "output_dir": output_dir,
        "held_out": o.value_of(held_out),
        "scorer": scorer,
        "reward": (reward[0] if len(reward) == 1 else reward) if reward else None,
        "chat_template": chat_template,
        "eos_token": eos_token,
        "dtype": dtype,
        "parallel": parallel,
        "load_in_4bit": load_in_4bit or None,
        "use_peft": use_peft or None,
        "resume_from_checkpoint": resume or None,
        "overwrite_output_dir": overwrite or None,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    changes |= _once(o.named_options(context.args, assign or ()), changes)
    from accordance.app.recipe import Recipe

    if not verbose:
        silence_loaded()
    chosen = Recipe.read(recipe, changes) if recipe is not None else Recipe.of(changes, source="command line")
    if dry_run:
        rehearse(chosen, terminal)
    elif _launches(num_processes, chosen, parallel):
        from accordance.app.launch import relaunch

        raise typer.Exit(relaunch(num_processes or 1, chosen))
    else:
        perform(chosen, terminal)


def perform(recipe: Recipe, terminal: Terminal) -> None:
    """Carry out a recipe and show what came of it."""
    from accordance.app import align as work
    from accordance.app.callback import ShowMetrics
    from accordance.app.plan import is_lead

    lead = is_lead()
    with terminal.progress() as note:
        done = work.carry_out(
            recipe,
            progress=note,
            on_preflight=None if terminal.json else lambda found: found.print(terminal.aside),
            callbacks=(ShowMetrics(note),),
        )
    if not lead:
        return
    folder = done.output_dir
    if done.run.interrupted:
        _interrupted(recipe, done, terminal)
    assert done.report is not None
    report = done.report

    def show(console: Any) -> None:
        report.print(console)
        console.print(
            f"\nThe model, its card and the evidence are in [bold]{folder}[/]: open {folder}/report.html"
        )

    terminal.result({"output_dir": str(folder)} | report.to_dict(), show)


def rehearse(recipe: Recipe, terminal: Terminal) -> None:
    """Show what a run would do, and write nothing."""
    import yaml

    from accordance.app.plan import check_output, prepare
    from accordance.app.scorers import resolve_rewards, resolve_scorer

    check_output(recipe)
    plan = prepare(recipe)
    resolve_scorer(recipe.inputs.scorer)
    resolve_rewards(recipe.config.reward)
    options = recipe.options()

    def show(console: Any) -> None:
        plan.preflight.print(console)
        console.print("\nRecipe", style="bold")
        console.print(
            yaml.safe_dump(options, sort_keys=False, allow_unicode=True), markup=False, highlight=False
        )
        console.print(
            f"{len(plan.train)} records to train on, {len(plan.held_out)} held out. Nothing was written."
        )

    parts = {"train": len(plan.train), "held_out": len(plan.held_out)}
    terminal.result({"dry_run": True, "recipe": options, **parts, "preflight": plan.preflight.to_dict()}, show)


def _interrupted(recipe: Recipe, done: Any, terminal: Terminal) -> None:
    from accordance.training import last_complete_checkpoint

    folder = done.output_dir
    checkpoint = last_complete_checkpoint(folder)
    again = f"accord align --recipe {folder}/recipe.yaml --resume"
    found = {"interrupted": True, "steps": done.run.steps, "checkpoint": str(checkpoint), "resume": again}

    def show(console: Any) -> None:
        console.print(
            f"Stopped after step {done.run.steps}. The checkpoint is in {checkpoint}.", style="yellow"
        )
        console.print(f"To go on: {again}", markup=False, highlight=False, soft_wrap=True)

    terminal.result(found, show)
    raise typer.Exit(INTERRUPTED)


def _once(more: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    from accordance.core.errors import ConfigError

    for name in more.keys() & given.keys():
        raise ConfigError(f"{name} is given twice", where="command line", found=f"{given[name]}, {more[name]}")
    return more


def _launches(num_processes: int | None, recipe: Recipe, parallel: str | None) -> bool:
    """Whether this process only starts others."""
    import os

    from accordance.core.errors import ConfigError

    if num_processes is None:
        return False
    world = os.environ.get("WORLD_SIZE")
    if world is not None and int(world) != num_processes:
        raise ConfigError(
            "num_processes has no effect: a launcher has started the processes already",
            found=f"{num_processes}, and WORLD_SIZE={world}",
            remedy="leave --num-processes out",
        )
    return world is None and num_processes > 1
