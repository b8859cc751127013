"""Many losses -> one update: how much of each loss's gradient goes into the step.

A strategy sees only the m x m Gram matrix of the gradients, the user's weights and the losses, and gives one
coefficient per gradient. To add one, write a function from its options to `GradientBalancer` and name it in
`_BUILDERS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accordance.balancing.solver import minimise_on_simplex
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, unknown

#: Below this share of the largest gradient's squared norm a combination counts as zero.
_ZERO = 1e-12

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class GradientBalancer:
    """From m gradients to one direction, through their Gram matrix.

    Attributes:
        name: what recipes call it.
        rule: from (Gram matrix [m, m], weights [m] that sum to 1, losses [m]) to coefficients [m].
        options: its options and their values.
    """

    name: str
    rule: Rule
    options: Mapping[str, Any] = field(default_factory=dict)

    def coefficients(self, gram: Tensor, weights: Tensor, losses: Tensor | None = None) -> Tensor:
        """How much of each gradient goes into the direction.

        Args:
            gram: inner products of the gradients, shape [m, m].
            weights: the user's weights, at least 0, not all 0, shape [m]. Their sum scales the direction.
            losses: the losses themselves, shape [m]; only `maxmin` looks at them.

        Returns:
            Shape [m], in float64. The step is against sum_i coefficients[i] * gradient[i].

        Raises:
            ConfigError: weights are negative, all 0 or of another number than the gradients, losses are missing,
                or the Gram matrix is not finite.
        """
        g, w = gram.detach().double().cpu().numpy(), weights.detach().double().cpu().numpy()
        if w.shape != (len(g),) or (w < 0).any() or not w.sum() > 0:
            raise ConfigError(
                "there must be one weight for each gradient, none negative and not all 0",
                where="weights",
                found=w.tolist(),
                expected=f"{len(g)} numbers",
            )
        if not np.isfinite(g).all():
            raise ConfigError("a gradient is not finite", where=f"balancer {self.name}", found=g.tolist())
        if losses is None:
            if self.name == "maxmin":
                raise ConfigError("maxmin needs the losses beside the gradients", where="losses")
            values = np.zeros(len(g))
        else:
            values = losses.detach().double().cpu().numpy()
        total = w.sum()
        return torch.from_numpy(total * self.rule(g, w / total, values))

    def combine(self, gradients: Tensor, weights: Tensor, losses: Tensor | None = None) -> Tensor:
        """The direction for gradients of shape [m, parameters], shape [parameters]."""
        found = self.coefficients(gradients.double() @ gradients.double().T, weights, losses)
        return found.to(gradients) @ gradients


def weighted_sum() -> GradientBalancer:
    """The plain sum: every gradient times its weight."""
    return GradientBalancer("sum", lambda gram, weights, losses: weights)


def mgda() -> GradientBalancer:
    """The shortest vector in the hull of the weighted gradients (Désidéri 2012): none of the losses rises.

    Gradients are taken times their weight (and times m, so that equal gradients give the plain sum), and p
    minimises their norm over the simplex. Zero where the losses can't all fall.
    """

    def rule(gram: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> np.ndarray:
        scaled = weights * len(weights)
        p = minimise_on_simplex(np.zeros(len(weights)), scaled[:, None] * gram * scaled, 1.0)
        return p * scaled

    return GradientBalancer("mgda", rule)


def cagrad(radius: float = 0.4) -> GradientBalancer:
    """Conflict-averse descent (arXiv:2110.14048): of the steps near the weighted one, that which helps the worst most.

    Args:
        radius: how far from the weighted gradient the step may go, as a share of its length; 0 is the plain sum.

    Raises:
        ConfigError: the radius is not in [0, 1).
    """
    _check_radius(radius)
    return GradientBalancer(
        "cagrad",
        lambda gram, weights, losses: _conflict_averse(gram, weights, radius, False),
        {"radius": radius},
    )


@system("S141", "RACO", paper="arXiv:2602.02495")
def raco(radius: float = 0.4) -> GradientBalancer:
    """Conflict-averse descent with clipping: no objective is pushed harder than the user's weights allow.

    With g0 = sum w_i g_i and G_p = sum p_i g_i, p minimises G_p.g0 + radius |g0| |G_p| over the simplex, is clipped
    at w from above (and not renormalised), and the direction is g0 + radius |g0| G_p / |G_p|; g0 where G_p is 0. When
    p is a vertex, clipping changes nothing. Gradients are those of the losses, before any preconditioning, over
    the whole effective batch.

    Departs from the paper's code: one exact solver (closed form along a pair of objectives) for any number of
    them, and weights need not sum to 1: their sum scales the step.

    Args:
        radius: the paper's c; how far from the weighted gradient the step may go, as a share of its length; 0 is
            the plain sum.

    Raises:
        ConfigError: the radius is not in [0, 1).
    """
    _check_radius(radius)
    return GradientBalancer(
        "raco", lambda gram, weights, losses: _conflict_averse(gram, weights, radius, True), {"radius": radius}
    )


def maxmin(temperature: float = 0.1) -> GradientBalancer:
    """Towards the smallest largest loss: gradients of temperature * log sum_i w_i exp(loss_i / temperature).

    The smooth form of the egalitarian objective (arXiv:2402.08925 on rewards, group DRO on losses); it keeps no
    state between steps. Losses must be comparable: the same objective on several groups, say.

    Args:
        temperature: in units of the loss; towards 0 only the worst loss counts, large is the plain sum.

    Raises:
        ConfigError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ConfigError("the temperature must be above 0", where="temperature", found=temperature)

    def rule(gram: np.ndarray, weights: np.ndarray, losses: np.ndarray) -> np.ndarray:
        raised = weights * np.exp((losses - losses.max()) / temperature)
        return raised / raised.sum()

    return GradientBalancer("maxmin", rule, {"temperature": temperature})


def clipped_mixture(gram: Tensor, weights: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """RACO's mixture p over the simplex and its clipped form min(p, w), shape [m] each, for diagnosis."""
    g, w = gram.detach().double().cpu().numpy(), weights.detach().double().cpu().numpy()
    p = _mixture(g, w / w.sum(), radius)
    return torch.from_numpy(p), torch.from_numpy(np.minimum(p, w / w.sum()))


_BUILDERS: dict[str, Callable[..., GradientBalancer]] = {
    "sum": weighted_sum,
    "mgda": mgda,
    "cagrad": cagrad,
    "raco": raco,
    "maxmin": maxmin,
}


def balancer_names() -> list[str]:
    """The names of all gradient balancers, sorted."""
    return sorted(_BUILDERS)


def balancer_options(name: str) -> dict[str, Any]:
    """The options of a balancer and their defaults.

    Raises:
        ConfigError: there is no balancer of that name.
    """
    if name not in _BUILDERS:
        raise unknown("balancer", name, _BUILDERS, where="balancer")
    return {key: value.default for key, value in inspect.signature(_BUILDERS[name]).parameters.items()}


def get_balancer(name: str, **options: float) -> GradientBalancer:
    """The gradient balancer that a recipe names.

    Raises:
        ConfigError: the name or an option is unknown, or a value can't be used.
    """
    known = balancer_options(name)
    for key, value in options.items():
        if key not in known:
            raise unknown("option", key, known, where=f"balancer {name}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError("the value can't be used", where=f"balancer {name}, option {key}", found=value)
    return _BUILDERS[name](**{key: float(value) for key, value in options.items()})


def _check_radius(radius: float) -> None:
    if not 0 <= radius < 1:
        raise ConfigError(
            "the radius is out of range", where="radius", found=radius, expected="0 <= radius < 1"
        )


def _mixture(gram: np.ndarray, weights: np.ndarray, radius: float) -> np.ndarray:
    b = gram @ weights
    length = math.sqrt(max(float(weights @ b), 0.0))
    return minimise_on_simplex(b, gram, radius * length)


def _conflict_averse(gram: np.ndarray, weights: np.ndarray, radius: float, clip: bool) -> np.ndarray:
    if radius == 0:
        return weights
    p = _mixture(gram, weights, radius)
    if clip:
        p = np.minimum(p, weights)
    squared = float(p @ gram @ p)
    if squared <= _ZERO * float(np.diag(gram).max()):
        return weights
    length = math.sqrt(max(float(weights @ gram @ weights), 0.0))
    return weights + radius * length / math.sqrt(squared) * p


__all__ = [
    "GradientBalancer",
    "balancer_names",
    "balancer_options",
    "cagrad",
    "clipped_mixture",
    "get_balancer",
    "maxmin",
    "mgda",
    "raco",
    "weighted_sum",
]
