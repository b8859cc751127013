"""Proof of S132, SPPO: the average policy of self-play is all but unbeatable where no reward explains the tastes.

As the theory has it the guarantee is the average's; the last policy of the exact update cycles, which is measured
here too. And the chosen goes up and the rejected down in absolute terms, which DPO doesn't promise.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accordance.core import games
from accordance.core.objective import PairLogps
from accordance.lab.games import PreferenceGame, average_policy
from accordance.lab.tabular import TabularPolicy, TokenTable, descend
from accordance.objectives import get_objective, over_lists

RESPONSES, ROUNDS = 12, 400


def every_response_twice(policy: TabularPolicy, old: TabularPolicy, wins: Tensor) -> PairLogps:
    """Pairs of each response with itself: the loss treats the sides of a pair apart, so this is all it sees."""
    prompts, responses = wins.shape
    prompt = torch.arange(prompts).repeat_interleave(responses)
    response = torch.arange(responses).repeat(prompts)
    pairs = policy.pairs(prompt, response, response, ref=old)
    rates = {"chosen_win_rate": wins.flatten(), "rejected_win_rate": wins.flatten()}
    return PairLogps(**{**pairs.__dict__, "extras": rates})


def self_play(game: PreferenceGame, rounds: int = ROUNDS) -> list[TabularPolicy]:
    """The policy after each round. A natural-gradient step on the on-policy loss is its exact minimum."""
    objective, policy = get_objective("sppo", beta=1.0, labels="soft"), TabularPolicy(game.ref.logits)
    made = []
    for _ in range(rounds):
        old = policy.frozen()
        losses = objective(every_response_twice(policy, old, game.win_rates(old))).view_as(old.logits)
        (gradient,) = torch.autograd.grad((old.probs * losses).sum(), policy.logits)
        # Each response stands on both sides of its pair: half the curvature's inverse is 1 / (4 pi).
        policy = TabularPolicy(policy.logits - gradient / (4 * old.probs))
        made.append(policy.frozen())
    return made


def bradley_terry_choice(game: PreferenceGame) -> TabularPolicy:
    """All on the response that a reward fitted to the same preferences likes best."""
    reward = TabularPolicy(torch.zeros_like(game.ref.logits))
    order = torch.arange(RESPONSES)
    first, second = (x.flatten() for x in torch.meshgrid(order, order, indexing="ij"))
    descend(
        reward,
        lambda: (
            -(
                game.preference[:, first, second]
                * torch.nn.functional.logsigmoid(reward.logits[:, first] - reward.logits[:, second])
            ).sum()
        ),
        steps=400,
        learning_rate=0.05,
    )
    top = reward.logits.argmax(-1, keepdim=True)
    return TabularPolicy(torch.full_like(reward.logits, -1e3).scatter(-1, top, 0.0))


@pytest.fixture(scope="module")
def game() -> PreferenceGame:
    return PreferenceGame.random(6, RESPONSES, scale=2.0, seed=0)


def test_average_of_self_play_is_nearly_unbeatable_and_the_best_of_a_fitted_reward_is_not(game):
    policies = self_play(game)
    average = game.exploitability(average_policy(policies))
    last, fitted = game.exploitability(policies[-1]), game.exploitability(bradley_terry_choice(game))
    print(
        f"exploitability: average {average.max():.3f}, last {last.median():.2f}, fitted {fitted.median():.2f}"
    )
    assert average.max() < 0.03
    assert fitted.median() > 0.2
    assert last.median() > 5 * average.median()
    assert games.exploitability(games.nash_equilibrium(game.preference).log(), game.preference).max() < 1e-9


def test_one_round_is_multiplicative_weights(game):
    """log pi <- log pi + P(. > pi) / beta, up to a constant."""
    (policy,) = self_play(game, rounds=1)
    expected = (game.ref.log_probs + game.win_rates(game.ref)).log_softmax(-1)
    torch.testing.assert_close(policy.log_probs, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_chosen_goes_up_and_rejected_down_where_dpo_lets_the_chosen_fall(seed):
    """Sequences that share most of their tokens, one prompt each; equal steps and learning rate."""
    g = torch.Generator().manual_seed(seed)
    start = TokenTable(torch.randn(8, 6, 5, 4, generator=g, dtype=torch.float64)).frozen()
    prompt = torch.arange(8)
    chosen = start.sample(prompt, generator=g)
    rejected = chosen.clone()
    rejected[:, 0] = (chosen[:, 0] + 1) % 3
    rejected = torch.where((rejected == 3).cumsum(-1) - (rejected == 3).long() > 0, -1, rejected)
    moved = {}
    for name in ("sppo", "dpo"):
        policy, objective = TokenTable(start.logits), get_objective(name, beta=0.1)
        descend(
            policy,
            lambda p=policy, o=objective: o(p.pairs(prompt, chosen, rejected, ref=start)).mean(),
            steps=60,
            learning_rate=0.05,
        )
        pairs = policy.pairs(prompt, chosen, rejected, ref=start)
        moved[name] = (pairs.chosen_ratio.mean().item(), pairs.rejected_ratio.mean().item())
    print(moved)
    assert moved["sppo"][0] > 0 > moved["sppo"][1]
    assert moved["sppo"][0] > moved["dpo"][0] + 0.1


def test_hard_labels_are_soft_labels_of_one_and_zero_and_mixed_ones_aim_between():
    policy = TabularPolicy(torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    ref = TabularPolicy(torch.zeros(3, 4, dtype=torch.float64)).frozen()
    prompt, scores = torch.arange(3), torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    lists = policy.lists(prompt, torch.tensor([[0, 1], [2, 3], [1, 2]]), scores, ref=ref)
    hard, soft = (over_lists(get_objective("sppo", beta=0.5, labels=x)) for x in ("hard", "soft"))
    torch.testing.assert_close(hard(lists), soft(lists))
    even = policy.lists(prompt, torch.tensor([[0, 1], [2, 3], [1, 2]]), scores * 0 + 0.5, ref=ref)
    aim_at_nothing = over_lists(get_objective("sppo", beta=0.5, labels="soft"), ties=True)(even)
    ratio = even.logp - even.ref
    torch.testing.assert_close(aim_at_nothing, (ratio**2).sum(-1))
