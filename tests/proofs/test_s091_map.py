"""Proof of S091, MAP: it meets a palette of values exactly, with the least change, and says when none can.

6 prompts x 40 responses, three rewards of which the first two are correlated -0.6; at least 0.5, 0.1 and -0.2 above
the base level is asked for. Measured, five seeds: weights (0.76-0.99, 0.56-0.68, 0); the best fixed weights on a
grid of 0.25 up to 2 that meet the palette need 1.3 to 2.0 times the KL.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import minimize
from tests.balancing.tilting import spread, tilted, uniform
from torch import Tensor

from accordance.balancing import solve_palette
from accordance.core.errors import ConfigError

PROMPTS, RESPONSES = 6, 40
BASE = uniform(PROMPTS, RESPONSES)
EXTRA = torch.tensor([0.5, 0.1, -0.2], dtype=torch.float64)


def rewards(seed: int, prompts: int = PROMPTS, responses: int = RESPONSES) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    one, two, three = torch.randn(3, prompts, responses, generator=g, dtype=torch.float64)
    return torch.stack([one, 0.8 * two - 0.6 * one, three], -1)


@pytest.mark.parametrize("seed", range(5))
def test_the_palette_is_met_exactly_by_the_least_change(seed: int) -> None:
    r = rewards(seed)
    palette = r.mean((0, 1)) + EXTRA
    found = solve_palette(r, palette)
    assert found.feasible and found.weights[2] == 0 and (found.weights[:2] > 0).all()
    policy = tilted(BASE, found(r), 1.0)
    level = spread(policy, r).mean(0)
    assert (level[:2] - palette[:2]).abs().max() < 1e-6 and level[2] > palette[2]
    # Strong duality certifies the optimum: the KL that is paid equals the dual's value.
    dual = -torch.logsumexp(BASE.log_probs + found(r), -1).mean() + found.weights @ palette
    assert policy.kl(BASE).mean().item() == pytest.approx(dual.item(), abs=1e-8) == found.kl


def test_fixed_weights_that_meet_it_change_more(record_property) -> None:
    """How much more is a matter of luck with the grid: 1.2 times in one world, twice in another."""
    grid = torch.arange(0, 2.01, 0.25, dtype=torch.float64).tolist()
    ratios = []
    for seed in range(5):
        r = rewards(seed)
        palette = r.mean((0, 1)) + EXTRA
        policies = (tilted(BASE, r @ r.new_tensor(w), 1.0) for w in itertools.product(*[grid] * 3))
        meeting = [p.kl(BASE).mean().item() for p in policies if (spread(p, r).mean(0) >= palette).all()]
        ratios.append(min(meeting) / solve_palette(r, palette).kl)
    record_property("ratios", ratios)
    print(ratios)
    assert min(ratios) > 1.1 and sum(ratios) / len(ratios) > 1.2


def test_it_is_the_optimum_that_a_general_solver_finds() -> None:
    """The primal, on 3 prompts x 6 responses with an uneven base, by SLSQP."""
    r = rewards(1, 3, 6)
    base = torch.rand(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64).add(0.2)
    base = base / base.sum(-1, keepdim=True)
    palette = (base[..., None] * r).sum(1).mean(0) + 0.6 * EXTRA
    table, start = r.numpy(), base.numpy()

    def kl(p):
        p = p.reshape(3, 6).clip(1e-12)
        return (p * torch.tensor(p / start).log().numpy()).sum() / 3

    done = minimize(
        kl,
        start.flatten(),
        bounds=[(0, 1)] * 18,
        method="SLSQP",
        constraints=[
            {"type": "eq", "fun": lambda p: p.reshape(3, 6).sum(1) - 1},
            {"type": "ineq", "fun": lambda p: (p.reshape(3, 6, 1) * table).sum(1).mean(0) - palette.numpy()},
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    found = solve_palette(r, palette, base=base)
    assert done.success and found.kl == pytest.approx(done.fun, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_weights_move_with_the_palette_as_the_inverse_covariance_says(seed: int) -> None:
    r, step = rewards(seed), 1e-4
    palette = r.mean((0, 1)) + EXTRA
    found = solve_palette(r, palette)
    for k in range(2):
        other = palette.clone()
        other[k] += step
        slope = (solve_palette(r, other).weights - found.weights) / step
        torch.testing.assert_close(slope[:2], found.sensitivity[k, :2], rtol=0.05, atol=1e-3)
        assert slope[k] > 0  # the sign that the paper prints is the other one
    assert (found.sensitivity[2] == 0).all()


def test_a_palette_out_of_reach_is_refused_with_what_can_be_reached() -> None:
    r = rewards(0)
    base = r.mean((0, 1))
    palette = base + torch.tensor([3.0, 3.0, 0.0], dtype=torch.float64)
    with pytest.raises(
        ConfigError, match=r"no policy over these samples reaches the palette[\s\S]*way from the base"
    ):
        solve_palette(r, palette)
    near = solve_palette(r, palette, adjust=0.95)
    assert not near.feasible and near.reach < 1
    torch.testing.assert_close(near.target, base + 0.95 * near.reach * (palette - base))
    assert (near.realised >= near.target - 1e-6).all()
    edge = base + near.reach * (palette - base)
    assert solve_palette(r, base + 0.999 * (edge - base)).feasible
    with pytest.raises(ConfigError, match="reaches the palette"):
        solve_palette(r, base + 1.001 * (edge - base))


def test_the_pooled_dual_misses_a_little_where_prompts_can_not_trade() -> None:
    r = rewards(0)
    palette = r.mean((0, 1)) + EXTRA
    pooled = solve_palette(r, palette, dual="pooled")
    assert pooled.realised[:2].tolist() == pytest.approx(palette[:2].tolist(), abs=1e-6)
    missed = (spread(tilted(BASE, pooled(r), 1.0), r).mean(0) - palette)[:2].abs().max()
    assert 1e-4 < missed < 0.1


def test_choosing_among_samples_by_its_weights_meets_the_palette() -> None:
    """The decoding option: 64 draws from the base per answer, one picked by softmax(weights . r)."""
    r, g = rewards(0), torch.Generator().manual_seed(0)
    palette = r.mean((0, 1)) + EXTRA
    found = solve_palette(r, palette)
    prompt = torch.arange(PROMPTS).repeat(3000)
    drawn = BASE.sample(prompt, 64, generator=g)
    seen = r[prompt[:, None], drawn]
    picked = seen[torch.arange(len(prompt)), found.choose(seen, generator=g)]
    assert (picked.mean(0) - palette)[:2].abs().max() < 0.05
