"""Weights per prompt: a small adapter learns from the answers people preferred which goals a prompt is about."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from accordance.balancing.rewards import per_response
from accordance.balancing.transforms import FrozenNorm, checked, fitted, same_width
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError

Target = Literal["preferred", "contrast"]


@system("S025", "PRO orchestrator", paper="arXiv:2511.10656")
class PreferenceOrchestrator:
    """Predicts from a prompt's features how much each of K rewards counts, and sums them so.

    It learns softmax(z / temperature) from z, the normalised rewards of the answer that was preferred to each prompt,
    by cross-entropy (the KL to the target up to a constant). As a reward combiner it gives sum_k w_k(x) z_k.

    Departs from the spec: ``contrast`` subtracts the rewards of another answer (its addition too), and the encoder is
    not part of it: features come from any frozen encoder of the prompts.

    Args:
        temperature: of the target; towards 0 the best-served reward takes all the weight, large gives equal weights.
        target: ``preferred`` scores the preferred answer alone; ``contrast`` its lead over the rejected or an
            ordinary one, so that a goal that is always met gets no weight for it.
        hidden: width of the adapter's hidden layer; 0 for a linear one.
        epochs: full-batch steps of Adam.
        learning_rate: their size.
        decay: L2 penalty, against learning the prompts by heart.
        seed: of the initial weights.

    Attributes:
        norm_: mean and sd of each reward over the data.
        adapter_: from standardised features to logits.
    """

    prompt_aware = True

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        target: Target = "preferred",
        hidden: int = 32,
        epochs: int = 300,
        learning_rate: float = 1e-2,
        decay: float = 0.03,
        seed: int = 0,
    ) -> None:
        if not temperature > 0:
            raise ConfigError("the temperature must be above 0", where="temperature", found=temperature)
        if target not in ("preferred", "contrast"):
            raise ConfigError("unknown target", where="target", found=target, expected="preferred or contrast")
        self.temperature, self.target, self.hidden = temperature, target, hidden
        self.epochs, self.learning_rate, self.decay, self.seed = epochs, learning_rate, decay, seed
        self.norm_, self.adapter_ = FrozenNorm(clip=None), None
        self._mean: Tensor | None = None
        self._std: Tensor | None = None

    def fit(
        self, features: Tensor, preferred: Tensor, *, other: Tensor | None = None, samples: Tensor | None = None
    ) -> PreferenceOrchestrator:
        """Learn from preferred answers.

        Args:
            features: of the prompts, shape [n, D].
            preferred: rewards of the answer that was preferred to each, shape [n, K].
            other: rewards of the rejected or an average answer to each, shape [n, K]; needed for ``contrast``.
            samples: rewards of ordinary answers, [prompts, samples, K] or [m, K], to normalise by; those of
                `preferred` (and `other`) by default. All rewards must be seen over the same answers, or a generous
                reward takes all the weight.

        Raises:
            DataError: shapes do not agree or values are not finite.
            ConfigError: `other` is missing, or would have no effect.
        """
        if (other is not None) != (self.target == "contrast"):
            raise ConfigError(
                f"other answers {'are needed for' if other is None else 'have no effect on'} target={self.target}",
                where="other",
            )
        if features.ndim != 2 or checked(preferred).ndim != 2 or len(features) != len(preferred):
            raise DataError(
                "features and rewards do not agree",
                found=f"{list(features.shape)} and {list(preferred.shape)}",
                expected="[n, D] and [n, K]",
            )
        seen = [preferred] if other is None else [preferred, other]
        self.norm_.fit(torch.cat(seen) if samples is None else samples)
        goal = (self.targets(preferred, other)).float()
        x = features.float()
        self._mean, self._std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
        x = (x - self._mean) / self._std
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.adapter_ = _adapter(x.shape[1], self.hidden, goal.shape[1])
        optimizer = torch.optim.Adam(self.adapter_.parameters(), lr=self.learning_rate, weight_decay=self.decay)
        with torch.enable_grad():
            for _ in range(self.epochs):
                optimizer.zero_grad()
                cross_entropy(self.adapter_(x), goal).backward()
                optimizer.step()
        self.adapter_.requires_grad_(False)
        return self

    def targets(self, preferred: Tensor, other: Tensor | None = None) -> Tensor:
        """The weights that the adapter is to predict, shape [n, K]."""
        score = self.norm_(preferred) if other is None else self.norm_(preferred) - self.norm_(other)
        return (score / self.temperature).softmax(-1)

    def weights(self, features: Tensor, prior: Tensor | None = None) -> Tensor:
        """How much each reward counts for prompts with these features.

        Args:
            features: shape [n, D].
            prior: what the user wants more or less of, at least 0, shape [K]; multiplies, then normalised.

        Returns:
            Shape [n, K]; rows sum to 1.
        """
        if self.adapter_ is None:
            raise DataError("PreferenceOrchestrator has learned nothing yet", remedy="call fit first")
        mean, std = fitted(self._mean, self), fitted(self._std, self)
        found = self.adapter_((features.float() - mean) / std).softmax(-1)
        if prior is not None:
            if bool((prior < 0).any()) or not bool(prior.sum() > 0):
                raise ConfigError("a prior is at least 0 and not all 0", where="prior", found=prior.tolist())
            found = found * prior.to(found)
            found = found / found.sum(-1, keepdim=True)
        return found

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """The reward of each response, shape [n] or [prompts, samples]; see `RewardCombiner`."""
        if features is None:
            raise ConfigError("weights per prompt need features of the prompts", where="features")
        weights = self.weights(features).to(rewards)
        same_width(rewards, weights)
        return (self.norm_(rewards) * per_response(weights, rewards)).sum(-1)


def _adapter(width: int, hidden: int, out: int) -> nn.Module:
    if hidden == 0:
        return nn.Linear(width, out)
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, out))


__all__ = ["PreferenceOrchestrator"]
