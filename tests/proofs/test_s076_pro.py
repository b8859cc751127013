"""Proof of S076, PRO: longer rankings align better than pairs, by every stage of the loss and not the first alone.

10 prompts x 8 responses with known rewards; people rank 300 lists of responses, drawn from Plackett-Luce on those
rewards (so that close responses are often ranked the wrong way round).

What does not hold as the spec has it: temperatures raise the expected reward for pairs, whose close calls are
mostly noise, but not for lists of five (with them 0.78, 0.73, 0.48 on three seeds, without 0.80, 0.69, 0.44): a
long list outvotes its own noise. So pairs are what is tested. And lists beat pairs in reward where both go equally
far (KL from the policy that training starts from), or where scores are exact; at equal steps with noisy ranks they
do not, since the SFT term grows with the square of the length.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor

from accordance.core.objective import ListLogps
from accordance.lab.tabular import TabularPolicy, TokenTable, descend
from accordance.objectives import get_objective

PROMPTS, RESPONSES, LISTS, LONGEST = 10, 8, 300, 5
SEEDS = range(3)


@dataclass
class Rankings:
    """Lists of responses with what people perceived (its order is Plackett-Luce) and what is true."""

    reward: Tensor  # [P, R]
    prompt: Tensor  # [lists]
    responses: Tensor  # [lists, n]
    perceived: Tensor  # [lists, n]

    @property
    def true(self) -> Tensor:
        return self.reward[self.prompt[:, None], self.responses]

    @classmethod
    def draw(cls, seed: int, n: int) -> Rankings:
        """Lists of n responses."""
        g = torch.Generator().manual_seed(seed)
        reward = torch.randn(PROMPTS, RESPONSES, generator=g, dtype=torch.float64)
        prompt = torch.randint(PROMPTS, (LISTS,), generator=g)
        drawn = torch.stack([torch.randperm(RESPONSES, generator=g)[:LONGEST] for _ in range(LISTS)])
        gumbel = -torch.log(-torch.log(torch.rand(LISTS, LONGEST, generator=g, dtype=torch.float64)))
        perceived = reward[prompt[:, None], drawn] + gumbel
        return cls(reward, prompt, drawn[:, :n], perceived[:, :n])


def train(data: Rankings, scores: Tensor, until_kl: float | None = None, **options: object) -> TabularPolicy:
    """PRO from the uniform policy; 300 steps, or until the KL from it is reached."""
    policy, objective = TabularPolicy(torch.zeros_like(data.reward)), get_objective("pro", **options)
    start = policy.frozen()
    descend(
        policy,
        lambda: objective(policy.lists(data.prompt, data.responses, scores)).mean(),
        steps=300,
        learning_rate=0.05 if until_kl is None else 0.02,
        until=None if until_kl is None else lambda: policy.kl(start).mean().item() > until_kl,
    )
    return policy


def value(policy: TabularPolicy, data: Rankings) -> float:
    return policy.expected(data.reward).mean().item()


def order_agreement(policy: TabularPolicy, data: Rankings) -> float:
    """Kendall's tau between the order of the policy and the true one, mean over prompts."""
    rows = zip(policy.log_probs.detach(), data.reward)
    return sum(kendalltau(ours, true).statistic for ours, true in rows) / PROMPTS


@pytest.mark.parametrize("seed", SEEDS)
def test_rankings_of_five_beat_pairs_at_matched_kl(seed):
    reached = {}
    for n in (2, 5):
        data = Rankings.draw(seed, n)
        policy = train(data, data.perceived, until_kl=0.3)
        assert policy.kl(TabularPolicy(torch.zeros_like(data.reward))).mean().item() == pytest.approx(
            0.3, abs=0.02
        )
        reached[n] = value(policy, data)
    assert reached[5] > reached[2] + 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_rankings_of_five_beat_pairs_at_equal_steps_where_a_reward_model_scores_them(seed):
    lists, pairs = Rankings.draw(seed, 5), Rankings.draw(seed, 2)
    assert value(train(lists, lists.true), lists) > value(train(pairs, pairs.true), pairs) + 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_all_stages_recover_the_order_better_than_the_first_alone(seed):
    data = Rankings.draw(seed, 5)
    top_against_rest = (data.perceived == data.perceived.amax(-1, keepdim=True)).double()
    full = order_agreement(train(data, data.perceived, temperatures=False), data)
    first = order_agreement(train(data, top_against_rest, temperatures=False), data)
    assert full > first + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_temperatures_raise_the_reward_where_close_calls_are_noise(seed):
    data = Rankings.draw(seed, 2)
    blunt = train(data, data.perceived, temperatures=False)
    assert value(train(data, data.perceived), data) > value(blunt, data) + 0.03


@pytest.mark.parametrize("seed", SEEDS)
def test_without_the_sft_term_probability_drains_from_the_responses_of_the_data(seed):
    """Sequences, scored by a value per token: mean log-probabilities can be set apart by letting all of them fall.

    (In a table over whole responses this can't happen: what the data does not list never gains.)
    """
    g = torch.Generator().manual_seed(seed)
    start = TokenTable(torch.randn(1, 6, 7, 6, generator=g, dtype=torch.float64)).frozen()
    worth = torch.randn(6, generator=g, dtype=torch.float64)
    listed = start.sample(torch.zeros(60 * 4, dtype=torch.long), generator=g)
    scores = (worth[listed.clamp(min=0)] * (listed >= 0)).sum(-1) / (listed >= 0).sum(-1)
    prompt, responses = torch.zeros(60, dtype=torch.long), listed.view(60, 4, 6)
    seen = listed.unique(dim=0)

    def mass_on_data(policy: TokenTable) -> float:
        return policy.logp(torch.zeros(len(seen), dtype=torch.long), seen).exp().sum().item()

    mass = {}
    for alpha in (0.0, 0.05):
        policy, objective = TokenTable(start.logits), get_objective("pro", alpha=alpha, temperatures=False)
        descend(
            policy,
            lambda p=policy, o=objective: o(p.lists(prompt, responses, scores.view(60, 4))).mean(),
            steps=350,
            learning_rate=0.05,
        )
        mass[alpha] = mass_on_data(policy)
    assert mass[0.0] < mass_on_data(start) - 0.3
    assert mass[0.0] < mass[0.05] - 0.15


def test_gradient_pushes_the_best_up_and_heeds_the_order_of_the_rest():
    leaf = torch.tensor([[-1.0, -1.5, -0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    ones, scores = torch.ones(1, 4), torch.tensor([[3.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    objective = get_objective("pro", alpha=0.0)
    losses = {}
    for order in ((0, 1, 2, 3), (0, 2, 1, 3)):
        lists = ListLogps(leaf, ones, ones.bool(), scores[:, list(order)])
        losses[order] = objective(lists).sum()
        (gradient,) = torch.autograd.grad(losses[order], leaf)
        assert gradient[0, 0] < 0 < gradient[0, 3]
    assert len({loss.item() for loss in losses.values()}) == 2
