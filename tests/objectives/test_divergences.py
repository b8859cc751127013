"""Divergences: generator, slope, inverse and ends agree with each other, and DPO's domain condition holds."""

from __future__ import annotations

import math

import pytest
import torch

from accordance.core.errors import ConfigError
from accordance.objectives import divergence_names, get_divergence, get_objective

H = torch.linspace(-6, 6, 49, dtype=torch.float64)  # log u; 0 is among them
each = pytest.mark.parametrize("name", divergence_names())


@each
def test_slope_is_the_derivative_of_the_generator(name):
    divergence = get_divergence(name)
    u = H.exp().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence.f(u).sum(), u)
    torch.testing.assert_close(gradient, divergence.slope(H), rtol=1e-9, atol=1e-9)


@each
def test_generator_is_canonical_and_convex(name):
    divergence = get_divergence(name)
    one = torch.zeros(1, dtype=torch.float64)
    assert divergence.f(one.exp()).item() == pytest.approx(0, abs=1e-12)
    assert divergence.slope(one).item() == pytest.approx(0, abs=1e-12)
    assert (divergence.f(H.exp()) >= 0).all()
    assert (divergence.slope(H).diff() >= 0).all()


@each
def test_inverse_slope_undoes_the_slope(name):
    divergence = get_divergence(name)
    if divergence.inverse is None:
        assert name == "total_variation"
        return
    torch.testing.assert_close(divergence.inverse(divergence.slope(H)), H, rtol=1e-7, atol=1e-7)


@each
def test_slopes_approach_their_limits(name):
    divergence = get_divergence(name)
    ends = divergence.slope(torch.tensor([-700.0, 700.0], dtype=torch.float64))
    for value, limit in zip(ends.tolist(), (divergence.slope_at_zero, divergence.slope_at_infinity)):
        if math.isfinite(limit):
            assert value == pytest.approx(limit, abs=1e-9)
        else:
            assert math.copysign(1, value) == math.copysign(1, limit) and abs(value) > 500


@each
def test_divergence_between_distributions_is_zero_only_where_they_are_equal(name):
    divergence = get_divergence(name)
    p, q = torch.randn(2, 5, dtype=torch.float64).log_softmax(-1)
    assert divergence.between(p, p).item() == pytest.approx(0, abs=1e-12)
    assert divergence.between(p, q) > 1e-3


def test_divergences_between_equal_their_textbook_values():
    p, q = torch.tensor([[0.2, 0.8], [0.5, 0.5]], dtype=torch.float64).log()
    between = {name: get_divergence(name).between(p, q).item() for name in divergence_names()}
    kl = lambda a, b: sum(x * math.log(x / y) for x, y in zip(a, b))  # noqa: E731
    a, b, middle = (0.2, 0.8), (0.5, 0.5), (0.35, 0.65)
    assert between["reverse_kl"] == pytest.approx(kl(a, b))
    assert between["forward_kl"] == pytest.approx(kl(b, a))
    assert between["js"] == pytest.approx(kl(a, middle) + kl(b, middle))
    assert between["total_variation"] == pytest.approx(0.3)
    assert between["chi2"] == pytest.approx(2 * 0.3**2 / 0.5)


@pytest.mark.parametrize("a, limit, tolerance", [(1e-4, "reverse_kl", 3e-3), (1 - 1e-6, "forward_kl", 1e-3)])
def test_alpha_divergence_goes_to_its_limits(a, limit, tolerance):
    near = H[H.abs() <= 3]
    torch.testing.assert_close(
        get_divergence("alpha", a).slope(near), get_divergence(limit).slope(near), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("name", ["total_variation", "chi2"])
def test_divergences_without_the_domain_condition_are_refused(name):
    with pytest.raises(ConfigError, match=r"must go to -inf at 0") as error:
        get_objective("f_dpo", divergence=name)
    assert "forward_kl, js, reverse_kl" in str(error.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"divergence": "js", "alpha": 0.3}, "no effect"),
        ({"divergence": "alpha", "alpha": 1.5}, "0 < alpha < 1"),
        ({"divergence": "jss"}, "did you mean 'js'"),
    ],
)
def test_options_of_f_dpo_that_can_not_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        get_objective("f_dpo", **options)


def test_far_below_the_reference_the_forward_kl_still_has_a_gradient():
    h = torch.tensor([-100.0, -200.0], requires_grad=True)
    slope = get_divergence("forward_kl").slope(h)
    (gradient,) = torch.autograd.grad(slope.sum(), h)
    assert slope[1] < slope[0] and (gradient > 0).all() and slope.isfinite().all()
