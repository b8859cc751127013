"""Preference games in the lab: what they hand to objectives and how they judge agree with the table."""

from __future__ import annotations

import pytest
import torch

from accordance.core.errors import ConfigError
from accordance.lab.games import PreferenceGame, average_policy, geometric_mixture
from accordance.lab.tabular import TabularPolicy, TokenTable


def policy(seed: int, prompts: int = 2, responses: int = 4) -> TabularPolicy:
    g = torch.Generator().manual_seed(seed)
    return TabularPolicy(torch.randn(prompts, responses, generator=g, dtype=torch.float64))


def test_pairs_carry_win_rates_against_the_opponent_and_past_policies():
    game, learner, past = PreferenceGame.random(2, 4, scale=2.0, seed=0), policy(0), policy(1)
    wins = game.win_rates(past)
    torch.testing.assert_close(wins, torch.einsum("pij,pj->pi", game.preference, past.probs.detach()))
    torch.testing.assert_close((wins * learner.probs).sum(-1), learner.win_rate(past, game.preference))
    pairs = game.with_history(game.every_pair(learner, wins), [past])
    assert len(pairs.chosen) == 2 * 6 and pairs.chosen.requires_grad
    # The last pair is that of responses 2 and 3 to prompt 1.
    assert pairs.gap[-1] == wins[1, 2] - wins[1, 3]
    assert pairs.extras["history0_rejected"][-1] == past.log_probs[1, 3]
    assert pairs.chosen_ratio[-1] == learner.log_probs[1, 2] - game.ref.log_probs[1, 2]


def test_sampled_comparisons_have_the_frequencies_of_the_table():
    game, g = PreferenceGame.rock_paper_scissors(0.9), torch.Generator().manual_seed(0)
    ones = torch.ones(20_000, dtype=torch.long)
    won = game.compare(0 * ones, 0 * ones, ones, generator=g)
    assert won.double().mean().item() == pytest.approx(0.9, abs=0.01)
    assert game.preference[0, 1, 2] == 0.9 and game.preference[0, 2, 0] == 0.9


def test_average_and_geometric_mixture_are_not_the_same():
    first, second = policy(0), policy(1)
    torch.testing.assert_close(average_policy([first, second]).probs, (first.probs + second.probs).detach() / 2)
    mixed = geometric_mixture(first, second, 0.25)
    expected = (0.75 * first.log_probs + 0.25 * second.log_probs).softmax(-1)
    torch.testing.assert_close(mixed.probs, expected.detach())
    torch.testing.assert_close(geometric_mixture(first, second, 1.0).probs, second.probs.detach())


def test_equilibrium_of_a_game_has_no_gap_and_other_policies_have_one():
    game = PreferenceGame.random(2, 4, scale=2.0, seed=0)
    assert game.duality_gap(game.equilibrium(0.1), 0.1).max() < 1e-10
    assert game.duality_gap(policy(0), 0.1).min() > 0.01 and game.exploitability(policy(0)).min() > 0.01


def test_a_table_that_does_not_add_up_is_refused():
    with pytest.raises(ConfigError, match="preferences"):
        PreferenceGame(torch.full((1, 2, 2), 0.6))


def test_lists_of_sequences_carry_their_tokens_and_those_of_the_sampler():
    g = torch.Generator().manual_seed(0)
    learner, sampler = (TokenTable(torch.randn(2, 3, 4, 3, generator=g, dtype=torch.float64)) for _ in range(2))
    prompt = torch.arange(2)
    drawn = sampler.sample(prompt.repeat_interleave(4), generator=g).view(2, 4, 3)
    lists = learner.lists(prompt, drawn, ref=sampler, old=sampler)
    total = torch.zeros(8, dtype=torch.float64).index_add(0, lists.tokens.row, lists.tokens.logp).view(2, 4)
    torch.testing.assert_close(total, lists.logp)
    sampled = torch.zeros(8, dtype=torch.float64).index_add(0, lists.tokens.row, lists.old_tokens).view(2, 4)
    torch.testing.assert_close(sampled, lists.old)
    assert torch.equal(lists.tokens.ref, lists.old_tokens) and not lists.old_tokens.requires_grad


def test_crossed_bundles_hold_every_response_under_every_condition():
    table = policy(0, prompts=6)
    prompts, responses = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[1, 2, 3], [0, 0, 1]])
    cross = table.cross(prompts, responses, ref=policy(1, prompts=6))
    assert cross.logp.shape == cross.ref.shape == (2, 3, 3) and cross.length.shape == (2, 3)
    assert cross.logp[1, 2, 0] == table.log_probs[5, 0] and cross.logp[0, 1, 2] == table.log_probs[1, 3]
