"""`accord evaluate`: measure a policy on held-out records, against the one it came from."""

from __future__ import annotations

from typing import Annotated

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def evaluate(
    terminal: Terminal,
    model: o.Model,
    records: o.RecordsSource,
    reference: Annotated[
        str | None, typer.Option("--reference", help="The policy before alignment; an adapter brings its own.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option("--scorer", help="Who compares answers: `module:function`, or `population` for lab data."),
    ] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    samples: Annotated[int, typer.Option("--samples", min=0, help="Prompts that are answered.")] = 64,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Where answers are cut.")
    ] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of the sampling.")] = 1.0,
    user: o.User = None,
    seed: o.Seed = 0,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "--output_dir", help="Write report and samples there.")
    ] = None,
    chat_template: o.Template = None,
    eos_token: o.EndToken = None,
    dtype: o.Dtype = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure a policy: preference accuracy, win rate, KL, lengths, with intervals and samples side by side.

    Example: `accord evaluate --model runs/align --reference lab:base --records heldout.jsonl --scorer population`
    """
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_folder, check_writable
    from accordance.app.scorers import resolve_scorer
    from accordance.app.sources import asked_by, model_source, read_records
    from accordance.evaluation import evaluate as measure
    from accordance.models import load_policy

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_folder(output_dir, resume=False, overwrite=False)
        check_writable(output_dir)
    judge, by_group = resolve_scorer(scorer)
    found = read_records(records, format=format, split=split, limit=limit, on_error=on_error).materialise()
    how = {"dtype": dtype or "auto", "chat_template": chat_template, "eos_token": eos_token}
    report = measure(
        asked_by(load_policy(model_source(model), **how), user),
        found,
        reference=None if reference is None else load_policy(model_source(reference), **how),
        scorer=judge,
        by_group=by_group,
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        output_dir=output_dir,
        seed=seed,
    )
    tell_set_aside(terminal, report, found, output_dir, listed=False)
    if output_dir is not None and found.account.dropped:
        report.save(output_dir)
    terminal.result(report.to_dict(), report.print)
