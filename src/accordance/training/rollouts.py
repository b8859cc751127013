"""Rollouts: a policy's own responses to prompts, scored, as the groups that an objective learns from.

The one source for everything that learns online: sample, score, group. Policy gradients read the lists as they are;
pairwise objectives read them through `accordance.objectives.over_lists`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion
from accordance.core.record import Record, Records, Response
from accordance.core.scorer import PairScorer, Scorer
from accordance.core.views import demonstrations, rankings, which_attribute
from accordance.models import Encoder, Group, LocalPolicy
from accordance.rewards import Procedure, calibrated, for_procedure
from accordance.training.examples import Example, Examples
from accordance.training.trajectories import Environment, play


class RolloutOptions(BaseModel):
    """How a policy learns from what it samples while it trains; the names are the ecosystem's."""

    reward: str | list[str] | None = Field(
        None, description="who scores what is sampled (as scorer): learn online; several are added up"
    )
    reward_weights: list[float] | None = Field(None, description="of several rewards; by default 1 each")
    win_rates: bool = Field(
        False, description="score an answer by its win rate against the others to its prompt"
    )
    num_generations: int = Field(8, ge=2, description="answers sampled to each prompt")
    max_completion_length: int = Field(256, ge=1, description="tokens at which they are cut")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of sampling")
    num_iterations: int = Field(1, ge=1, description="passes over each set of samples")
    steps_per_generation: int = Field(1, ge=1, description="optimiser steps that share one round of sampling")
    pairing: Literal["extremes", "all"] = Field(
        "extremes", description="pairs for a pairwise objective: best and worst of each prompt, or all"
    )
    missing_eos_penalty: float | None = Field(
        None, gt=0, description="taken off the reward of an answer that was cut"
    )
    extragradient: bool = Field(
        False,
        description="sample from where a plain step leads, then step from where it began: two steps make an update",
    )
    ref_model_sync_steps: int | None = Field(
        None, ge=1, description="the reference becomes the policy every so many steps; by default never"
    )
    history_steps: int | None = Field(
        None,
        ge=1,
        description="steps between the past policies that mnpo and inpo look back to; by default one round",
    )
    reference_baseline: bool = Field(
        False, description="a reward is what an answer scores above one that the policy gave before training"
    )
    reward_calibration: int | None = Field(
        None,
        ge=2,
        description="answers of the start policy to each prompt; a reward becomes the share of them that are worse",
    )
    reward_for: Procedure = Field(
        "one",
        description="how answers are picked once the policy is used: rewards are bent for it (calibrated ones)",
    )
    reward_sharpness: float = Field(
        10.0, gt=0, description="how much the end of the range counts that it bends to"
    )
    ptx_coef: float = Field(
        0.0, ge=0, description="weight of the likelihood of demonstrations, beside what is learned from samples"
    )
    ptx_data: str | None = Field(None, description="where they come from; by default the records' own")


ROLLOUT_OPTIONS = frozenset(RolloutOptions.model_fields) - {"reward"}


@dataclass(frozen=True)
class Rollout:
    """What a policy wrote to one prompt, and what it was worth.

    Attributes:
        record: whose prompt it is.
        completions: K responses.
        scores: one reward per response, penalties included, shape [K].
        answer: index of the record's own answer among the completions, where an objective asks for it.
    """

    record: Record
    completions: tuple[Completion, ...]
    scores: np.ndarray
    answer: int | None = None


class RolloutSource:
    """Samples, scores and groups.

    Args:
        policy: who writes.
        rewards: who scores; a `PairScorer` scores by win rates within the group. In one that is an `Environment`,
            too, what is sampled is played.
        options: how.
        answers: the reference answer of each record by its task (`reference_answers`), where the objective compares
            with one.

    Raises:
        ConfigError: no reward, a weight too many or too few, or several environments.
    """

    def __init__(
        self,
        policy: LocalPolicy,
        rewards: Sequence[Scorer | PairScorer],
        options: RolloutOptions,
        answers: dict[Any, Response] | None = None,
    ) -> None:
        self.policy, self.rewards, self.options, self.answers = policy, list(rewards), options, answers
        weights = options.reward_weights or [1.0] * len(self.rewards)
        if not self.rewards:
            raise ConfigError("nobody scores what is sampled", where="reward", remedy="name a reward: --reward")
        if len(weights) != len(self.rewards):
            raise ConfigError(
                "there are not as many weights as rewards",
                where="reward_weights",
                found=f"{len(weights)} weights, {len(self.rewards)} rewards",
            )
        self.weights = weights
        self.baselines: dict[Any, np.ndarray] | None = None
        environments = [reward for reward in self.rewards if isinstance(reward, Environment)]
        if len(environments) > 1:
            raise ConfigError("two of the rewards are environments", where="reward")
        self.environment = environments[0] if environments else None
        for reward in self.rewards:
            if options.win_rates and not hasattr(reward, "prob") and not hasattr(reward, "score"):
                raise ConfigError("this is no scorer", where="reward", found=type(reward).__name__)

    def draw(self, prompts: Sequence[tuple[Record, Sequence[int]]], seed: int) -> list[Rollout]:
        """One rollout for each prompt (its record and token ids); the same seed draws the same."""
        records = [record for record, _ in prompts]
        groups = self._sample(prompts, self.options.num_generations, seed)
        places: list[int | None] = [None] * len(groups)
        if self.answers is not None:
            places = [len(group) for group in groups]
            groups = [
                (*group, self._own_answer(record, list(ids))) for group, (record, ids) in zip(groups, prompts)
            ]
        scores = self._score(records, groups)
        if self.baselines is not None:
            scores = self._against(scores, np.stack([self.baselines[_task(record)] for record in records]))
        return [Rollout(*row) for row in zip(records, groups, scores, places)]

    def fit_baselines(self, prompts: Sequence[tuple[Record, Sequence[int]]], seed: int) -> None:
        """What the policy as it stands scores on each prompt, for all later scores to be compared with.

        That is one answer to each, or as many as `reward_calibration` says.

        Raises:
            ConfigError: a reward compares answers, so that one alone has no score.
        """
        if self.options.win_rates or not all(hasattr(reward, "score") for reward in self.rewards):
            raise ConfigError(
                "a baseline needs a reward that scores one answer",
                where="reward_calibration" if self.options.reward_calibration else "reference_baseline",
                found="win rates within the group",
                remedy="leave one of the two out",
            )
        found: dict[Any, np.ndarray] = {}
        for start in range(0, len(prompts), 64):
            some = prompts[start : start + 64]
            records = [record for record, _ in some]
            scores = self._score(
                records, self._sample(some, self.options.reward_calibration or 1, seed + start)
            )
            found |= dict(zip(map(_task, records), scores))
        self.baselines = found

    def _against(self, scores: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Scores compared with those before training: above one of them, or their rank among several, bent for use."""
        if self.options.reward_calibration is None:
            return scores - before
        return for_procedure(calibrated(scores, before), self.options.reward_for, self.options.reward_sharpness)

    def _sample(
        self, prompts: Sequence[tuple[Record, Sequence[int]]], n: int, seed: int
    ) -> list[tuple[Completion, ...]]:
        options = self.options
        sampling: dict[str, Any] = {
            "n": n,
            "max_new_tokens": options.max_completion_length,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": seed,
        }
        if self.environment is not None:
            drawn = play(self.policy, self.environment, prompts, **sampling)
        else:
            drawn = self.policy.sample_ids([ids for _, ids in prompts], **sampling)
        return [tuple(completions) for completions in drawn]

    def _score(self, records: Sequence[Record], groups: Sequence[Sequence[Completion]]) -> np.ndarray:
        """The weighted sum of the rewards, penalties taken off, shape [groups, K]."""
        scores = sum(
            weight * group_scores(reward, records, groups, win_rates=self.options.win_rates)
            for weight, reward in zip(self.weights, self.rewards)
        )
        assert isinstance(scores, np.ndarray)
        if self.options.missing_eos_penalty is not None:
            cut = np.array([[not completion.finished for completion in group] for group in groups])
            scores = scores - self.options.missing_eos_penalty * cut
        return scores

    def _own_answer(self, record: Record, prompt: list[int]) -> Completion:
        assert self.answers is not None
        response = self.answers[_task(record)]
        ids = self.policy.encode(record.prompt, (response,), record.extras).response_ids[0]
        return Completion(response.text, True, tuple(ids), (math.nan,) * len(ids))


def group_scores(
    reward: Scorer | PairScorer,
    records: Sequence[Record],
    groups: Sequence[Sequence[Completion]],
    *,
    win_rates: bool = False,
) -> np.ndarray:
    """What each response of each group is worth.

    Args:
        reward: scores one by one, or compares two: then a response is worth its mean probability to be
            preferred to another of its group, both orders averaged.
        records: the prompts, with the columns that a reward function may ask for in their extras.
        groups: K responses each.
        win_rates: compare even where the reward could score one by one.

    Returns:
        Shape [groups, K].

    Raises:
        DataError: a reward has no opinion (None, or no number) where all others have one.
    """
    if win_rates or not hasattr(reward, "score"):
        return _win_rates(reward, records, groups)
    each = [(record, completion) for record, group in zip(records, groups) for completion in group]
    columns = _columns([record for record, _ in each])
    values = reward.score(  # type: ignore[union-attr]
        [record.prompt for record, _ in each], [completion.text for _, completion in each], **columns
    )
    _check_count(reward, len(values), len(each))
    bad = next((i for i, v in enumerate(values) if v is None or not math.isfinite(v)), None)
    if bad is not None:
        record, completion = each[bad]
        raise DataError(
            f"the reward {_name(reward)} gives no number",
            where=record.origin or record.id,
            found=f"{values[bad]} for {completion.text[:80]!r}",
            expected="a finite number for every response",
        )
    return np.array(values, dtype=float).reshape(len(groups), -1)


def _win_rates(reward: Any, records: Sequence[Record], groups: Sequence[Sequence[Completion]]) -> np.ndarray:
    width = len(groups[0])
    pairs = list(combinations(range(width), 2))
    asked = [(record, group, i, j) for record, group in zip(records, groups) for i, j in pairs]
    asked += [(record, group, j, i) for record, group, i, j in asked]
    prompts = [record.prompt for record, *_ in asked]
    first = [group[i].text for _, group, i, _ in asked]
    second = [group[j].text for _, group, _, j in asked]
    if hasattr(reward, "prob"):
        found = reward.prob(prompts, first, second, **_columns([record for record, *_ in asked]))
        _check_count(reward, len(found), len(asked))
        prob = np.array(found, dtype=float)
    else:
        scores = group_scores(reward, records, groups)
        gap = np.concatenate([scores[:, i] - scores[:, j] for i, j in pairs]).reshape(len(pairs), -1).T.ravel()
        prob = np.concatenate([(gap > 0) + 0.5 * (gap == 0), (gap < 0) + 0.5 * (gap == 0)])
    if not ((prob >= 0) & (prob <= 1)).all():
        raise DataError(f"{_name(reward)} gives no probabilities", expected="numbers in [0, 1]")
    there, back = prob[: len(asked) // 2], prob[len(asked) // 2 :]
    won = ((there + 1 - back) / 2).reshape(len(groups), len(pairs))
    rates = np.zeros((len(groups), width))
    for column, (i, j) in enumerate(pairs):
        rates[:, i] += won[:, column]
        rates[:, j] += 1 - won[:, column]
    return rates / (width - 1)


def _task(record: Record) -> tuple[Any, str]:
    """What tells the tasks of records apart: not every record has an id."""
    return record.prompt, str(record.extras)


def _columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """The extras that all records have, one value per response."""
    names = set(records[0].extras) if records else set()
    for record in records:
        names &= set(record.extras)
    return {name: [record.extras[name] for record in records] for name in sorted(names)}


def _check_count(reward: Any, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(
            f"the reward {_name(reward)} returns another number of scores than responses",
            found=found,
            expected=str(expected),
        )


def _name(reward: Any) -> str:
    return str(getattr(reward, "name", type(reward).__name__))


def prompts_for(
    records: Records,
    encoder: Encoder,
    *,
    max_length: int | None,
    max_completion_length: int,
    distinct: Sequence[str] = (),
) -> tuple[Examples, list[Record]]:
    """The prompts of records, tokenised, each once; what is too long to be answered is left out and counted.

    Args:
        records: whose prompts.
        encoder: the policy's.
        max_length: tokens of prompt and response; None for any number.
        max_completion_length: tokens kept for the response.
        distinct: extras by which prompts that are alike are still different (what a reward looks up in them).

    Returns:
        The prompts as examples without responses, and the record of each.

    Raises:
        DataError: no prompt is left.
    """
    made = Examples(source="prompts to sample from")
    kept: list[Record] = []
    seen: set[Any] = set()
    chosen = []
    for record in records:
        key = (record.prompt, str([record.extras.get(name) for name in ("tools", *distinct)]))
        if not record.prompt:
            made.dropped.setdefault("no prompt", []).append(record.origin)
        elif key in seen:
            made.notes["records whose prompt stood in an earlier one"] += 1
        else:
            seen.add(key)
            chosen.append(record)
    rows = encoder.encode_many([(record.prompt, (), record.extras) for record in chosen])
    for record, row in zip(chosen, rows):
        if max_length is not None and len(row.prompt_ids) + max_completion_length > max_length:
            reason = "prompt longer than max_length less max_completion_length"
            made.dropped.setdefault(reason, []).append(record.origin)
            continue
        kept.append(record)
        made.items.append(Example(Group(array("i", row.prompt_ids), []), {}, record.origin))
    if not made.items:
        raise DataError(
            "no prompt is left to sample from",
            where=records.source,
            found={reason: len(rows) for reason, rows in made.dropped.items()} or "no records",
            remedy="a larger max_length, or a smaller max_completion_length",
        )
    return made, kept


def distinct_columns(rewards: Sequence[Any]) -> tuple[str, ...]:
    """The extras that rewards say they look up (their attribute `columns`): prompts alike may differ in them."""
    return tuple(sorted({name for reward in rewards for name in getattr(reward, "columns", ())}))


def reference_answers(records: Records, attribute: str | None = None) -> dict[Any, Response]:
    """The best response that each record holds: its demonstration, or the first of its ranking.

    Raises:
        DataError: a record has none.
    """
    found = {_task(item.record): item.response for item in demonstrations(records)}
    wanted = which_attribute(records, ("comparison", "rating"), attribute)
    for item in rankings(records, attribute=wanted):
        best = max(range(len(item.responses)), key=lambda i: item.scores[i])
        found.setdefault(_task(item.record), item.responses[best])
    for record in records:
        if _task(record) not in found:
            raise DataError(
                "a record holds no answer to compare samples with",
                where=record.origin or record.id,
                expected="a demonstration, or a comparison of its responses",
            )
    return found


def example_of(rollout: Rollout, prompt: Sequence[int]) -> Example:
    """A rollout as an example: its tokens, scores, and log-probabilities when sampled."""
    columns: dict[str, Any] = {"scores": [float(score) for score in rollout.scores]}
    if rollout.answer is not None:
        columns["answer"] = rollout.answer
    group = Group(array("i", prompt), [array("i", c.token_ids) for c in rollout.completions])
    sampled = torch.tensor([logp for c in rollout.completions for logp in c.logprobs])
    own = [i == rollout.answer for i, c in enumerate(rollout.completions) for _ in c.logprobs]
    return replace(
        Example(group, columns, rollout.record.origin),
        sampled=sampled,
        learned=~sampled.isnan() | torch.tensor(own, dtype=torch.bool),
    )
