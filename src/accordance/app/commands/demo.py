"""`accord demo`: the whole job on what lies in the package, offline, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.commands.align import perform
from accordance.app.terminal import Terminal, command, silence_loaded

#: The demo's training: the best of about ten settings of learning rate, batch size, epochs and beta that were tried.
SETTINGS: dict[str, Any] = {
    "objective": "dpo",
    "beta": 0.4,
    "learning_rate": 3e-4,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "logging_steps": 5,
    "save_strategy": "no",
    "held_out": 0.15,
    "samples": 300,
    "max_new_tokens": 96,
    "scorer": "population",
}
#: `--fast`: to see that it runs, not to see what it can.
FAST: dict[str, Any] = {"num_train_epochs": 1, "samples": 48}


@command
def demo(
    terminal: Terminal,
    output_dir: Annotated[
        str,
        typer.Option("--output-dir", "--output_dir", help="Folder of the run; an earlier demo is replaced."),
    ] = "runs/demo",
    seed: o.Seed = 42,
    fast: Annotated[bool, typer.Option("--fast", help="A shorter run on less feedback.")] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Align the model in the package to the simulated people in the package, and show what came of it.

    A small model writes fluent answers of mixed quality; thirty people of three groups have compared pairs of them;
    DPO trains on what they said; the same people then compare new answers, before and after.
    """
    from accordance.app.folder import RECIPE
    from accordance.app.recipe import Recipe, read_recipe

    if not verbose:
        silence_loaded()
    settings = SETTINGS | (FAST if fast else {})
    records = f"lab:demo?n={800 if fast else 8000}"
    named = {"model": "lab:base", "records": records, "output_dir": output_dir, "seed": seed}
    file = f"{output_dir}/{RECIPE}"
    if Path(file).exists() and str(read_recipe(file).get("records", "")).startswith("lab:demo"):
        named["overwrite_output_dir"] = True
    perform(Recipe.of(settings | named, source="demo"), terminal)
