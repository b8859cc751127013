"""A recipe: everything an alignment run is made from, as one YAML file of names and values.

It is read from a file, from Python's keywords and from the command line, in this order; validated as a whole;
and saved with the run, every default that matters written out, together with what it was made with.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import accordance
from accordance.app.folder import RECIPE
from accordance.app.options import value_of
from accordance.core.errors import ConfigError
from accordance.core.report import write_whole
from accordance.objectives import parse_objective
from accordance.training import TrainingConfig, read_recipe

#: The part of a saved recipe that says what it was made with; no option.
PROVENANCE = "made_with"
#: How records, models and scorers that are objects stand in a saved recipe.
IN_MEMORY = "in memory: "

_ALIASES = {
    "model_name_or_path": "model",
    "model_name": "model",
    "data": "records",
    "dataset": "records",
    "dataset_name": "records",
    "resume": "resume_from_checkpoint",
    "overwrite": "overwrite_output_dir",
}


class Inputs(BaseModel):
    """What a run takes beside the options of its training."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(description="checkpoint: a path, a hub name, or lab:base")
    records: str = Field(description="feedback: a path, a hub name, or lab:demo")
    format: str | None = Field(None, description="of the feedback; by default found by its columns")
    split: str | None = Field(None, description="of a hub data set or folder")
    limit: int | None = Field(None, ge=1, description="read at most so many records")
    on_error: Literal["raise", "skip"] = Field("raise", description="whether malformed rows stop the run")
    held_out: float | str = Field(
        0.1, description="share of the prompts, number of records, or a source of others; 0 for none"
    )
    scorer: str | None = Field(
        None, description="who compares answers: module:function, or population for lab data"
    )
    samples: int = Field(64, ge=0, description="held-out prompts answered before and after")
    max_new_tokens: int = Field(256, ge=1, description="where these answers are cut")
    chat_template: str | None = Field(None, description="a template, a path to one, plain or chatml")
    eos_token: str | None = Field(None, description="the token that ends a turn")
    dtype: str = Field("auto", description="of the weights; auto for the checkpoint's own")
    device_map: str | None = Field(None, description="as transformers has it")
    load_in_4bit: bool = Field(False, description="quantise the weights (extra quant)")
    load_in_8bit: bool = Field(False, description="quantise the weights (extra quant)")
    revision: str | None = Field(None, description="of a model on the hub")
    trust_remote_code: bool = Field(False, description="run code that comes with the checkpoint")


@dataclass(frozen=True)
class Recipe:
    """Inputs and training options, validated.

    Attributes:
        inputs: which model, which records, what is held out, how it is evaluated.
        config: how it is trained.
        source: the file that it was read from, if any.
        made_with: what a saved recipe says that it was made with.
    """

    inputs: Inputs
    config: TrainingConfig
    source: str | None = None
    made_with: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        options: Mapping[str, Any],
        *,
        source: str | None = None,
        made_with: Mapping[str, Any] | None = None,
    ) -> Recipe:
        """A recipe from options by name.

        Raises:
            ConfigError: a name is unknown (with the nearest one), a value is out of range, an option would have
                no effect, or model or records are missing.
        """
        where = source or "options"
        given = _canonical(options, where)
        known = set(Inputs.model_fields)
        if given.get("objective") is not None:  # what it misnames is said before its options are
            parse_objective(str(given["objective"]))
        also = frozenset(known | set(_ALIASES))
        training = {key: value for key, value in given.items() if key not in known}
        config = TrainingConfig.of(training, where=where, also=also)
        try:
            inputs = Inputs(**{key: value for key, value in given.items() if key in known})
        except ValidationError as error:
            raise _invalid(error, where) from error
        _check_effects(inputs, config, given, where)
        config.build_objective()
        return cls(inputs, config, source, made_with)

    @classmethod
    def read(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe in a file, with some options changed.

        A saved recipe that is read from its own run's folder goes to the next free folder beside it, unless
        `changes` name a folder, or go on with the run or replace it.
        """
        options = {key: value_of(value) for key, value in read_recipe(path).items()}
        made_with = options.pop(PROVENANCE, None)
        changes = _canonical(changes or {}, "options")
        options = _canonical(options, str(path)) | changes
        own = made_with and Path(options.get("output_dir", "")).resolve() == Path(path).resolve().parent
        if own and not changes.keys() & {"output_dir", "resume_from_checkpoint", "overwrite_output_dir"}:
            options["output_dir"] = _next_free(options["output_dir"])
        return cls.of(options, source=str(path), made_with=made_with)

    def options(self) -> dict[str, Any]:
        """Every option that has an effect, with its value, resolved; `Recipe.of` takes them back."""
        inputs = {key: value for key, value in self.inputs.model_dump().items() if value not in (None, False)}
        if not self.inputs.samples:
            inputs.pop("max_new_tokens")
        return inputs | resolved(self.config)

    def save(self, folder: str | Path, made_with: Mapping[str, Any]) -> Path:
        """Write `recipe.yaml`; it is there whole or not at all."""
        path = Path(folder) / RECIPE
        body = yaml.safe_dump(
            {**self.options(), PROVENANCE: dict(made_with)}, sort_keys=False, allow_unicode=True, width=110
        )
        head = f"# An alignment run. `accord align --recipe {path}` runs it again.\n"
        write_whole({path: head + body})
        return path


def resolved(config: TrainingConfig) -> dict[str, Any]:
    """The training options with the defaults that matter; those that would have no effect are left out."""
    options = config.model_dump(exclude={"resume_from_checkpoint", "overwrite_output_dir"})
    objective = config.build_objective()
    options["learning_rate"] = config.rate
    gone = config.without_effect()
    plain = {name: value for name, value in objective.options.items() if "." not in name}
    kept = {key: value for key, value in options.items() if key not in gone and value is not None}
    return kept | plain


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"accordance": accordance.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate", "peft", "datasets"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Options that differ between two recipes, as ``name: old -> new``."""
    names = (before.keys() | after.keys()) - {PROVENANCE, "output_dir", "resume_from_checkpoint"}
    return [
        f"{name}: {before.get(name, 'unset')} -> {after.get(name, 'unset')}"
        for name in sorted(names)
        if before.get(name) != after.get(name)
    ]


def _canonical(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in options.items():
        key = str(name).replace("-", "_")
        key = _ALIASES.get(key, key)
        if key in found:
            raise ConfigError(f"{key} is given twice", where=where, found=f"{found[key]}, {value}")
        found[key] = value
    return found


def _check_effects(inputs: Inputs, config: TrainingConfig, given: Mapping[str, Any], where: str) -> None:
    """Refuse options that would do nothing, and combinations that can't work."""
    if (inputs.load_in_4bit or inputs.load_in_8bit) and not config.use_peft:
        raise ConfigError(
            "quantised weights can't be trained themselves",
            where=where,
            found="load_in_4bit or load_in_8bit without use_peft",
            remedy="set use_peft=True (--use-peft) to train an adapter on them",
        )
    for name in ("scorer", "max_new_tokens"):
        if given.get(name) is not None and inputs.samples == 0:
            raise ConfigError(f"{name} has no effect with samples=0", where=where, remedy=f"leave {name} out")
    if inputs.held_out == 0:
        for name in ("scorer", "samples", "max_new_tokens"):
            if given.get(name):
                raise ConfigError(
                    f"{name} has no effect with held_out=0: nothing is evaluated",
                    where=where,
                    found=given[name],
                )
        if config.eval_strategy != "no":
            raise ConfigError("eval_strategy has no effect with held_out=0", where=where)


def _invalid(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return ConfigError(
            f"no {name} is given",
            where=where,
            expected=Inputs.model_fields[name].description,
            remedy=f"--{name} on the command line, or {name}: in the recipe",
        )
    return ConfigError(f"{name}: {first['msg']}", where=where, found=first.get("input"))


def _next_free(folder: str) -> str:
    number = 2
    while Path(f"{folder}-{number}").exists():
        number += 1
    return f"{folder}-{number}"
