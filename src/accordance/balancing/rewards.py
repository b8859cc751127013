"""Rewards and what the prompt says -> one number per response: the interface, the plain sum, and scorers combined.

To add a combiner, write a class with `__call__(rewards, features)`; `prompt_aware` says whether it wants features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from accordance.balancing.transforms import RewardTransform, same_width
from accordance.core.errors import ConfigError
from accordance.core.policy import Prompt
from accordance.core.scorer import Scorer


class RewardCombiner(Protocol):
    """Puts K rewards of each response together.

    Attributes:
        prompt_aware: whether `features` of the prompts are needed.
    """

    prompt_aware: bool

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """One number per response.

        Args:
            rewards: shape [n, K] or [prompts, samples, K].
            features: of the prompts, one row for each row of `rewards`, shape [n or prompts, D].

        Returns:
            Shape [n] or [prompts, samples].
        """
        ...


@dataclass(frozen=True)
class WeightedRewards:
    """The plain weighted sum, of transformed rewards where a transform is given.

    Attributes:
        weights: shape [K].
        transform: applied first.
    """

    weights: Tensor
    transform: RewardTransform | None = None
    prompt_aware = False

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        refuse_features(self, features)
        same_width(rewards, self.weights)
        values = rewards if self.transform is None else self.transform(rewards)
        return values @ self.weights.to(values)


@dataclass(frozen=True)
class CombinedScorer:
    """Several Scorers as one: what trains on a Scorer, or picks by one, trains on all of them.

    A response that one of them does not apply to (None) has no combined score.

    Attributes:
        scorers: K of them, in the order of the combiner's rewards.
        combiner: puts their rewards together.
        features: from prompts to what a prompt-aware combiner wants to know of them, shape [n, D].
        name: what reports call it.
    """

    scorers: Sequence[Scorer]
    combiner: RewardCombiner
    features: Callable[[Sequence[Prompt]], Tensor] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.combiner.prompt_aware != (self.features is not None):
            wants = "needs features of the prompts" if self.combiner.prompt_aware else "knows no features"
            raise ConfigError(f"{type(self.combiner).__name__} {wants}", where="features")
        if not self.name:
            object.__setattr__(self, "name", "+".join(scorer.name for scorer in self.scorers))

    def rewards(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[list[float | None]]:
        """What each scorer says, one row per completion."""
        said = [scorer.score(prompts, completions, **columns) for scorer in self.scorers]
        return [list(row) for row in zip(*said, strict=True)]

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """One number per completion; see `Scorer.score`."""
        table = self.rewards(prompts, completions, **columns)
        whole = [index for index, row in enumerate(table) if None not in row]
        found: list[float | None] = [None] * len(table)
        if whole:
            rewards = torch.tensor([table[index] for index in whole], dtype=torch.float64)
            features = None if self.features is None else self.features([prompts[index] for index in whole])
            for index, value in zip(whole, self.combiner(rewards, features).tolist(), strict=True):
                found[index] = value
        return found


def per_response(per_prompt: Tensor, rewards: Tensor) -> Tensor:
    """Values of prompts, shape [prompts, K], beside rewards of shape [prompts, K] or [prompts, samples, K]."""
    return per_prompt if rewards.ndim == 2 else per_prompt[:, None]


def refuse_features(combiner: Any, features: Tensor | None) -> None:
    """Features that would have no effect are an error."""
    if features is not None:
        raise ConfigError(f"features have no effect on {type(combiner).__name__}", where="features")


__all__ = ["CombinedScorer", "RewardCombiner", "WeightedRewards", "per_response", "refuse_features"]
