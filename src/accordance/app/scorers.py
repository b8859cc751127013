"""Scorers by name: a reward function of the user's own, or the lab's simulated people."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accordance.core.errors import ConfigError
from accordance.core.judge import Judge, JudgePairScorer
from accordance.core.named import named_object
from accordance.core.policy import Prompt
from accordance.core.policy_judge import PolicyJudge
from accordance.core.scorer import FunctionScorer, columns_for
from accordance.models import InspectPolicy

POPULATION, CYCLE = "population", "cycle"


def resolve_scorer(given: Any) -> tuple[Any, Mapping[str, Any] | None]:
    """A scorer, and scorers by group where it knows groups.

    Args:
        given: None; a Scorer, a PairScorer or a mapping from group to these; a reward function
            ``f(prompts, completions) -> list[float | None]`` (also async), which gets texts; a Judge, which then
            compares; ``module:name`` or ``file.py:name`` of any of these; ``inspect:provider/model``, a language model
            as the judge; ``population``, the lab's people; ``cycle``, people whose majorities run in a circle (a
            PairScorer); or a scene of the lab, such as ``lab:steps``.

    Raises:
        ConfigError: nothing of that name, or no scorer.
    """
    if given is None or isinstance(given, Mapping) or _scores(given):
        return given, None
    if given == POPULATION:
        from accordance.lab import PopulationScorer, default_population

        people = default_population()
        return PopulationScorer(people), {group: PopulationScorer(people, group) for group in people.groups}
    if given == CYCLE:
        from accordance.lab import CycleScorer

        return CycleScorer(), None
    if isinstance(given, str) and given.startswith("lab:"):
        from accordance.lab.scenes import scene

        return scene(given), None
    if isinstance(given, str) and given.startswith("inspect:"):
        given = PolicyJudge(InspectPolicy(given.removeprefix("inspect:")))
    found = _named(given) if isinstance(given, str) else given
    if _scores(found):
        return found, None
    if isinstance(found, Judge):
        return JudgePairScorer(found), None
    if callable(found):
        return reward_function(found, given if isinstance(given, str) else ""), None
    raise ConfigError(
        "this is no scorer",
        where="scorer",
        found=type(given).__name__,
        expected="an object with score() or prob(), a reward function, 'module:function', 'population', 'cycle' or "
        "a scene of the lab",
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
        wanted = columns_for(function, columns)
        scores = function(prompts=texts, completions=list(completions), **wanted)
        return list(asyncio.run(_value(scores)) if inspect.isawaitable(scores) else scores)

    return FunctionScorer(call, name or getattr(function, "__name__", "reward function"))


async def _value(scores: Any) -> Any:
    return await scores


def _scores(given: Any) -> bool:
    return not isinstance(given, type) and any(
        callable(getattr(given, name, None)) for name in ("score", "prob")
    )


def _named(name: str) -> Any:
    expected = "a scorer: module:function, file.py:function, population, cycle, or a scene such as lab:steps"
    found = named_object(name, where="scorer", expected=expected)
    if not callable(found) and not _scores(found) and not isinstance(found, Judge):
        raise ConfigError("this is no function and no scorer", where="scorer", found=name)
    return found
