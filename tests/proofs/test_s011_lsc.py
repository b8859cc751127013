"""Proof of S011, LSC: at equal distance from the base, more answers are good on both counts, and fewer hack one.

200 prompts x 64 responses, harmlessness = -0.5 helpfulness + noise, a uniform base. Policies are the exact optima
base * exp(utility / beta) of both utilities, the plain sum and the sum of log-sigmoids centred at the 85% quantile,
with beta set such that the mean KL is the same.

Measured (raw, transformed), four seeds: P(both above 0.5) 0.27-0.30, 0.31-0.33 at KL 1 and 0.42-0.45, 0.52-0.55 at
KL 2; probability of a response whose first reward was raised by 10: 0.38, 0.15-0.16 and 0.62, 0.28-0.29.
"""

from __future__ import annotations

import pytest
import torch
from tests.balancing.tilting import spread, tilted, tilted_to, uniform
from torch import Tensor

from accordance.balancing import LogSigmoidCentred, ReferenceQuantile
from accordance.lab.tabular import TabularPolicy

PROMPTS, RESPONSES = 200, 64
BASE = uniform(PROMPTS, RESPONSES)


def rewards(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    helpful, noise = torch.randn(2, PROMPTS, RESPONSES, generator=g, dtype=torch.float64)
    return torch.stack([helpful, noise - 0.5 * helpful], -1)


def utility(r: Tensor) -> Tensor:
    """The transformed sum, centred at what 85% of the base policy's answers stay below.

    Bradley-Terry rewards have an arbitrary offset for each prompt; what is seen here is offset, what is measured not.
    """
    offset = 3 * torch.randn(PROMPTS, 1, 2, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    seen = r + offset
    features = torch.eye(PROMPTS, dtype=torch.float64)
    reference = ReferenceQuantile(0.85, ridge=1e-9).fit(seen, features)
    return LogSigmoidCentred(reference)(seen, features)


def both(policy: TabularPolicy, r: Tensor) -> float:
    """Probability that an answer is good on both counts."""
    return policy.expected((r > 0.5).all(-1).double()).mean().item()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kl, gain", [(1.0, 1.08), (2.0, 1.15)])
def test_more_answers_are_good_on_both_counts_at_matched_kl(seed: int, kl: float, gain: float) -> None:
    r = rewards(seed)
    raw = tilted_to(BASE, r.sum(-1), kl)
    ours = tilted_to(BASE, utility(r), kl)
    assert raw.kl(BASE).mean() == pytest.approx(kl, abs=1e-6) == ours.kl(BASE).mean().item()
    assert both(ours, r) >= gain * both(raw, r)
    # The trade is real: the sum of rewards is given up for it.
    assert spread(ours, r).sum(-1).mean() < spread(raw, r).sum(-1).mean() - 0.03


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kl", [1.0, 2.0])
def test_an_inflated_reward_takes_half_as_much_of_the_policy(seed: int, kl: float) -> None:
    r = rewards(seed)
    r[:, 0, 0] += 10
    raw, ours = (tilted_to(BASE, u, kl).probs[:, 0].mean() for u in (r.sum(-1), utility(r)))
    assert ours < 0.55 * raw


def test_it_is_kl_regularised_optimisation_of_being_good() -> None:
    """With gamma = 1 the optimum re-weights the base by the probability of being good on every count."""
    r = rewards(0)
    reference = r.quantile(0.85, dim=1)
    good = ((r - reference[:, None]).sigmoid()).prod(-1)
    expected = good / good.sum(-1, keepdim=True)
    torch.testing.assert_close(tilted(BASE, LogSigmoidCentred(reference)(r), 1.0).probs, expected)
