"""Reward transforms: each of K rewards on a scale of its own, before they are put together.

Rewards are tensors whose last dimension is K, ``[n, K]`` or ``[prompts, samples, K]``. A transform learns from samples
of the reference (`fit`) or as rewards come by (`observe`), and is then applied to rewards of the same K.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from accordance.core.errors import DataError

Transform = TypeVar("Transform", bound="RewardTransform")


class RewardTransform(Protocol):
    """Turns rewards into rewards of the same shape."""

    def fit(self: Transform, samples: Tensor) -> Transform:
        """Learn from rewards of reference samples, shape [prompts, samples, K] or [n, K]."""
        ...

    def __call__(self, rewards: Tensor) -> Tensor:
        """Transformed rewards, in the shape of `rewards`, [..., K]."""
        ...


class FrozenNorm:
    """(r - mean) / sd with the mean and sd of reference samples, never learned again, clipped.

    Norms of the current batch would hide every improvement and blow up rewards that no longer vary.

    Args:
        clip: largest size of a normalised reward; None for none.
        least: smallest sd, so that a reward that hardly varies is not blown up; one number, or one per reward
            (0.1 suits binary ones).

    Attributes:
        mean_, std_: of each reward over all reference samples, shape [K].
    """

    def __init__(self, clip: float | None = 5.0, least: float | Tensor = 1e-8) -> None:
        self.clip, self.least = clip, torch.as_tensor(least)
        self.mean_: Tensor | None = None
        self.std_: Tensor | None = None

    def fit(self, samples: Tensor) -> FrozenNorm:
        flat = checked(samples).flatten(0, -2)
        self.mean_, std = flat.mean(0), flat.std(0, correction=0)
        self.std_ = torch.maximum(std, self.least.to(std))
        return self

    def __call__(self, rewards: Tensor) -> Tensor:
        mean, std = fitted(self.mean_, self), fitted(self.std_, self)
        same_width(rewards, mean)
        normal = (rewards - mean.to(rewards)) / std.to(rewards)
        return normal if self.clip is None else normal.clamp(-self.clip, self.clip)


class RunningNorm:
    """(r - mean) / sd with the mean and sd of everything seen so far; the comparison partner of `FrozenNorm`.

    Args:
        clip: largest size of a normalised reward; None for none.

    Attributes:
        count_: how many responses were seen.
        mean_, m2_: their mean and summed squared distance from it, shape [K] (Welford's).
    """

    def __init__(self, clip: float | None = 5.0) -> None:
        self.clip, self.count_ = clip, 0
        self.mean_: Tensor | None = None
        self.m2_: Tensor | None = None

    def fit(self, samples: Tensor) -> RunningNorm:
        self.count_, self.mean_, self.m2_ = 0, None, None
        return self.observe(samples)

    def observe(self, rewards: Tensor) -> RunningNorm:
        """Count more rewards in, shape [..., K]."""
        flat = checked(rewards).flatten(0, -2)
        mean, m2 = flat.mean(0), (flat - flat.mean(0)).square().sum(0)
        if self.mean_ is not None and self.m2_ is not None:
            total, gap = self.count_ + len(flat), mean - self.mean_
            m2 = self.m2_ + m2 + gap.square() * self.count_ * len(flat) / total
            mean = self.mean_ + gap * len(flat) / total
        self.count_, self.mean_, self.m2_ = self.count_ + len(flat), mean, m2
        return self

    def __call__(self, rewards: Tensor) -> Tensor:
        mean, m2 = fitted(self.mean_, self), fitted(self.m2_, self)
        same_width(rewards, mean)
        std = (m2 / self.count_).sqrt().clamp(min=1e-8)
        normal = (rewards - mean.to(rewards)) / std.to(rewards)
        return normal if self.clip is None else normal.clamp(-self.clip, self.clip)


class ReferenceQuantile:
    """For each prompt and reward the value that a share of reference samples stays below.

    New prompts, told by their features, get a prediction by ridge regression; without features the mean over the
    prompts that were fitted.

    Args:
        share: the share of reference samples that are no better, per reward or one for all.
        ridge: penalty on the squared coefficients of (standardised) features.

    Attributes:
        reference_: the quantiles of the prompts that were fitted, shape [prompts, K].
        coefficients_: shape [features + 1, K], the intercept last; None where no features were given.
    """

    def __init__(self, share: float | Tensor = 0.85, ridge: float = 1.0) -> None:
        self.share, self.ridge = torch.as_tensor(share), ridge
        self.reference_: Tensor | None = None
        self.coefficients_: Tensor | None = None

    def fit(self, samples: Tensor, features: Tensor | None = None) -> ReferenceQuantile:
        """Learn from rewards of reference samples, shape [prompts, samples, K], and prompt features, [prompts, D]."""
        checked(samples)
        if samples.ndim != 3:
            raise DataError(
                "quantiles per prompt need samples per prompt",
                found=f"shape {list(samples.shape)}",
                expected="[prompts, samples, K]",
            )
        shares = self.share.to(samples).expand(samples.shape[-1])
        columns = [samples[..., k].quantile(q.item(), dim=1) for k, q in enumerate(shares)]
        self.reference_ = torch.stack(columns, -1)
        if features is not None:
            self.coefficients_ = _ridge(features.to(samples), self.reference_, self.ridge)
        return self

    def predict(self, features: Tensor | None = None) -> Tensor:
        """The reference value for prompts with these features, shape [prompts, K]; without them, shape [K]."""
        known = fitted(self.reference_, self)
        if features is None:
            return known.mean(0)
        coefficients = fitted(self.coefficients_, self)
        return features.to(coefficients) @ coefficients[:-1] + coefficients[-1]


def _ridge(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    mean, std = features.mean(0), features.std(0, correction=0).clamp(min=1e-8)
    x, y = (features - mean) / std, targets - targets.mean(0)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    slopes = torch.linalg.solve(x.T @ x + penalty * eye, x.T @ y) / std[:, None]
    return torch.cat([slopes, (targets.mean(0) - mean @ slopes)[None]])


def fitted(value: Tensor | None, owner: Any) -> Tensor:
    """The learned value, or a clear error."""
    if value is None:
        raise DataError(
            f"{type(owner).__name__} has learned nothing yet",
            remedy="call fit with rewards of reference samples first (and features, where prompts are told by them)",
        )
    return value


def checked(rewards: Tensor) -> Tensor:
    """The rewards, or an error where they are not finite or have no dimension of objectives."""
    if rewards.ndim < 2 or not bool(torch.isfinite(rewards).all()):
        raise DataError(
            "rewards can't be used",
            found=f"shape {list(rewards.shape)}, finite: {bool(torch.isfinite(rewards).all())}",
            expected="finite numbers of shape [n, K] or [prompts, samples, K]",
        )
    return rewards


def same_width(rewards: Tensor, per_reward: Tensor) -> None:
    """Refuse rewards of another K than what was learned or given."""
    if rewards.shape[-1] != per_reward.shape[-1]:
        raise DataError(
            "another number of rewards than before",
            found=rewards.shape[-1],
            expected=str(per_reward.shape[-1]),
        )


__all__ = ["FrozenNorm", "ReferenceQuantile", "RewardTransform", "RunningNorm"]
