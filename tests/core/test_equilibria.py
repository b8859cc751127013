"""Preference games: gaps and equilibria agree with search, with linear programming and with each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accordance.core.errors import ConfigError, DataError
from accordance.core.games import (
    best_response,
    duality_gap,
    exploitability,
    nash_equilibrium,
    regularised_equilibrium,
    win_rates,
)


def game(seed: int = 0, prompts: int = 3, responses: int = 6) -> tuple[Tensor, Tensor]:
    """Preferences [P, R, R] and the log-probabilities of a reference [P, R]."""
    g = torch.Generator().manual_seed(seed)
    a = 2 * torch.randn(prompts, responses, responses, generator=g, dtype=torch.float64)
    ref = torch.randn(prompts, responses, generator=g, dtype=torch.float64)
    return (a - a.mT).sigmoid(), ref.log_softmax(-1)


def value(p: Tensor, q: Tensor, preference: Tensor, ref: Tensor, beta: float) -> Tensor:
    def kl(x: Tensor) -> Tensor:
        return (x.exp() * (x - ref)).sum(-1)

    wins = torch.einsum("...i,...ij,...j->...", p.exp(), preference, q.exp())
    return wins - beta * kl(p) + beta * kl(q)


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_duality_gap_is_what_the_best_replies_of_both_players_reach(beta):
    preference, ref = game()
    policy = game(1)[1]
    reply = best_response(preference, policy, ref, beta)
    gap = duality_gap(policy, preference, ref, beta)
    torch.testing.assert_close(
        gap, value(reply, policy, preference, ref, beta) - value(policy, reply, preference, ref, beta)
    )
    g = torch.Generator().manual_seed(2)
    for _ in range(200):  # nobody replies better
        other = (reply + 0.5 * torch.randn(reply.shape, generator=g, dtype=torch.float64)).log_softmax(-1)
        assert (
            value(other, policy, preference, ref, beta) <= value(reply, policy, preference, ref, beta)
        ).all()


def test_without_a_price_the_gap_is_twice_the_exploitability():
    preference, _ = game()
    policy = game(1)[1]
    torch.testing.assert_close(duality_gap(policy, preference), 2 * exploitability(policy, preference))
    assert (exploitability(policy, preference) > 0.01).all()


@pytest.mark.parametrize("beta", [0.01, 0.1, 10.0])
def test_regularised_equilibrium_replies_to_itself(beta):
    preference, ref = game()
    policy = regularised_equilibrium(preference, ref, beta)
    assert duality_gap(policy, preference, ref, beta).max() < 1e-10
    torch.testing.assert_close(policy, best_response(preference, policy, ref, beta), rtol=0, atol=1e-6)


def test_equilibrium_goes_from_the_reference_to_that_of_the_plain_game():
    preference, ref = game()
    near, far = (regularised_equilibrium(preference, ref, beta) for beta in (1e3, 1e-3))
    torch.testing.assert_close(near.exp(), ref.exp(), rtol=0, atol=1e-3)
    assert exploitability(far, preference).max() < 0.01 < exploitability(near, preference).min()


def test_linear_programming_finds_rock_paper_scissors_and_unbeatable_mixtures():
    circle = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    torch.testing.assert_close(nash_equilibrium(circle), torch.full((3,), 1 / 3, dtype=torch.float64))
    preference, _ = game()
    winner = nash_equilibrium(preference)
    assert (preference @ winner[..., None]).amax() < 0.5 + 1e-9


def test_win_rates_are_expectations_over_the_opponent():
    preference, ref = game()
    torch.testing.assert_close(win_rates(preference, ref)[0, 2], (preference[0, 2] * ref[0].exp()).sum())


def test_what_is_no_constant_sum_game_or_no_price_is_refused():
    preference, ref = game()
    with pytest.raises(DataError, match="constant-sum"):
        duality_gap(ref, preference.clamp(max=0.6))
    for beta in (-1.0, 0.0):
        with pytest.raises(ConfigError):
            best_response(preference, ref, ref, beta)
    with pytest.raises(ConfigError, match="reference"):
        duality_gap(ref, preference, beta=0.1)
