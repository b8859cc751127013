"""Options that commands share, and options that are passed on by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import yaml

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; the rest goes to stderr.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Let libraries speak, and show where errors come from.")
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "--model-name-or-path",
        "--model_name_or_path",
        help="Checkpoint: a folder, a hub name, or `lab:base`, the model in the package.",
    ),
]
RecordsSource = Annotated[
    str,
    typer.Option(
        "--records",
        "--data",
        help="Feedback: a json, jsonl, csv or parquet file (or .gz), a folder, a hub name, or `lab:demo`.",
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", help="Format of the feedback; by default found by its columns.")
]
Split = Annotated[str | None, typer.Option("--split", help="Which split of a hub data set or folder.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Read at most so many records.")]
OnError = Annotated[
    str,
    typer.Option(
        "--on-error",
        "--on_error",
        help="`skip` sets malformed rows aside (`set_aside.jsonl` in the output folder), `raise` stops at the first.",
    ),
]
Template = Annotated[
    str | None,
    typer.Option("--chat-template", "--chat_template", help="A template, a file, or `plain` or `chatml`."),
]
EndToken = Annotated[str | None, typer.Option("--eos-token", "--eos_token", help="The token that ends a turn.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="Such as float32 or bfloat16; else the checkpoint's.")
]
FourBit = Annotated[bool, typer.Option("--load-in-4bit", "--load_in_4bit", help="Quantise (extra `quant`).")]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        help="Who is asking, of a model trained with --users; by default, and if unknown, the generic user.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="The only source of randomness.")]

#: Words that stand for something else.
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def value_of(text: Any) -> Any:
    """A value from how it is written: numbers (also ``1e-5``), true, false, null, lists and mappings, else text."""
    if not isinstance(text, str):
        return text
    word = text.strip()
    if _NUMBER.fullmatch(word):
        return int(word) if re.fullmatch(r"[-+]?\d+", word) else float(word)
    if word in _WORDS:
        return _WORDS[word]
    if not word.startswith(("[", "{")):
        return text  # YAML would take "no" for False and "a: b" for a mapping
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return text


def named_options(args: Sequence[str], assignments: Sequence[str] = ()) -> dict[str, Any]:
    """Options by name from ``--some-name value``, ``--some_name=value``, ``--flag``, ``--no-flag``, ``name=value``.

    Args:
        args: what the command line holds beyond the declared options.
        assignments: ``name=value`` each, from ``--set``.

    Raises:
        ConfigError: something that is no option, an assignment without ``=``, or one name twice.
    """
    from accordance.core.errors import ConfigError

    found: dict[str, Any] = {}

    def put(name: str, value: Any) -> None:
        key = name.lstrip("-").replace("-", "_")
        if key in found:
            raise ConfigError(f"{key} is given twice", where="command line", found=f"{found[key]}, {value}")
        found[key] = value_of(value)

    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError("--set takes name=value", where="command line", found=assignment)
        put(name.strip(), value)
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise ConfigError(
                "this is no option",
                where="command line",
                found=word,
                expected="--name value",
                remedy="quote values that hold spaces; feedback is named by --records, a checkpoint by --model",
            )
        name, equals, value = word.partition("=")
        if equals:
            put(name, value)
        elif rest and not rest[0].startswith("--"):
            put(name, rest.pop(0))
        elif name.startswith("--no-"):
            put(name[5:], False)
        else:
            put(name, True)
    return found
