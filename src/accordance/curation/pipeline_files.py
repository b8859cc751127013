"""A curation on disk: its recipe, and its folder (records, account, what it takes to undo it, broken rows)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from accordance.core import jsonable
from accordance.core.errors import ConfigError, DataError, nearest
from accordance.core.record import Account, Records
from accordance.core.report import write_whole
from accordance.curation.pipeline import Pipeline
from accordance.curation.pipeline_account import Curated, Touch, undone
from accordance.feedback import load_records, save_records
from accordance.feedback.aside import save_set_aside

RECORDS, ACCOUNT, CURATION, RECIPE = "records.jsonl", "account.jsonl", "curation.json", "recipe.yaml"
_KEYS = ("steps",)


def read_pipeline(path: str | Path) -> Pipeline:
    """The pipeline in a recipe: a YAML file with a list ``steps``, each a name or a name with its options.

    Raises:
        ConfigError: it is not there, not YAML, or holds an unknown key, step or option.
    """
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("the recipe can't be read", where=str(path), found=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("the recipe is not YAML", where=str(path), found=str(error)) from error
    if not isinstance(found, Mapping):
        raise ConfigError("a recipe is a mapping", where=str(path), found=found, expected="steps: [...]")
    for key in found:
        if key not in _KEYS:
            close = nearest(str(key), _KEYS)
            remedy = f"did you mean {close!r}?" if close else "options belong to a step"
            raise ConfigError(f"unknown key {key!r}", where=str(path), expected="steps", remedy=remedy)
    steps = found.get("steps")
    if not isinstance(steps, list):
        raise ConfigError("steps is a list", where=str(path), found=steps)
    return Pipeline.of(*steps, where=str(path))


def recipe_text(pipeline: Pipeline) -> str:
    """The pipeline as a recipe."""
    steps = [{each.name: options} if (options := each.options()) else each.name for each in pipeline.steps]
    return yaml.safe_dump({"steps": steps}, sort_keys=False, allow_unicode=True, width=110)


def save_pipeline(pipeline: Pipeline, path: str | Path) -> Path:
    """Write a recipe that `read_pipeline` gives back."""
    write_whole({Path(path): recipe_text(pipeline)})
    return Path(path)


def save_curated(curated: Curated, folder: str | Path, pipeline: Pipeline) -> dict[str, Path]:
    """Write a curation into a folder, whole or not at all per file.

    Args:
        curated: what came of it.
        folder: made where it is not there.
        pipeline: what was done.

    Returns:
        The files by what they are: records, account, curation, recipe, and set_aside (the rows of the source that
        could not be used) where there are any.

    Raises:
        DataError: the folder can't be written to.
    """
    folder = Path(folder)
    files = {"records": folder / RECORDS, "account": folder / ACCOUNT}
    files |= {"curation": folder / CURATION, "recipe": folder / RECIPE}
    original = curated.original.account
    about = {
        "source": curated.original.source,
        "size": len(curated.original),
        "fingerprint_before": curated.original.fingerprint(),
        "fingerprint_after": curated.records.fingerprint(),
        "rows": _runs(curated.rows),
        "steps": [done.to_dict() for done in curated.steps],
        "account": {"read": original.read, "dropped": dict(original.dropped), "rows": original.rows,
                    "notes": dict(original.notes)},
    }  # fmt: skip
    write_whole(
        {
            files["account"]: "".join(_line(touch.to_dict()) for touch in curated.touches),
            files["curation"]: json.dumps(_plain(about), ensure_ascii=False, indent=1),
            files["recipe"]: recipe_text(pipeline),
        }
    )
    if (aside := save_set_aside(original, folder)) is not None:
        files["set_aside"] = aside
    save_records(curated.records, files["records"])
    return files


def undo_folder(folder: str | Path) -> Records:
    """The records that went into a saved curation, from the curated ones and the account.

    Raises:
        DataError: files are missing or were changed, so that the input can't be given back exactly.
    """
    folder = Path(folder)
    for name in (RECORDS, ACCOUNT, CURATION):
        if not (folder / name).is_file():
            raise DataError(
                "this folder holds no curation",
                where=str(folder),
                expected=f"{RECORDS}, {ACCOUNT} and {CURATION}, as `accord curate --output-dir` writes them",
                found=f"no {name}",
            )
    try:
        about = json.loads((folder / CURATION).read_text(encoding="utf-8"))
        with open(folder / ACCOUNT, encoding="utf-8") as file:
            touches = [Touch(**json.loads(line)) for line in file]
        held = about["account"]
        account = Account(held["read"], Counter(held["dropped"]), held["rows"], Counter(held["notes"]))
        rows = [row for start, stop in about["rows"] for row in range(start, stop)]
        before, after, size, source = (
            about[key] for key in ("fingerprint_before", "fingerprint_after", "size", "source")
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError("the account can't be read", where=str(folder), found=str(error)) from error
    empty = not (folder / RECORDS).stat().st_size
    records = Records.of([]) if empty else load_records(folder / RECORDS, format="accordance")
    if records.fingerprint() != after:
        raise DataError(
            "the curated records were changed since",
            where=str(folder / RECORDS),
            found="another fingerprint than when they were written",
            remedy="undo a copy that was not edited, or run the recipe on the source again",
        )
    original = undone(records, touches, rows, size, account)
    if original.fingerprint() != before:
        raise DataError(
            "the account was changed since: the input does not come back", where=str(folder / ACCOUNT)
        )
    return Records(original.dataset, account, source)


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(_plain(values), ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    return jsonable.plain(value, "account", lambda _: None)


def _runs(rows: Sequence[int]) -> list[list[int]]:
    """Row numbers as [start, stop) of runs that count up by one."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1][1] = row + 1
        else:
            runs.append([row, row + 1])
    return runs
