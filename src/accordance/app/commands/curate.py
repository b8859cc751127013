"""`accord curate`: feedback made better by named steps, with an account of every row, or given back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def curate(
    terminal: Terminal,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="Feedback: a file, a folder, a hub name, or `lab:demo`."),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option("--step", help="A step: `drop_ties`, `length_balance:buckets=6,seed=1`; again for more."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A YAML file with a list `steps`, in place of --step.")
    ] = None,
    steps: Annotated[bool, typer.Option("--steps", help="List the steps and their options, and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dry_run", help="Say what would be done; write nothing.")
    ] = False,
    undo: Annotated[
        str | None,
        typer.Option("--undo", help="Folder of a curation: write what went into it to `undone.jsonl`."),
    ] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    output_dir: Annotated[
        str, typer.Option("--output-dir", "--output_dir", help="Where records, account and report go.")
    ] = "runs/curate",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a curation that is there.")] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Curate feedback: select, clean, weigh, balance, relabel and order, knowing what became of every row.

    Examples: `accord curate feedback.jsonl --step drop_ties --step length_balance:buckets=6 --output-dir runs/curated`;
    `accord curate lab:demo --recipe recipe.yaml --dry-run`; `accord curate --undo runs/curated`
    """
    from accordance.core.errors import ConfigError

    chosen = [name for name, given in (("--steps", steps), ("--undo", undo is not None)) if given]
    if chosen and (data is not None or step or recipe or len(chosen) > 1):
        raise ConfigError(f"{chosen[0]} stands alone", found="DATA, --step, --recipe or another of its kind")
    if steps:
        return _list(terminal)
    if not verbose:
        silence_loaded()
    if undo is not None:
        return _undo(terminal, undo)
    if data is None:
        raise ConfigError("no DATA is given", expected="a file, a folder, a hub name, or `lab:demo`")
    _curate(
        terminal,
        data,
        _pipeline(step or [], recipe),
        reading={"format": format, "split": split, "limit": limit, "on_error": on_error},
        output=None if dry_run else Path(output_dir),
        overwrite=overwrite,
    )


def _curate(
    terminal: Terminal,
    data: str,
    pipeline: Any,
    *,
    reading: dict[str, Any],
    output: Path | None,
    overwrite: bool,
) -> None:
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.scorers import resolve_scorer
    from accordance.app.sources import read_records
    from accordance.core.errors import ConfigError
    from accordance.curation import Tools, curation_report, recipe_text, save_curated

    if output is not None:
        if any((output / name).exists() for name in ("curation.json", "recipe.yaml")) and not overwrite:
            raise ConfigError(
                "the output folder holds another curation or run",
                where=str(output),
                remedy="--overwrite replaces it, another --output-dir leaves it alone",
            )
        check_writable(output)
    found = read_records(data, **reading).materialise()
    with terminal.progress() as progress:
        tools = Tools(resolve=lambda name: resolve_scorer(name)[0], progress=progress)
        curated = pipeline.run(found, tools)
    report = curation_report(curated, recipe_text(pipeline), dry_run=output is None)
    tell_set_aside(terminal, report, found, output)
    if output is not None:
        files = save_curated(curated, output, pipeline)
        _, page = report.save(output, "report")
        report.data("files", {name: str(path) for name, path in files.items()} | {"report": str(page)})
        terminal.say(f"Records: {files['records']}   account: {files['account']}   report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)


def _pipeline(given: list[str], recipe: str | None) -> Any:
    from accordance.core.errors import ConfigError
    from accordance.curation import Pipeline, make_step, read_pipeline

    if (recipe is None) == (not given):
        raise ConfigError(
            "a curation needs --step or --recipe, one of them",
            where="command line",
            remedy="accord curate --steps lists the steps",
        )
    if recipe is not None:
        return read_pipeline(recipe)
    parsed = [parse_step(text) for text in given]
    return Pipeline.of(*(make_step(name, options, where="--step") for name, options in parsed))


def parse_step(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of ``name:option=value,option=value``; values may be lists such as ``[a, b]``.

    Raises:
        ConfigError: an option without a value, or one twice.
    """
    from accordance.core.errors import ConfigError

    name, _, rest = text.partition(":")
    parts, depth = [""], 0
    for letter in rest:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    options: dict[str, Any] = {}
    for part in filter(str.strip, parts):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in options:
            raise ConfigError(
                "an option is given twice" if equals else "an option needs a value",
                where=f"--step {text}",
                found=part,
                expected="name:option=value,option=value",
            )
        options[key.strip()] = o.value_of(value)
    return name.strip(), options


def _list(terminal: Terminal) -> None:
    from accordance.curation import step_kinds

    rows = []
    for name, kind in step_kinds().items():
        fields = kind.model_fields.items()
        options = {key: "required" if f.is_required() else f.default for key, f in fields}
        rows.append({"step": name, "summary": (kind.__doc__ or "").split("\n")[0], "options": options})
    shown = [[r["step"], ", ".join(f"{k}={v}" for k, v in r["options"].items()), r["summary"]] for r in rows]
    terminal.result(
        {"steps": rows},
        lambda console: console.print(terminal.table("", ["step", "options", "what it does"], shown)),
    )


def _undo(terminal: Terminal, folder: str) -> None:
    from accordance.curation import undo_folder
    from accordance.feedback import save_records

    found = undo_folder(folder)
    path = save_records(found, Path(folder) / "undone.jsonl")
    told = {"undone": str(path), "records": len(found), "fingerprint": found.fingerprint()}
    said = f"{len(found)} records, as they were before the curation: {path}"
    terminal.result(told, lambda console: console.print(said, markup=False))
