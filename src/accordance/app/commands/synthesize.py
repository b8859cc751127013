"""`accord synthesize`: make feedback with models; the cost is shown first, and nothing is paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

ANSWERS, RECORDS, SETTINGS, DROPPED = (
    "answers.db",
    "records.jsonl.gz",
    "synthesize-settings.json",
    "dropped.jsonl",
)


@command
def synthesize(
    context: typer.Context,
    terminal: Terminal,
    method: Annotated[
        str | None,
        typer.Argument(metavar="METHOD", help="How; without one, the methods and their options are listed."),
    ] = None,
    records: Annotated[
        str,
        typer.Option(
            "--records", "--data", help="Prompts, responses or conversations to work on; as feedback."
        ),
    ] = "lab:demo",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Who writes; again for more. A checkpoint, `lab:base`, `lab`, `lab:writers`, or `api:provider/model`.",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="Who judges: as --model; `lab` (the default) is the scripted judge."),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", help="A function of the prompt, `module:function` or `file.py:function`."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help="A YAML file of these options; `synthesize-settings.json` of a folder is one, too."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the method, name=value; again for more.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would cost, and stop.")] = False,
    budget: Annotated[int | None, typer.Option("--budget", min=0, help="At most so many calls.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a folder; what is answered costs nothing.")
    ] = False,
    output_dir: Annotated[
        str, typer.Option("--output-dir", "--output_dir", "-o", help="Where records and report go.")
    ] = "runs/synthesize",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Where responses are cut.")
    ] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of the responses.")] = 1.0,
    block: Annotated[
        int, typer.Option("--block", min=1, help="Items worked on at once; what is whole is kept.")
    ] = 16,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Make feedback: responses, judgments, and an account of what was dropped.

    Examples: `accord synthesize`; `accord synthesize rank --model lab --limit 200`;
    `accord synthesize ultrafeedback --model lab:writers --set critique=true --dry-run`;
    `accord synthesize rank --model lab:base --judge api:openai/gpt-4o --budget 5000 -o runs/made --resume`;
    `accord synthesize mora --model lab --set aspects=truthfulness,politeness --limit 20 --dry-run`;
    `accord synthesize tutoring --records lab:steps`; `accord synthesize --recipe made.yaml --limit 50`
    """
    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.sources import read_records
    from accordance.core.asking import AnswerCache, Budget
    from accordance.core.record import Account
    from accordance.curation.synthesis import METHODS
    from accordance.curation.synthesis_report import cost_report, synthesis_report
    from accordance.feedback import save_records
    from accordance.feedback.synthesis import synthesize as work

    if method is None and recipe is None:
        _list(terminal, METHODS)
        return
    if not verbose:
        silence_loaded()
    folder = Path(output_dir)
    line: dict[str, Any] = {
        "method": method,
        "records": records,
        "model": model or [],
        "judge": judge,
        "tool": tool or [],
        "set": o.named_options((), settings or ()),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "format": format,
        "split": split,
        "limit": limit,
        "on_error": on_error,
        "block": block,
    }
    words = {"set": "settings"}
    said = {
        key for key in line if str(context.get_parameter_source(words.get(key, key))).endswith("COMMANDLINE")
    }
    given = line if recipe is None else _joined(recipe, line, said)
    _check_uses(
        given, said if recipe is None else {key for key, value in given.items() if value is not None}, budget
    )
    if method is None:
        method = given["method"]
    if not dry_run:
        _check_folder(folder, given, resume=resume)
        check_writable(folder)
    cache = AnswerCache(folder / ANSWERS if not dry_run or (folder / ANSWERS).exists() else None)
    spent = Budget(budget)
    way = _method(given, cache, spent)
    reading = {key: given[key] for key in ("format", "split", "limit", "on_error")}
    source = read_records(given["records"], **reading).materialise()
    drafts = way.drafts(source, Account())
    costs = way.cost(drafts)
    plan = cost_report(way, costs, len(drafts), spent)
    plan.data("answers_in_cache", len(cache))
    if dry_run:
        tell_set_aside(terminal, plan, source, None)
        terminal.result(plan.to_dict(), plan.print)
        return
    most = sum(cost.calls for cost in costs)
    terminal.say(
        f"{len(drafts):,} items, at most {most:,} calls; {len(cache):,} answers are in the cache", "dim"
    )
    (folder / SETTINGS).write_text(json.dumps(given, indent=1, sort_keys=True), encoding="utf-8")
    with terminal.progress() as note:
        made = work(way, source, block=given["block"], progress=lambda done, of: note("synthesize", done, of))
    save_records(made, folder / RECORDS)
    rows = [{"reason": why, "origin": origin} for why, some in made.account.rows.items() for origin in some]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / DROPPED).write_text(lines, encoding="utf-8")
    report = synthesis_report(made, way, costs, spent, seed=given["seed"])
    report.data("settings", given)
    report.data("folder", str(folder))
    tell_set_aside(terminal, report, source, folder)
    _, page = report.save(folder, "synthesize")
    terminal.say(f"Records: {folder / RECORDS}; report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)


def _method(given: dict[str, Any], cache: Any, budget: Any) -> Any:
    from accordance.app.assistants import assistants
    from accordance.core.asking import Asked
    from accordance.core.errors import ConfigError
    from accordance.core.named import named_object
    from accordance.curation.anyprefer import FunctionTool
    from accordance.curation.synthesis import METHODS, Parts, make_method

    name = given["method"]
    if METHODS[name].models and not given["model"]:
        raise ConfigError(f"{name} needs a model that writes", where="--model", remedy="--model lab, to try it")
    models = [Asked(m, cache=cache, budget=budget) for m in assistants(given["model"], "writer")]
    judge = None
    if METHODS[name].judge:
        judge = Asked(assistants([given["judge"]], "judge")[0], cache=cache, budget=budget)
    tools = [
        FunctionTool(t.rpartition(":")[2], named_object(t, where="--tool", expected="a function of the prompt"))
        for t in given["tool"]
    ]
    sampling = {key: given[key] for key in ("max_new_tokens", "temperature", "seed") if given[key] is not None}
    return make_method(name, Parts(models, judge, tools, sampling), given["set"])


def _joined(recipe: str, line: dict[str, Any], said: set[str]) -> dict[str, Any]:
    """The options of a recipe, and over them those of the command line."""
    from accordance.core.errors import ConfigError, unknown
    from accordance.training import read_recipe

    read = {key: o.value_of(value) for key, value in read_recipe(recipe).items()}
    for key, value in read.items():
        if key not in line:
            raise unknown("option", key, line, where=recipe)
        kinds = (list, dict) if key in ("set", "model", "tool") else (str, int, float, type(None))
        if key in ("model", "tool") and isinstance(value, str):
            read[key] = [value]
        elif not isinstance(value, kinds):
            raise ConfigError(f"{key} has a value of another kind", where=recipe, found=value)
    given = line | read | {key: line[key] for key in said}
    if "set" in said:
        given["set"] = {**read.get("set", {}), **line["set"]}
    if given["method"] is None:
        raise ConfigError("no method is named", where=recipe, expected="method: rank, or another one")
    return given


def _check_uses(given: dict[str, Any], said: set[str], budget: int | None) -> None:
    """Refuse what the method would not use, before anything is loaded."""
    from accordance.core.errors import unknown
    from accordance.curation.synthesis import METHODS, refuse_unused

    if given["method"] not in METHODS:
        raise unknown("method", given["method"], METHODS)
    chosen = METHODS[given["method"]]
    for role, key in (("models", "model"), ("judge", "judge"), ("tools", "tool")):
        if given[key]:
            refuse_unused(chosen, role, given[key], f"--{key}")
    for key in ("max_new_tokens", "temperature"):
        if key in said:
            refuse_unused(chosen, "sampling", given[key], f"--{key.replace('_', '-')}")
        elif not chosen.uses["sampling"]:
            given[key] = None
    if chosen.judge:
        given["judge"] = given["judge"] or "lab"
    if budget is not None:
        refuse_unused(chosen, "sampling", budget, "--budget")


def _check_folder(folder: Path, given: dict[str, Any], *, resume: bool) -> None:
    from accordance.core.errors import ConfigError

    there = folder / SETTINGS
    if not there.exists():
        if resume:
            raise ConfigError("there is nothing to go on with", where=str(folder), remedy="leave --resume out")
        return
    if not resume:
        raise ConfigError(
            "the folder holds a synthesis",
            where=str(folder),
            remedy="--resume to go on with it, or another --output-dir",
        )
    before = json.loads(there.read_text(encoding="utf-8"))
    other = {key: before.get(key) for key in given if before.get(key) != given[key]}
    if other:
        raise ConfigError(
            "the folder holds a synthesis of other settings",
            where=str(folder),
            found=", ".join(f"{key}: {given[key]!r}" for key in other),
            expected=", ".join(f"{key}: {value!r}" for key, value in other.items()),
            remedy="the same settings (the budget may differ), or another --output-dir",
        )


def _list(terminal: Terminal, methods: Any) -> None:
    rows = [
        [
            m.name,
            m.summary,
            m.needs,
            ", ".join(role for role, used in m.uses.items() if used and role != "sampling") or "nobody",
            ", ".join(f"{k}={v}" for k, v in m.options.items() if k not in ("rubric", "principle")),
        ]
        for m in methods.values()
    ]
    value = [
        {"name": m.name, "summary": m.summary, "needs": m.needs, "models": m.models, "judge": m.judge}
        | {"tools": m.tools, "options": m.options}
        for m in methods.values()
    ]
    columns = ["method", "what it does", "works on", "uses", "options (--set)"]
    terminal.result(
        {"methods": value},
        lambda console: console.print(terminal.table("Ways of making feedback", columns, rows)),
    )
