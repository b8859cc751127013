"""Gradient balancers: optimal where they claim it, neutral at neutral values, loud when misused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from accordance.balancing import (
    GradientSet,
    balancer_names,
    clipped_mixture,
    get_balancer,
    minimise_on_simplex,
)
from accordance.core.errors import ConfigError, TrainingError


def gradients(m: int, size: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(m, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("m", [2, 3, 6])
@pytest.mark.parametrize("size", [1, 4, 30])
def test_the_solver_is_no_worse_than_slsqp_and_feasible(m: int, size: int) -> None:
    rng = np.random.default_rng(m * 100 + size)
    for _ in range(5):
        A = rng.normal(size=(m, size))
        H, w = A @ A.T, rng.dirichlet(np.ones(m))
        b, s = H @ w, float(0.4 * np.sqrt(w @ H @ w))

        def value(p: np.ndarray, b: np.ndarray = b, H: np.ndarray = H, s: float = s) -> float:
            return float(b @ p + s * np.sqrt(max(p @ H @ p, 0.0)))

        p = minimise_on_simplex(b, H, s)
        assert (p >= 0).all() and p.sum() == pytest.approx(1)
        other = minimize(
            value,
            w,
            bounds=[(0, 1)] * m,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-13},
        )
        assert value(p) <= other.fun + 1e-8 * max(1.0, abs(other.fun))


@pytest.mark.parametrize("name", ["cagrad", "raco"])
def test_radius_0_is_the_plain_sum(name: str) -> None:
    g, w = gradients(3), torch.tensor([0.2, 0.5, 0.9])
    assert torch.equal(get_balancer(name, radius=0.0).combine(g, w), get_balancer("sum").combine(g, w))


def test_a_hot_maxmin_is_the_plain_sum_and_a_cold_one_the_worst_loss() -> None:
    g, w, losses = gradients(3), torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.1, 0.9, 0.4])
    plain = get_balancer("sum").combine(g, w)
    torch.testing.assert_close(
        get_balancer("maxmin", temperature=1e6).combine(g, w, losses), plain, rtol=1e-5, atol=1e-5
    )
    cold = get_balancer("maxmin", temperature=1e-3).combine(g, w, losses)
    torch.testing.assert_close(cold, g[1])


def test_maxmin_is_the_gradient_of_the_smooth_maximum() -> None:
    x, w = (
        torch.randn(5, generator=torch.Generator().manual_seed(1)).double().requires_grad_(),
        torch.rand(3).double(),
    )
    A = gradients(3, 5)
    losses = (A @ x).square()
    g = torch.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses])
    found = get_balancer("maxmin", temperature=0.7).combine(g, w, losses) / w.sum()
    smooth = 0.7 * ((w / w.sum()).log() + losses / 0.7).logsumexp(0)
    torch.testing.assert_close(found, torch.autograd.grad(smooth, x)[0])


@pytest.mark.parametrize("name", balancer_names())
def test_one_objective_is_left_alone_and_weights_scale_the_step(name: str) -> None:
    g, losses = gradients(3), torch.rand(3)
    balancer = get_balancer(name)
    alone = balancer.combine(g[:1], torch.tensor([0.7]), losses[:1])
    scale = 1 + balancer.options.get("radius", 0.0)  # a conflict-averse step along g0 is longer by its radius
    torch.testing.assert_close(alone, 0.7 * scale * g[0])
    w = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(balancer.combine(g, 3 * w, losses), 3 * balancer.combine(g, w, losses))


@pytest.mark.parametrize("seed", range(10))
def test_mgda_raises_no_loss_and_raco_stays_within_its_radius(seed: int) -> None:
    g, w = gradients(3, 4, seed), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    assert (g @ get_balancer("mgda").combine(g, w) > -1e-6).all()
    for name in ("cagrad", "raco"):
        direction, plain = get_balancer(name, radius=0.3).combine(g, w), w @ g
        assert (direction - plain).norm() <= 0.3 * plain.norm() * (1 + 1e-6)
        worst = (g @ direction).min() if name == "cagrad" else None
        assert worst is None or worst >= (g @ plain).min() - 1e-9


@pytest.mark.parametrize("m", [2, 4])
def test_no_mixture_exceeds_the_users_weights(m: int) -> None:
    w = torch.arange(1, m + 1).double() / sum(range(1, m + 1))
    for seed in range(20):
        g = gradients(m, 5, seed)
        rough, clipped = clipped_mixture(g @ g.T, w, 0.4)
        assert (clipped <= w + 1e-12).all() and (clipped <= rough + 1e-12).all()
        assert clipped.sum() <= 1 + 1e-9


def test_opposite_gradients_leave_the_weighted_step() -> None:
    g = torch.stack([gradients(1)[0], -gradients(1)[0]])
    w = torch.tensor([0.5, 0.5])
    assert torch.isfinite(get_balancer("raco").combine(g, w)).all()
    assert get_balancer("mgda").combine(g, w).norm() < 1e-5


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("rako", {}, "did you mean 'raco'"),
        ("raco", {"radius": 1.0}, "out of range"),
        ("raco", {"radius": -0.1}, "out of range"),
        ("raco", {"radius": "much"}, "can't be used"),
        ("sum", {"radius": 0.1}, "unknown option"),
        ("maxmin", {"temperature": 0.0}, "above 0"),
    ],
)
def test_wrong_names_and_values_are_refused(name: str, options: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        get_balancer(name, **options)


def test_wrong_weights_and_gradients_are_refused() -> None:
    g = gradients(2)
    for weights in ([0.0, 0.0], [1.0, -0.1], [1.0]):
        with pytest.raises(ConfigError, match="one weight for each gradient"):
            get_balancer("raco").combine(g, torch.tensor(weights))
    with pytest.raises(ConfigError, match="not finite"):
        get_balancer("raco").combine(g * float("nan"), torch.ones(2))
    with pytest.raises(ConfigError, match="maxmin needs the losses"):
        get_balancer("maxmin").combine(g, torch.ones(2))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2), nn.Linear(1, 1))


def test_accumulated_batches_give_the_direction_of_the_whole() -> None:
    model = net()
    model[0].bias.requires_grad_(False)  # frozen, as the base under an adapter
    x, w = torch.randn(8, 4), torch.tensor([0.3, 0.7])
    whole, split = GradientSet(model.parameters(), w), GradientSet(model.parameters(), w)

    def losses(some: Tensor) -> Tensor:
        return model[:3](some).square().sum(0) / 8

    whole.add(losses(x))
    flat = torch.stack([torch.cat([g.flatten() for g in held if g is not None]) for held in whole.gradients])
    torch.testing.assert_close(whole.gram(), (flat @ flat.T).double())
    expected = get_balancer("raco").combine(flat, w)
    whole.write(get_balancer("raco"))
    got = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(torch.cat([g.flatten() for g in got]), expected)
    assert model[0].bias.grad is None and model[3].weight.grad is None
    for part in x.split(3):
        split.add(losses(part))
    torch.testing.assert_close(split.losses, losses(x).detach().double())
    split.write(get_balancer("raco"))
    for one, other in zip(got, [p.grad for p in model.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(one, other)


def test_the_plain_sum_of_gradients_is_the_gradient_of_the_sum() -> None:
    model, x, w = net(), torch.randn(8, 4), torch.tensor([0.3, 0.7])
    held = GradientSet(model.parameters(), w)
    held.add(model[:3](x).square().sum(0))
    held.write(get_balancer("sum"))
    got = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    (w * model[:3](x).square().sum(0)).sum().backward()
    for one, other in zip(got, [p.grad for p in model.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_without_a_part_in_the_batch_is_a_constant_and_a_frozen_model_is_refused() -> None:
    model = net()
    held = GradientSet(model.parameters(), torch.ones(2))
    held.add(torch.stack([model[:3](torch.ones(1, 4)).sum(), torch.zeros(())]))
    assert held.gram()[1].tolist() == [0.0, 0.0]
    held.write(get_balancer("raco"))
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        GradientSet(model.requires_grad_(False).parameters(), torch.ones(2))
