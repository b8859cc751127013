"""Pages drawn from the code when the documentation is built: objectives, formats, systems, options, API.

Whole pages, written to `_generated/` before Sphinx reads its sources, and only where they changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation

KINDS = {"pair": "pairs", "unary": "single responses", "list": "groups of K responses"}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the pages with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", keep_bars)
    return {"version": "1", "parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    """Write every page, and remove those of rooms that are gone."""
    folder = Path(app.srcdir) / "_generated"
    pages = {
        "objectives.md": objectives_page(),
        "formats.md": formats_page(),
        "systems.md": systems_page(),
        "options.md": options_page(),
        "loops.md": loops_page(),
        **{f"api/{name}.rst": text for name, text in api_pages().items()},
    }
    if has_command():
        pages["command.md"] = command_page()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.*"):
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()


def keep_bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let ``|x|`` be an absolute value: docstrings hold no substitutions, which it would otherwise be taken for."""
    lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line) for line in lines]


def _source(online: bool, sampled: bool) -> str:
    """Where an objective's examples can come from."""
    if online:
        return "rollouts" if sampled else "Python alone"
    return "records, rollouts" if sampled else "records"


def objectives_page() -> str:
    """One table of all objectives, then the options of each."""
    from accordance import objectives

    rows, sections = [], []
    for name in objectives.objective_names():
        built = objectives.get_objective(name)
        builder = getattr(objectives, name, None)
        says = (inspect.getdoc(builder) or "").split("\n")[0] if builder else ""
        rows.append(
            [
                f"[`{name}`](#{name.replace('_', '-')})",
                KINDS.get(built.bundle.kind, built.bundle.kind) + (" with thumbs" if built.labels else ""),
                _source(built.online, can_be_online(built)),
                passes(built),
                says,
            ]
        )
        options = objectives.objective_options(name)
        link = f"\n{{py:func}}`accordance.objectives.{name}`\n" if name in objectives.__all__ else ""
        sections += [
            f"({name.replace('_', '-')})=\n### `{name}`",
            says,
            table(
                ["option", "default", "type", "what it does"],
                [[f"`{k}`", f"`{o.default!r}`", kind(o.type), o.help] for k, o in options.items()],
            )
            if options
            else "It has no options.",
            link,
        ]
    return page(
        "Objectives",
        "What `objective=` takes, in Python, on the command line and in recipes. Options stand beside it under the "
        "names below. Sums with weights work too: `dpo + 0.1*sft`. An option that an objective doesn't have is "
        "refused, and the message names those that have it.",
        table(["name", "learns from", "from where", "passes", "what it is"], rows),
        "*Passes*, beside the policy's own forward and backward over each prompt (once) and each response: `ref` is a "
        "forward pass under the reference, once for each response and then from the cache (for rollouts: once for each "
        "that is sampled); `tables` are distributions over the whole vocabulary at each token, in chunks; `mismatched` "
        "is one more response for each prompt.",
        "## Wrappers",
        "A wrapper takes an objective over pairs, or a sum with one, and re-weighs or changes its pairs: "
        "`lcpo(dpo + 0.1*sft)`. Its options are written `wrapper.option` where the wrapped one has the same.",
        table(["name", "what it is", "options"], wrapper_rows()),
        "## Balancers",
        "`balancer=` puts the gradients of a sum's members together; with `sum` (the default) they are added up in one "
        "backward pass, with the others there is a backward pass for each member.",
        table(["name", "what it is", "options"], balancer_rows()),
        "## Options",
        *sections,
    )


def can_be_online(objective: Any) -> bool:
    """Whether rollouts can feed it as well as records."""
    from accordance.core.errors import ConfigError
    from accordance.training.online_objective import online_objective
    from accordance.training.rollouts import RolloutOptions

    try:
        return bool(online_objective(objective, RolloutOptions()))
    except ConfigError:
        return False


def passes(objective: Any) -> str:
    """What an objective costs beside the policy's own pass."""
    found = ["ref"] if objective.reference else []
    found += ["tables"] if getattr(objective, "whole", ()) else []
    found += ["mismatched"] if objective.mismatched else []
    return " + ".join(found) or "-"


def wrapper_rows() -> list[list[str]]:
    """Name, summary and options of each wrapper."""
    from accordance import objectives

    return [
        [
            f"`{name}`",
            first_line(getattr(objectives, name, None)),
            ", ".join(
                f"`{k}` ({o.default!r}): {o.help}" for k, o in objectives.objective_options(name).items()
            ),
        ]
        for name in objectives.wrapper_names()
    ]


def balancer_rows() -> list[list[str]]:
    """Name, summary and options of each gradient balancer."""
    from accordance import balancing

    rows = []
    for name in balancing.balancer_names():
        made = balancing.get_balancer(name)
        options = ", ".join(f"`balancer_{option}`" for option in balancing.balancer_options(name))
        rows.append([f"`{name}`", first_line(type(made)), options or "-"])
    return rows


def first_line(thing: Any) -> str:
    """The summary of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n")[0] if thing is not None else ""


def loops_page() -> str:
    """Procedures of several stages, with their options."""
    from accordance.training import loop_kinds

    sections = []
    for name, made in loop_kinds().items():
        rows = [
            [
                f"`loop.{key}`",
                f"`{field.get_default(call_default_factory=True)!r}`",
                kind(field.annotation),
                field.description or "",
            ]
            for key, field in made.model_fields.items()
        ]
        needs = "It samples: name a `reward`." if made.needs_reward else ""
        sections += [
            f"## `{name}`",
            inspect.getdoc(made) or "",
            needs,
            table(["option", "default", "type", "what it does"], rows) if rows else "",
        ]
    return page(
        "Loops",
        "What `loop=` takes, in Python, on the command line (`--loop NAME --loop.option value`) and in recipes: "
        "procedures of several stages, each a training run of its own with its checkpoints under `stages/` in the "
        "run's folder. A loop that was stopped goes on with `--resume`: what is done is not done again. Every other "
        "option of a run applies to each of its stages.",
        *sections,
    )


def formats_page() -> str:
    """The formats that `load_records` reads."""
    from accordance.feedback import FORMATS

    rows = []
    for form in FORMATS.values():
        columns = "<br>or ".join(", ".join(f"`{c}`" for c in sorted(needed)) for needed in form.columns)
        rows.append([f"`{form.name}`", columns, form.summary])
    return page(
        "Formats",
        "`load_records` reads json, jsonl, csv and parquet files (each perhaps gzipped), folders of them, datasets "
        "of the hub, `datasets` tables and plain iterables. The format is found by the columns and the values of the "
        "first rows; `format=` (on the command line `--format`) overrides that.",
        table(["format", "columns it needs", "what it holds"], rows),
        "Whatever the source, the result is `Records` with one schema, and an account of every row: read, kept, or "
        "dropped for which reason.",
    )


def systems_page() -> str:
    """The catalogue of published systems."""
    from accordance.core.catalogue import systems

    rows = [
        [s.id, s.name, f"`{s.room}`", f"`{s.where}`", f"`{s.proof}`", paper(s.paper), s.summary]
        for s in systems()
    ]
    return page(
        "Published systems",
        f"{len(rows)} published systems are in the house. Each stands beside its code under `@system`, and has a "
        "proof: a test of the publication's own claim at laboratory scale. `accord systems` prints the same table.",
        table(["id", "name", "room", "where", "proof", "paper", "what it is"], rows),
    )


def options_page() -> str:
    """The fields of TrainingConfig."""
    from accordance.training import TrainingConfig

    rows = []
    for name, field in TrainingConfig.model_fields.items():
        rows.append([f"`{name}`", f"`{field.default!r}`", kind(field.annotation), field.description or ""])
    return page(
        "Training options",
        "The options of `align` and `train`, of `accord align` and of recipes. Besides these, every argument of "
        "`transformers.TrainingArguments` that has an effect, and the options of the "
        "[objective](objectives.md). An unknown name is refused with the nearest known one; so is an option "
        "that would have no effect.",
        table(["option", "default", "type", "what it does"], rows),
    )


def has_command() -> bool:
    """Whether the command line is there."""
    return importlib.util.find_spec("accordance.app") is not None and (
        importlib.util.find_spec("accordance.app.cli") is not None
    )


def command_page() -> str:
    """Each command with its arguments, options and examples."""
    import typer.main

    command = typer.main.get_command(importlib.import_module("accordance.app.cli").app)
    return page("The command", *command_sections("accord", command, level=2))


def command_sections(path: str, command: Any, level: int) -> Iterable[str]:
    """The sections of a command and of those below it."""
    commands = getattr(command, "commands", None)
    text, examples = (inspect.cleandoc(part or "") for part in (command.help, command.epilog))
    if commands:
        if text:
            yield text
        for name, each in commands.items():
            if not each.hidden:
                yield f"{'#' * level} `{path} {name}`"
                yield from command_sections(f"{path} {name}", each, level + 1)
        return
    yield text
    rows = []
    for each in command.params:
        if getattr(each, "hidden", False) or "--help" in each.opts:
            continue
        flags = (
            each.opts + each.secondary_opts
            if each.opts[0].startswith("-")
            else [each.metavar or each.name.upper()]
        )
        shown = "" if each.default is None or callable(each.default) else f"`{each.default}`"
        rows.append([", ".join(f"`{flag}`" for flag in flags), shown, getattr(each, "help", "") or ""])
    if rows:
        yield table(["argument or option", "default", "what it does"], rows)
    if examples:
        yield examples


def api_pages() -> dict[str, str]:
    """For each room its docstring and its public names."""
    import accordance

    pages = {"accordance": api_page("accordance", elsewhere=True)}
    for module in pkgutil.iter_modules(accordance.__path__):
        if module.ispkg and getattr(importlib.import_module(f"accordance.{module.name}"), "__all__", None):
            pages[module.name] = api_page(f"accordance.{module.name}")
    return pages


def api_page(name: str, *, elsewhere: bool = False) -> str:
    """A page in reStructuredText. `elsewhere`: the names have their entries on other pages."""
    module = importlib.import_module(name)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", ""]
    for public in sorted(module.__all__, key=str.lower):
        thing = getattr(module, public)
        if public.startswith("__"):
            continue
        if inspect.ismodule(thing):
            lines += [f".. automodule:: {thing.__name__}", "   :members:", ""]
            continue
        if inspect.isclass(thing):
            lines += [f".. autoclass:: {name}.{public}", "   :members:", "   :show-inheritance:"]
        elif callable(thing):
            lines += [f".. autofunction:: {name}.{public}"]
        else:
            # Not autodata: for a constant it shows the docstring of its type, and its value may hold addresses.
            lines += [f".. py:data:: {name}.{public}", f"   :type: {type(thing).__name__}"]
        lines += ["   :no-index:"] if elsewhere else []
        lines += ["", *(f"   {line}" for line in constant_doc(name, public, thing)), ""]
    return "\n".join(lines)


def constant_doc(room: str, name: str, thing: object) -> list[str]:
    """What the ``#:`` comment above a constant says, in whatever module of the room it stands."""
    if inspect.isclass(thing) or callable(thing):
        return []
    for module in [m for m in sorted(sys.modules) if m == room or m.startswith(room + ".")]:
        if vars(sys.modules[module]).get(name) is thing:
            docs = ModuleAnalyzer.for_module(module).find_attr_docs()
            if ("", name) in docs:
                return docs["", name]
    return []


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def kind(annotation: Any) -> str:
    """An annotation as people write it."""
    return f"`{stringify_annotation(annotation, 'smart').replace('~', '').replace('typing.', '')}`"


def paper(reference: str) -> str:
    """A reference, linked where it is on arXiv."""
    number = reference.removeprefix("arXiv:")
    return reference if number == reference else f"[{reference}](https://arxiv.org/abs/{number})"


def page(title: str, *parts: str) -> str:
    """A Markdown page."""
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"
