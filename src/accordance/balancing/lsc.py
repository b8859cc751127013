"""Log-sigmoid-centred rewards: more than a reference answer is good, much more is hardly better."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from accordance.balancing.rewards import per_response, refuse_features
from accordance.balancing.transforms import ReferenceQuantile, same_width
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError


def log_sigmoid_centred(rewards: Tensor, reference: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """log sigmoid((r - reference) / scale): the log-probability that a response beats the reference answer.

    Args:
        rewards: of Bradley-Terry models, shape [..., K].
        reference: their value of the reference answer, broadcast to `rewards`. Larger is closer to linear, smaller
            saturates more.
        scale: temperature with which the rewards were trained, per reward or one for all.
    """
    return -softplus((reference - rewards) / scale)


@system("S011", "LSC", paper="arXiv:2402.00742")
class LogSigmoidCentred:
    """Sums log-probabilities of being good on each count: "good" means better than a reference answer.

    Only for rewards of Bradley-Terry models, whose differences are log-odds; others need a logistic link first.
    Compare it with plain sums at matched KL, never at matched coefficient: it changes the scale.

    Departs from the spec: the small regressor that predicts the reference value of new prompts is a ridge
    regression on prompt features.

    Args:
        reference: fitted quantiles of reference samples; with features of the prompts where they were fitted
            with them. Or fixed values, shape [K] or [prompts, K]; the reward of a canned refusal, for instance.
        weights: of each reward, shape [K]; 1 by default.
        scale: see `log_sigmoid_centred`.
    """

    def __init__(
        self,
        reference: ReferenceQuantile | Tensor,
        *,
        weights: Tensor | None = None,
        scale: float | Tensor = 1.0,
    ) -> None:
        scales = torch.as_tensor(scale)
        if not bool((scales > 0).all()):
            raise ConfigError("the scale must be above 0", where="scale", found=scales.tolist())
        self.reference, self.weights, self.scale = reference, weights, scale

    @property
    def prompt_aware(self) -> bool:
        """Whether the reference value depends on features of the prompt."""
        return isinstance(self.reference, ReferenceQuantile) and self.reference.coefficients_ is not None

    def transform(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """Each reward transformed, in the shape of `rewards`, [..., K]."""
        if not self.prompt_aware:
            refuse_features(self, features)
        if isinstance(self.reference, Tensor):
            value = self.reference
        else:
            if self.prompt_aware and features is None:
                raise ConfigError("the reference was fitted on features; give those of the prompts")
            value = self.reference.predict(features)
        same_width(rewards, value)
        value = value.to(rewards)
        return log_sigmoid_centred(
            rewards, per_response(value, rewards) if value.ndim == 2 else value, self.scale
        )

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """The utility of each response, shape [n] or [prompts, samples]; see `RewardCombiner`."""
        values = self.transform(rewards, features)
        return values.sum(-1) if self.weights is None else values @ self.weights.to(values)


__all__ = ["LogSigmoidCentred", "log_sigmoid_centred"]
