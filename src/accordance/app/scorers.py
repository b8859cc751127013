"""Scorers by name: a reward function of the user's own, or the lab's simulated people."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accordance.core.errors import ConfigError
from accordance.core.policy import Prompt
from accordance.core.scorer import FunctionScorer

POPULATION = "population"


def resolve_scorer(given: Any) -> tuple[Any, Mapping[str, Any] | None]:
    """A scorer, and scorers by group where it knows groups.

    Args:
        given: None; a Scorer, a PairScorer or a mapping from group to these; a reward function
            ``f(prompts, completions) -> list[float | None]`` (also async), which gets texts; ``module:function``
            or ``file.py:function``; or ``population``, the lab's people.

    Raises:
        ConfigError: nothing of that name, or no scorer.
    """
    if given is None or isinstance(given, Mapping) or _scores(given):
        return given, None
    if given == POPULATION:
        from accordance.lab import PopulationScorer, default_population

        people = default_population()
        return PopulationScorer(people), {group: PopulationScorer(people, group) for group in people.groups}
    if isinstance(given, str):
        found = _named(given)
        return (found if _scores(found) else reward_function(found, given)), None
    if callable(given):
        return reward_function(given), None
    raise ConfigError(
        "this is no scorer",
        where="scorer",
        found=type(given).__name__,
        expected="an object with score() or prob(), a reward function, 'module:function', or 'population'",
    )


def resolve_rewards(given: Any) -> list[Any]:
    """The scorers that a reward names: one, or several in a list; empty for None.

    Raises:
        ConfigError: see `resolve_scorer`; or a mapping of groups, which is no reward.
    """
    several = given if isinstance(given, list | tuple) else [given] if given is not None else []
    found = [resolve_scorer(one)[0] for one in several]
    if any(isinstance(one, Mapping) for one in found):
        raise ConfigError("a reward is one scorer, or a list of several", where="reward", found="a mapping")
    return found


def reward_function(function: Callable[..., Any], name: str = "") -> FunctionScorer:
    """A Scorer from a reward function; it gets prompts and completions as texts.

    A prompt of several turns is one text, each turn after its role.
    """
    from accordance.evaluation.saving import prompt_text

    def call(*, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any) -> list[float | None]:
        texts = [prompt if isinstance(prompt, str) else prompt_text(prompt) for prompt in prompts]
        scores = function(prompts=texts, completions=list(completions), **columns)
        return list(asyncio.run(_value(scores)) if inspect.isawaitable(scores) else scores)

    return FunctionScorer(call, name or getattr(function, "__name__", "reward function"))


async def _value(scores: Any) -> Any:
    return await scores


def _scores(given: Any) -> bool:
    return not isinstance(given, type) and any(
        callable(getattr(given, name, None)) for name in ("score", "prob")
    )


def _named(name: str) -> Any:
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError(
            "a scorer is named module:function",
            where="scorer",
            found=name,
            expected="module:function, file.py:function, or population",
        )
    try:
        module = _file(module_name) if module_name.endswith(".py") else _module(module_name)
    except Exception as error:  # the user's own module may fail in any way
        raise ConfigError(
            f"{module_name} can't be imported: {type(error).__name__}: {error}", where="scorer", found=name
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(
            f"{module_name} has no {attribute!r}",
            where="scorer",
            expected=f"one of: {', '.join(there) or 'none'}",
        )
    if isinstance(found, type):
        found = found()
    if not callable(found) and not _scores(found):
        raise ConfigError("this is no function and no scorer", where="scorer", found=name)
    return found


def _module(name: str) -> Any:
    """Import from the folder in which the command runs, too, as `python -m` does."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _file(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
