"""Proof of S120, PPO-max: with a learned reward that can be exploited vanilla PPO collapses and PPO-max does not.

A `TokenTable` writes up to 10 of 6 tokens to 4 prompts. The true reward pays for some tokens and fines what is said
more than twice; the reward that is learned from 4000 noisy comparisons of the reference's short answers is linear in
the counts, so that beyond them it pays for repetition. What is trained is the registered objective, by the steps of
an online round: sample, score, credit, two passes.

Here rewards are of size 1 after normalising and a response is 10 tokens, hence a KL weight of 0.4, not 0.02.
Measured, true reward, seeds 0 to 2: PPO-max goes from 0.8 to 1.6 or 1.7 and ends within 8% of its peak, at a KL of 2;
vanilla peaks at 1.4 to 1.7 and falls to -3.6, -6.6, -7.8.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from accordance.core.objective import ListLogps, Objective, Tokens
from accordance.lab.tabular import TokenTable, descend
from accordance.objectives import gae, get_objective, token_rewards
from accordance.training.monitors import CollapseAlarm

PROMPTS, STEPS, TOKENS, GROUP = 4, 10, 6, 16
SEEDS, UPDATES = range(3), 300
WIDTH = TOKENS - 1 + STEPS + PROMPTS
WORTH = torch.tensor([1.0, 0.6, 0.0, -0.4, -0.8])
BETA = 0.4
SWITCHES: dict[str, Any] = {
    "beta": 0.0,
    "clip": None,
    "clip_value": None,
    "normalise": "none",
    "clip_reward": None,
    "whiten": False,
}


def counts(responses: Tensor) -> Tensor:
    """How often each token but the end is in each response."""
    return torch.stack([(responses == token).sum(-1) for token in range(TOKENS - 1)], -1).float()


def true_reward(responses: Tensor) -> Tensor:
    said = counts(responses)
    return said @ WORTH - 0.35 * (said - 2).clamp(min=0).square().sum(-1)


@cache
def world(seed: int) -> tuple[TokenTable, Tensor]:
    """The reference, and the weights of the reward that is learned from its answers."""
    g = torch.Generator().manual_seed(seed)
    ref = TokenTable(0.7 * torch.randn(PROMPTS, STEPS, TOKENS + 1, TOKENS, generator=g)).frozen()
    prompt = torch.arange(PROMPTS).repeat(1000)
    first, second = (ref.sample(prompt, generator=g) for _ in range(2))
    won = torch.rand(len(prompt), generator=g) < (true_reward(first) - true_reward(second)).sigmoid()
    apart, reward = counts(first) - counts(second), nn.Linear(TOKENS - 1, 1, bias=False)
    nn.init.zeros_(reward.weight)
    descend(
        reward,
        lambda: binary_cross_entropy_with_logits(reward(apart)[:, 0], won.float()),
        steps=100,
        learning_rate=0.1,
    )
    return ref, reward.weight.detach()[0]


def states(prompt: Tensor, responses: Tensor) -> Tensor:
    """What a critic sees before each token: what was said so far, the place, the prompt; shape [tokens, WIDTH]."""
    said = torch.stack(
        [(responses == v).cumsum(-1) - (responses == v).int() for v in range(TOKENS - 1)], -1
    ).float()
    place = torch.eye(STEPS).expand(len(responses), STEPS, STEPS)
    asked = torch.eye(PROMPTS)[prompt][:, None].expand(len(responses), STEPS, PROMPTS)
    return torch.cat([said, place, asked], -1)[responses >= 0]


class Round:
    """What is sampled at once, as the bundle that an objective reads."""

    def __init__(self, policy: TokenTable, ref: TokenTable, weight: Tensor, g: torch.Generator) -> None:
        self.policy = policy
        self.prompt = torch.arange(PROMPTS).repeat_interleave(GROUP)
        self.responses = policy.sample(self.prompt, generator=g)
        self.there = self.responses >= 0
        self.row = torch.arange(len(self.prompt))[:, None].expand_as(self.there)[self.there]
        self.proxy, self.true = counts(self.responses) @ weight, true_reward(self.responses)
        self.states = states(self.prompt, self.responses)
        with torch.no_grad():
            self.ref, self.old = (p.token_logps(self.prompt, self.responses)[self.there] for p in (ref, policy))

    def bundle(self, **extras: Tensor) -> ListLogps:
        each = self.policy.token_logps(self.prompt, self.responses)
        lengths, shape = self.there.sum(-1), (PROMPTS, GROUP)
        tokens = Tokens(each[self.there], self.row, self.ref, states=self.states, extras=extras)
        return ListLogps(
            each.sum(-1).view(shape),
            lengths.view(shape),
            torch.ones(shape, dtype=torch.bool),
            self.proxy.view(shape),
            tokens=tokens,
            old_tokens=self.old,
        )


def told(some: Round) -> dict[str, float]:
    """The monitors of one round."""
    lengths = some.there.sum(-1).float()
    return {
        "true": some.true.mean().item(),
        "reward": some.proxy.mean().item(),
        "kl": (some.old - some.ref).sum().item() / len(lengths),
        "length": lengths.mean().item(),
        "surprise": -some.ref.mean().item(),
    }


@cache
def learn(
    seed: int, switched: tuple[str, ...] = (), warm: bool = True, updates: int = UPDATES
) -> dict[str, Tensor]:
    """What was told of every update; `switched` are the tricks that are off."""
    (ref, weight), g = world(seed), torch.Generator().manual_seed(100 + seed)
    policy = TokenTable(ref.logits)
    objective = get_objective("ppo", **{"beta": BETA} | {name: SWITCHES[name] for name in switched})
    critic: Any = objective.module
    critic.attach(WIDTH, 1)
    if warm:  # the critic begins as the reward of what has been said, and learns alone at first
        critic.begin(torch.cat([weight, torch.zeros(STEPS + PROMPTS)])[None])
    else:
        with torch.no_grad():
            critic.linear.weight.copy_(torch.randn(1, WIDTH, generator=g))
    movers = [torch.optim.Adam(one.parameters(), lr=0.05) for one in (critic, policy)]
    history: list[dict[str, float]] = []
    for update in range(-20 if warm else 0, updates):
        some = Round(policy, ref, weight, g)
        credit = credited(objective, some)
        if update >= 0:
            history.append(told(some))
        for _ in range(2):
            loss = objective(some.bundle(**credit)).sum() / len(some.row)
            for mover in movers:
                mover.zero_grad()
            loss.backward()
            for mover in movers[: 2 if update >= 0 else 1]:
                mover.step()
    return {name: torch.tensor([line[name] for line in history]) for name in history[0]}


@torch.no_grad()
def credited(objective: Objective[ListLogps], some: Round) -> dict[str, Tensor]:
    assert objective.credit is not None and objective.module is not None
    return dict(objective.credit(some.bundle(value=objective.module(some.states))))


def vanilla(seed: int) -> dict[str, Tensor]:
    return learn(seed, tuple(SWITCHES), warm=False)


def smooth(values: Tensor, window: int = 20) -> Tensor:
    """Means over the last `window` updates; the first stands for update window - 1."""
    return values.unfold(0, window, 1).mean(-1)


def alarm_at(run: dict[str, Tensor]) -> int | None:
    """When the alarm goes off. Short responses of few tokens: nats per token run higher than in a language."""
    alarm = CollapseAlarm(kl=0.6)
    names = ("reward", "kl", "length", "surprise")
    for update in range(len(run["reward"])):
        if alarm.observe(**{name: run[name][update].item() for name in names}):
            return update
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_vanilla_ppo_collapses_while_its_reward_rises(seed: int) -> None:
    run = vanilla(seed)
    true, proxy = smooth(run["true"]), smooth(run["reward"])
    print(f"vanilla: true {true[0]:.2f}, peak {true.max():.2f}, end {true[-1]:.2f}; learned {proxy[-1]:.2f}")
    assert true[-1] < true.max() - 0.3 * (true.max() - true[0])
    assert proxy[-1] > proxy[int(true.argmax())] + 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_ppo_max_keeps_what_it_has_won_and_stays_near_the_reference(seed: int) -> None:
    run = learn(seed)
    true, kl = smooth(run["true"]), smooth(run["kl"])
    print(f"PPO-max: true {true[0]:.2f}, peak {true.max():.2f}, end {true[-1]:.2f}; KL {kl[-1]:.2f}")
    assert true.max() > true[0] + 0.6
    assert true[-1] > 0.9 * true.max()
    assert 3 * kl.max() < smooth(vanilla(seed)["kl"])[-1]


def test_the_kl_is_the_trick_that_matters_most() -> None:
    ends = {name: smooth(learn(0, (name,), updates=80)["true"])[-1].item() for name in SWITCHES}
    ends["critic"] = smooth(learn(0, (), warm=False, updates=80)["true"])[-1].item()
    print("true reward without", {name: round(value, 2) for name, value in ends.items()})
    kl = ends.pop("beta")
    assert kl < min(ends.values()) - 1.0
    assert kl < smooth(learn(0)["true"])[60] - 3.0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_alarm_comes_before_a_fifth_of_the_true_reward_is_lost_and_not_for_nothing(seed: int) -> None:
    run, window = vanilla(seed), 5
    true = smooth(run["true"], window)
    lost = true < true.max() - 0.2 * (true.max() - true[0])
    fallen = next(i for i in range(int(true.argmax()), len(true)) if lost[i]) + window - 1
    at = alarm_at(run)
    print(f"alarm at {at}, a fifth lost at {fallen}")
    assert at is not None and at <= fallen
    assert alarm_at(learn(seed)) is None


def test_gae_equals_the_direct_double_sum() -> None:
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([1, 5, 3])
    row = torch.arange(3).repeat_interleave(lengths)
    rewards, values = torch.randn(2, len(row), generator=g, dtype=torch.float64)
    gamma, lam, expected, start = 0.9, 0.8, [], 0
    for size in lengths.tolist():
        r, v = rewards[start : start + size], [*values[start : start + size], torch.tensor(0.0)]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(size)]
        expected += [sum((gamma * lam) ** k * delta[t + k] for k in range(size - t)) for t in range(size)]
        start += size
    torch.testing.assert_close(gae(rewards, values, row, gamma, lam), torch.stack(expected))
    # lam 1: what is to come less the value; lam 0: one-step errors
    to_go = [sum(rewards[j] for j in range(i, len(row)) if row[j] == row[i]) for i in range(len(row))]
    torch.testing.assert_close(gae(rewards, values, row, 1.0, 1.0), torch.stack(to_go) - values)


def test_a_response_earns_its_score_at_its_last_token_and_pays_for_its_kl_everywhere() -> None:
    row, ratio = torch.tensor([0, 0, 1]), torch.tensor([0.5, -1.0, 2.0])
    found = token_rewards(torch.tensor([3.0, 7.0]), row, ratio, 0.1)
    torch.testing.assert_close(found, torch.tensor([-0.05, 3.1, 6.8]))


def one_round(**options: Any) -> tuple[Objective[ListLogps], Round, dict[str, Tensor], TokenTable]:
    ref, weight = world(0)
    policy = TokenTable(ref.logits + 0.3)
    objective = get_objective("ppo", **options)
    assert objective.module is not None
    objective.module.attach(WIDTH, 1)
    some = Round(policy, ref, weight, torch.Generator().manual_seed(7))
    return objective, some, credited(objective, some), policy


def test_where_the_policy_has_not_moved_the_gradient_is_that_of_reinforce_with_the_value_as_baseline() -> None:
    objective, some, credit, policy = one_round(lam=1.0, whiten=False, normalise="none", beta=0.0)
    (ours,) = torch.autograd.grad(objective(some.bundle(**credit)).sum(), policy.logits)
    tokens = some.bundle().tokens
    assert tokens is not None
    surrogate = -((some.proxy[some.row] - credit["value"]) * tokens.logp).sum()
    (plain,) = torch.autograd.grad(surrogate, policy.logits)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_clips_stop_the_gradient_where_a_further_step_would_gain_and_nowhere_else() -> None:
    objective, some, credit, _ = one_round(clip=0.2, value_weight=1.0)
    shift = torch.linspace(-0.6, 0.6, len(some.row))
    moved = some.bundle(**credit)
    leaf = (some.old + shift).requires_grad_()
    assert moved.tokens is not None
    loss = objective(replace(moved, tokens=replace(moved.tokens, logp=leaf))).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    ratio, advantage = shift.exp(), credit["advantage"]
    stopped = ((ratio > 1.2) & (advantage > 0)) | ((ratio < 0.8) & (advantage < 0))
    torch.testing.assert_close(gradient, -(ratio * advantage).masked_fill(stopped, 0.0), rtol=1e-4, atol=1e-6)
    assert 0 < int(stopped.sum()) < len(stopped) / 2
    # The critic: no gradient beyond the clip where going on brings it nearer to the return.
    critic: Any = objective.module
    with torch.no_grad():
        critic.linear.bias.fill_(0.5)
    flat = objective(some.bundle(**credit)).sum()
    (bias,) = torch.autograd.grad(flat, critic.linear.bias)
    value, goal = credit["value"] + 0.5, credit["return"]
    near = credit["value"] + 0.2
    kept = (value - goal) ** 2 >= (near - goal) ** 2
    torch.testing.assert_close(bias[0], ((value - goal) * kept).sum(), rtol=1e-4, atol=1e-3)
