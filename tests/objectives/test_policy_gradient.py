"""Policy gradients over groups: advantages, clips and averages as defined, and equal where they should be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bundles import list_bundle, with_tokens
from torch import Tensor

from accordance.core.errors import ConfigError, DataError, MissingReference
from accordance.core.objective import ListLogps, Tokens
from accordance.lab.tabular import TabularPolicy, TokenTable
from accordance.objectives import across_workers, advantages, get_objective, weighted_sum

FAMILY = ("reinforce", "reinforce_plus_plus", "rloo", "grpo", "dr_grpo", "dapo", "gspo")


def ragged(seed: int = 0) -> ListLogps:
    """Groups whose tokens all have ratios of their own, some beyond any clip."""
    lists = list_bundle(seed=seed)
    g = torch.Generator().manual_seed(seed)
    row = lists.tokens.row
    logp, ref = -3 * torch.rand(2, len(row), generator=g, dtype=torch.float64)
    old = logp + 0.3 * torch.randn(len(row), generator=g, dtype=torch.float64)

    def whole(values: Tensor) -> Tensor:
        return (
            torch.zeros(lists.logp.numel(), dtype=torch.float64).index_add(0, row, values).view_as(lists.logp)
        )

    tokens = Tokens(logp.requires_grad_(), row, ref)
    return replace(lists, logp=whole(logp), ref=whole(ref), old=whole(old), tokens=tokens, old_tokens=old)


def by_hand(lists: ListLogps, low: float, high: float, beta: float, spread: bool, how: str) -> list[float]:
    """GRPO and its kin, response by response and token by token."""
    found = []
    for i in range(len(lists.logp)):
        scores = lists.scores[i][lists.mask[i]]
        total, size = 0.0, len(scores)
        for k in range(size):
            advantage = (scores[k] - scores.mean()).item() / ((scores.std().item() + 1e-4) if spread else 1)
            mine = (lists.tokens.row == i * lists.logp.shape[1] + k).nonzero()[:, 0].tolist()
            gain = 0.0
            for t in mine:
                ratio = (lists.tokens.logp[t] - lists.old_tokens[t]).exp().item()
                apart = (lists.tokens.ref[t] - lists.tokens.logp[t]).item()
                gain += min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
                gain -= beta * (math.exp(apart) - apart - 1)
            total += gain / {"response": len(mine) * size, "tokens": 1, "constant": 100 * size}[how]
        found.append(-total)
    return found


@pytest.mark.parametrize("name, options, definition", [
    ("grpo", {}, (0.2, 0.2, 0.0, True, "response")),
    ("grpo", {"clip": 0.1, "beta": 0.3}, (0.1, 0.1, 0.3, True, "response")),
    ("dr_grpo", {"max_length": 100, "beta": 0.1}, (0.2, 0.2, 0.1, False, "constant")),
    ("dapo", {}, (0.2, 0.28, 0.0, True, "tokens")),
])  # fmt: skip
def test_token_level_members_equal_their_definition_token_by_token(name, options, definition):
    lists = ragged()
    loss = get_objective(name, **options)(lists)
    assert loss.tolist() == pytest.approx(by_hand(lists, *definition), rel=1e-9)


def test_gspo_takes_the_geometric_mean_of_a_responses_token_ratios():
    lists = ragged()
    ratio = ((lists.logp - lists.old) / lists.length).exp()
    advantage = advantages(lists.scores, lists.mask)
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.2) * advantage)
    expected = -(gain * lists.mask).sum(-1) / lists.mask.sum(-1)
    torch.testing.assert_close(get_objective("gspo", clip=0.1, clip_high=0.2)(lists), expected)
    penalised = get_objective("gspo", clip=0.1, clip_high=0.2, beta=0.5)(lists)
    assert (penalised > expected).all()


def test_unit_of_dapo_is_a_token_and_that_of_the_others_a_group():
    assert {name: get_objective(name).unit for name in FAMILY} == {
        name: "tokens" if name in ("dapo", "reinforce_plus_plus") else "examples" for name in FAMILY
    }


def test_all_are_the_same_step_for_one_token_answers_of_the_current_policy():
    """Ratios of 1 and no lengths: what is left are the advantages' scales."""
    policy = TabularPolicy(torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    drawn = policy.sample(torch.arange(3), 4, generator=torch.Generator().manual_seed(1))
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradient = {}
    for name, options in (
        ("grpo", {}),
        ("gspo", {}),
        ("dapo", {}),
        ("dr_grpo", {"max_length": 1}),
        ("rloo", {"beta": 0.0}),
        ("reinforce", {"baseline": "group", "scale": "group"}),
    ):
        lists = policy.lists(torch.arange(3), drawn, scores, old=policy)
        (gradient[name],) = torch.autograd.grad(get_objective(name, **options)(lists).sum(), policy.logits)
    for name in ("gspo", "reinforce"):
        torch.testing.assert_close(gradient[name], gradient["grpo"])
    torch.testing.assert_close(gradient["dapo"], 4 * gradient["grpo"])  # not divided by the group's size
    torch.testing.assert_close(gradient["rloo"], gradient["dr_grpo"] * 4 / 3)


@pytest.mark.parametrize("behind", [False, True], ids=["on policy", "off policy"])
def test_expected_gradient_of_rloo_is_that_of_the_expected_reward_less_the_kl(behind):
    """Sampled from the policy itself or another one: 200 000 answers in groups of four."""
    g = torch.Generator().manual_seed(0)
    policy, other, ref = (TabularPolicy(torch.randn(1, 5, generator=g, dtype=torch.float64)) for _ in range(3))
    reward = torch.randn(1, 5, generator=g, dtype=torch.float64)
    sampler = other if behind else policy
    drawn = sampler.sample(torch.zeros(50_000, dtype=torch.long), 4, generator=g)
    objective = get_objective("rloo", beta=0.2 * (not behind), clip=None)
    lists = policy.lists(torch.zeros(50_000, dtype=torch.long), drawn, reward[0][drawn], old=sampler, ref=ref)
    (ours,) = torch.autograd.grad(objective(lists).mean(), policy.logits)
    value = policy.expected(reward) - (0 if behind else 0.2) * policy.kl(ref)
    (true,) = torch.autograd.grad(-value.sum(), policy.logits)
    torch.testing.assert_close(ours, true, rtol=0, atol=0.01)
    assert true.abs().max() > 0.05


def test_baselines_and_scales():
    scores, mask = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 0.0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()

    def of(*how: str) -> list[list[float]]:
        return [[round(x, 3) for x in row] for row in advantages(scores, mask, *how).tolist()]

    assert of("none", "none") == [[1, 2, 6], [4, 4, 0]]
    assert of("group", "none") == [[-2, -1, 3], [0, 0, 0]]
    assert of("leave_one_out", "none") == [[-3, -1.5, 4.5], [0, 0, 0]]
    assert of("batch", "none") == [[-2.4, -1.4, 2.6], [0.6, 0.6, 0]]
    spread = scores[mask].std().item() + 1e-4
    assert advantages(scores, mask, "batch", "batch")[0, 2].item() == pytest.approx(2.6 / spread)
    assert advantages(scores, mask)[0, 2].item() == pytest.approx(3 / (scores[0].std().item() + 1e-4))


def test_batch_baseline_is_that_of_all_workers():
    scores, mask = torch.tensor([[1.0, 3.0]]), torch.ones(1, 2).bool()
    with across_workers(lambda totals: totals + torch.tensor([[8.0, 2.0], [32.0, 2.0]])):  # another has 4, 4
        assert advantages(scores, mask, "batch", "none").tolist() == [[-2.0, 0.0]]


def test_a_response_alone_or_a_group_without_spread_teaches_nothing():
    lists = list_bundle()
    alone = replace(lists, mask=torch.zeros_like(lists.mask).index_fill(1, torch.tensor([0]), True))
    even = replace(lists, scores=torch.ones_like(lists.scores))
    for name in ("rloo", "grpo", "gspo"):
        options = {"beta": 0.0} if name == "rloo" else {}
        assert get_objective(name, **options)(with_tokens(alone)).abs().max() == 0
        assert get_objective(name, **options)(even).abs().max() == 0


def test_tokens_of_sequences_reach_the_loss():
    """A gradient step on sampled sequences raises the reward: how often token 0 is written."""
    g = torch.Generator().manual_seed(0)
    policy = TokenTable(torch.zeros(1, 4, 4, 3, dtype=torch.float64))
    prompt, objective = torch.zeros(64, dtype=torch.long), get_objective("grpo")
    optimizer, rewards = torch.optim.SGD(policy.parameters(), lr=0.5), []
    for _ in range(40):
        drawn = policy.sample(prompt.repeat_interleave(4), generator=g).view(64, 4, -1)
        scores = (drawn == 0).sum(-1).double()
        rewards.append(scores.mean().item())
        optimizer.zero_grad()
        objective(policy.lists(prompt, drawn, scores, old=policy)).mean().backward()
        optimizer.step()
    assert rewards[-1] > 2.2 * rewards[0] > 0


@pytest.mark.parametrize("name", [*FAMILY, "f_dpg"])
def test_without_log_probs_of_the_sampling_policy_it_is_refused(name):
    lists = replace(list_bundle(), old=None, old_tokens=None)
    with pytest.raises(DataError, match="policy that sampled"):
        get_objective(name)(lists)


def test_missing_rewards_tokens_reference_and_answers_are_refused():
    lists = list_bundle()
    hole = lists.scores.clone()
    hole[0, 0] = torch.nan
    with pytest.raises(DataError, match="no reward"):
        get_objective("grpo")(replace(lists, scores=hole))
    with pytest.raises(DataError, match="tokens"):
        get_objective("grpo")(replace(lists, tokens=None))
    with pytest.raises(MissingReference):
        get_objective("grpo", beta=0.1)(replace(lists, tokens=replace(lists.tokens, ref=None)))
    with pytest.raises(DataError, match="answer"):
        get_objective("grao")(replace(lists, extras={}))
    assert get_objective("grpo", beta=0.1).reference and not get_objective("grpo").reference


def test_recorded_judgments_cannot_feed_them():
    from accordance.core.record import Records
    from accordance.training import examples_for

    for name in (*FAMILY, "grao", "f_dpg", "sami"):
        assert get_objective(name).online
        with pytest.raises(ConfigError, match="records alone"):
            examples_for(get_objective(name), Records.of([]), encoder=None)  # type: ignore[arg-type]
    assert weighted_sum([(get_objective("grpo"), 1.0), (get_objective("sft"), 0.1)]).online
    assert not get_objective("egpo").online
