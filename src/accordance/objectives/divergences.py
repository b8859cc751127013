"""f-divergences as objects: generator, slope, inverse slope and what happens at the ends.

D_f(pi || ref) = E_ref[ f(pi / ref) ]. Every generator here is the canonical one, with f(1) = f'(1) = 0; adding
c (u - 1) to a generator changes no divergence. Slopes are functions of h = log u, so that they neither overflow
nor lose digits. To add one: write its function of five lines and name it in `_DIVERGENCES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from accordance.core.errors import ConfigError, unknown


@dataclass(frozen=True)
class Divergence:
    """One f-divergence.

    Attributes:
        name: what options call it.
        f: the generator, from u > 0 to f(u), elementwise.
        slope: from h = log u to f'(u), elementwise and increasing.
        inverse: from a slope back to log u, elementwise, for slopes inside (`slope_at_zero`,
            `slope_at_infinity`); None where f' has no inverse.
        slope_at_zero: the limit of f'(u) as u goes to 0.
        slope_at_infinity: the limit of f'(u), which is also that of f(u) / u, as u goes to infinity.
    """

    name: str
    f: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor] | None
    slope_at_zero: float
    slope_at_infinity: float

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """D_f(p || q) of distributions over the last dimension, given as log-probabilities; q > 0."""
        return (log_q.exp() * self.f((log_p - log_q).exp())).sum(-1)

    def link(self) -> Callable[[Tensor], Tensor]:
        """The slope, for use as the link of a DPO-like objective.

        Raises:
            ConfigError: f' stays finite at 0. The optimal policy may then give a response probability 0, the
                multipliers of that constraint do not cancel between two responses, and no such objective
                exists (arXiv:2309.16240).
        """
        if self.slope_at_zero != -math.inf:
            usable = (name for name in divergence_names() if get_divergence(name).slope_at_zero == -math.inf)
            raise ConfigError(
                f"{self.name} can't take the place of the KL in DPO: its f' must go to -inf at 0",
                where="divergence",
                found=f"f'(0) = {self.slope_at_zero:g}",
                expected=f"one of: {', '.join(usable)}",
            )
        return self.slope


def reverse_kl() -> Divergence:
    """KL(pi || ref), f = u log u - u + 1: the constraint of RLHF and DPO."""
    return Divergence(
        "reverse_kl", lambda u: torch.xlogy(u, u) - u + 1, lambda h: h, lambda s: s, -math.inf, math.inf
    )


def forward_kl() -> Divergence:
    """KL(ref || pi), f = -log u + u - 1."""
    return Divergence(
        "forward_kl",
        lambda u: u - 1 - u.log(),
        lambda h: -steady_expm1(-h),
        lambda s: -torch.log1p(-s),
        -math.inf,
        1.0,
    )


def js() -> Divergence:
    """Jensen-Shannon (twice the usual one), f = u log u - (u + 1) log((u + 1) / 2)."""
    return Divergence(
        "js",
        lambda u: torch.xlogy(u, u) - (u + 1) * ((u + 1) / 2).log(),
        lambda h: math.log(2) + logsigmoid(h),
        lambda s: s - torch.log(2 - s.exp()),
        -math.inf,
        math.log(2),
    )


def alpha(a: float = 0.5) -> Divergence:
    """The alpha family, f = (u^(1-a) - (1-a) u - a) / (a (a-1)) with 0 < a < 1.

    It goes to the reverse KL as a goes to 0 and to the forward KL as a goes to 1. TRL's
    ``f_alpha_divergence_coef`` is 1 - a.
    """
    if not 0 < a < 1:
        raise ConfigError(
            "the alpha-divergence is defined between its two limits",
            where="alpha",
            found=a,
            expected="0 < alpha < 1",
            remedy="the limits are reverse_kl (0) and forward_kl (1)",
        )
    return Divergence(
        "alpha",
        lambda u: (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1)),
        lambda h: -steady_expm1(-a * h) / a,
        lambda s: -torch.log1p(-a * s) / a,
        -math.inf,
        1 / a,
    )


def total_variation() -> Divergence:
    """Total variation, f = |u - 1| / 2. Its slope is bounded at 0: no link for DPO."""
    return Divergence("total_variation", lambda u: (u - 1).abs() / 2, lambda h: h.sign() / 2, None, -0.5, 0.5)


def chi2() -> Divergence:
    """Pearson's chi-squared, f = (u - 1)^2. Its slope is bounded at 0: no link for DPO."""
    return Divergence(
        "chi2",
        lambda u: (u - 1) ** 2,
        lambda h: 2 * steady_expm1(h),
        lambda s: torch.log1p(s / 2),
        -2.0,
        math.inf,
    )


_DIVERGENCES: dict[str, Callable[..., Divergence]] = {
    builder.__name__: builder for builder in (reverse_kl, forward_kl, js, alpha, total_variation, chi2)
}


def divergence_names() -> list[str]:
    """The names that `get_divergence` knows."""
    return sorted(_DIVERGENCES)


def get_divergence(name: str, a: float | None = None) -> Divergence:
    """The divergence of that name.

    Args:
        name: one of `divergence_names`.
        a: the constant of ``alpha``; the others have none.

    Raises:
        ConfigError: the name is unknown, or `a` is given to a divergence that has no constant.
    """
    if name not in _DIVERGENCES:
        raise unknown("divergence", name, _DIVERGENCES)
    if a is None:
        return _DIVERGENCES[name]()
    if name != "alpha":
        raise ConfigError(
            f"{name} has no constant, so this option would have no effect",
            where="alpha",
            found=a,
            remedy="leave it out, or use divergence 'alpha'",
        )
    return alpha(a)


def steady_expm1(z: Tensor) -> Tensor:
    """exp(z) - 1, continued as a straight line beyond z = 40: no overflow, and the gradient never dies.

    A sequence-level log-ratio of -100 overflows e^100 in float32. A clamp would make the loss blind to it.
    """
    limit = min(40.0, math.log(torch.finfo(z.dtype).max) / 2)
    return torch.expm1(z.clamp(max=limit)) + math.exp(limit) * relu(z - limit)
