"""`accord data`: what is in the feedback, before anything is trained on it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def data(
    terminal: Terminal,
    records: o.RecordsSource,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--model-name-or-path",
            "--model_name_or_path",
            help="Whose tokens and chat template to look through.",
        ),
    ] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", "--max_length", help="What this limit would cut; needs --model."),
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="How much of it this objective could use.")
    ] = None,
    chat_template: o.Template = None,
    eos_token: o.EndToken = None,
    output_dir: Annotated[
        str | None,
        typer.Option("--output-dir", "--output_dir", help="Also write preflight.json and .html there."),
    ] = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Look at feedback: what was read and dropped, who judged, ties, contradictions, biases, lengths, cuts.

    Example: `accord data --records feedback.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --max-length 1024`
    """
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.plan import view_of
    from accordance.app.sources import model_source, read_records
    from accordance.core.errors import ConfigError
    from accordance.feedback import preflight
    from accordance.models import load_policy
    from accordance.objectives import get_objective

    if not verbose:
        silence_loaded()
    if model is None:
        for name, value in (("chat_template", chat_template), ("eos_token", eos_token)):
            if value is not None:
                raise ConfigError(f"{name} has no effect without a model", remedy="name one: --model")
    found = read_records(records, format=format, split=split, limit=limit, on_error=on_error, may_be_empty=True)
    policy: Any = model and load_policy(model_source(model), chat_template=chat_template, eos_token=eos_token)
    kind = None if objective is None else view_of(get_objective(objective), found)
    report = preflight(found, policy or None, max_length=max_length, objective_kind=kind)
    if output_dir is not None:
        check_writable(output_dir)
    tell_set_aside(terminal, report, found, output_dir, listed=False)
    if output_dir is not None:
        report.save(output_dir, "preflight")
    terminal.result(report.to_dict(), report.print)
