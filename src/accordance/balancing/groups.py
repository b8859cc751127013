"""The worst-off group first: rewards of K groups of people, put together so that the smallest mean rises."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from accordance.balancing.rewards import refuse_features
from accordance.balancing.transforms import RewardTransform, same_width
from accordance.core.errors import ConfigError

Level = Literal["group", "response"]


class WorstGroup:
    """The reward of the group that is worst off, as a reward for everyone (arXiv:2402.08925, max-min).

    ``group`` looks at the mean reward of each group over the batch and takes the smallest (the paper); ``response``
    takes the smallest reward of each response (the published code): the expectation of a minimum, which is more
    cautious than the minimum of expectations.

    Bradley-Terry rewards have an arbitrary offset and scale, so that a minimum over them means nothing before they
    are brought to one scale: `transform` is required.

    Args:
        transform: brings the K rewards to one scale, fitted on reference samples (`FrozenNorm`).
        level: ``group`` or ``response``.
    """

    prompt_aware = False

    def __init__(self, transform: RewardTransform, level: Level = "group") -> None:
        if level not in ("group", "response"):
            raise ConfigError("unknown level", where="level", found=level, expected="group or response")
        self.transform, self.level = transform, level

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """The reward of each response, shape [n] or [prompts, samples]; see `RewardCombiner`."""
        refuse_features(self, features)
        values = self.transform(rewards)
        if self.level == "response":
            return values.amin(-1)
        return values[..., int(values.flatten(0, -2).mean(0).argmin())]


class GroupWeights:
    """Multiplicative weights on groups: w_k is proportional to w_k exp(-rate * mean reward of group k).

    The smooth way to the same max-min solution: the averages of policy and weights over the steps converge to it,
    where the plain minimum jumps from group to group. Call `observe` once a step, then use the combiner.

    Args:
        transform: as for `WorstGroup`.
        groups: how many, K.
        rate: of the weights, above 0.

    Attributes:
        weights: current weights, shape [K]; they sum to 1.
    """

    prompt_aware = False

    def __init__(self, transform: RewardTransform, groups: int, rate: float = 0.1) -> None:
        if not rate > 0:
            raise ConfigError("the rate must be above 0", where="rate", found=rate)
        self.transform, self.rate = transform, rate
        self.weights = torch.full((groups,), 1.0 / groups, dtype=torch.float64)

    def observe(self, rewards: Tensor, probs: Tensor | None = None) -> Tensor:
        """Move the weights by the rewards of the policy's samples, and return them, shape [K].

        Args:
            rewards: shape [..., K].
            probs: how likely the policy writes each response, shape [...], where all are given instead of samples.
        """
        values = self.transform(rewards)
        same_width(values, self.weights)
        if probs is None:
            means = values.flatten(0, -2).mean(0)
        else:
            means = (probs[..., None] * values).flatten(0, -2).sum(0) / probs.sum()
        self.weights = (self.weights.log() - self.rate * means.double().cpu()).softmax(-1)
        return self.weights

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """The reward of each response, shape [n] or [prompts, samples]; see `RewardCombiner`."""
        refuse_features(self, features)
        values = self.transform(rewards)
        return values @ self.weights.to(values)


__all__ = ["GroupWeights", "WorstGroup"]
