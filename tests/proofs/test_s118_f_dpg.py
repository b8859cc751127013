"""Proof of S118, f-DPG: the gradient is that of the divergence, and the divergence decides what is given up.

50 responses. A policy that can't represent the target shows what each divergence prefers: the reverse KL one mode,
the forward KL both.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from accordance.core.errors import DataError
from accordance.core.objective import ListLogps
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_divergence, get_objective

NAMES = ("forward_kl", "reverse_kl", "total_variation", "js")
RESPONSES = 50


def table(seed: int, spread: float = 1.0, prompts: int = 2) -> TabularPolicy:
    g = torch.Generator().manual_seed(seed)
    return TabularPolicy(spread * torch.randn(prompts, RESPONSES, generator=g, dtype=torch.float64))


def everything(policy: TabularPolicy, energy: Tensor, ref: TabularPolicy | None = None) -> ListLogps:
    """Every response once, as if drawn evenly: the mean over the group is then the exact expectation."""
    prompts = len(energy)
    prompt, responses = torch.arange(prompts), torch.arange(RESPONSES).expand(prompts, -1)
    even = TabularPolicy(torch.zeros(prompts, RESPONSES, dtype=torch.float64))
    return policy.lists(prompt, responses, energy, ref=ref, old=even)


def exact(name: str, **options: object):
    return get_objective("f_dpg", divergence=name, baseline="none", **{"target": "energy", **options})


@pytest.mark.parametrize("name", [*NAMES, "chi2", "alpha"])
def test_expected_gradient_is_that_of_the_divergence(name):
    policy, p = table(0), table(1).log_probs.detach()
    constant = {"alpha": 0.5} if name == "alpha" else {}
    (ours,) = torch.autograd.grad(exact(name, **constant)(everything(policy, p + 3.0)).sum(), policy.logits)
    divergence = get_divergence(name, *constant.values())
    (true,) = torch.autograd.grad(divergence.between(policy.log_probs, p).sum(), policy.logits)
    torch.testing.assert_close(ours, true, rtol=0, atol=1e-8)
    assert true.abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("baseline", ["leave_one_out", "none"])
def test_samples_of_another_policy_give_the_same_gradient_on_average(name, baseline):
    """100 000 samples in groups of 50, with the normaliser known: within three standard errors (of 20 parts)."""
    policy, p, proposal = table(0, prompts=1), table(1, prompts=1).log_probs.detach(), table(2, 0.5, prompts=1)
    objective = get_objective("f_dpg", divergence=name, target="energy", normaliser="column", baseline=baseline)
    g, parts = torch.Generator().manual_seed(0), []
    prompt = torch.zeros(100, dtype=torch.long)
    for _ in range(20):
        drawn = proposal.sample(prompt, 50, generator=g)
        lists = policy.lists(prompt, drawn, (p + 2.0)[0][drawn], old=proposal)
        lists = replace(lists, extras={"log_z": torch.full((100,), 2.0, dtype=torch.float64)})
        parts.append(torch.autograd.grad(objective(lists).mean(), policy.logits)[0])
    parts = torch.stack(parts)
    divergence = get_divergence(name)
    (true,) = torch.autograd.grad(divergence.between(policy.log_probs, p).sum(), policy.logits)
    error, standard = parts.mean(0) - true, parts.std(0) / 20**0.5
    # Over all coordinates at once: their mean squared error in units of the standard error is about 1.
    assert ((error / standard) ** 2).mean() < 2 and (error.abs() < 4.5 * standard).all()


def test_baseline_makes_the_gradient_quieter_where_the_target_is_far():
    """Near the target there is nothing to take off: the slopes are 0 at pi = p as they are."""
    policy, p = table(0, prompts=1), table(1, 4.0, prompts=1).log_probs.detach()
    prompt, noise = torch.zeros(1, dtype=torch.long), {}
    for baseline in ("leave_one_out", "none"):
        objective, g = (
            get_objective(
                "f_dpg", divergence="reverse_kl", target="energy", baseline=baseline, normaliser="column"
            ),
            torch.Generator().manual_seed(0),
        )
        draws = []
        for _ in range(300):
            drawn = policy.sample(prompt, 8, generator=g)
            lists = policy.lists(prompt, drawn, p[0][drawn], old=policy)
            lists = replace(lists, extras={"log_z": torch.zeros(1, dtype=torch.float64)})
            draws.append(torch.autograd.grad(objective(lists).sum(), policy.logits)[0])
        noise[baseline] = torch.stack(draws).var(0).sum().item()
    assert noise["leave_one_out"] < 0.8 * noise["none"]


@pytest.mark.parametrize("name", NAMES)
def test_every_divergence_leads_to_a_target_that_can_be_represented(name):
    policy, p = table(0), table(1).log_probs.detach()
    divergence, objective = get_divergence(name), exact(name)
    before = divergence.between(policy.log_probs, p).max().item()
    descend(policy, lambda: objective(everything(policy, p)).sum(), steps=600, learning_rate=0.05)
    # The slope of total variation does not fade near its minimum: smaller steps at the end.
    descend(policy, lambda: objective(everything(policy, p)).sum(), steps=300, learning_rate=0.001)
    after = divergence.between(policy.log_probs, p).max().item()
    assert before > 0.1 and after < 1e-3


class Factorised(torch.nn.Module):
    """Two independent halves: responses are pairs of letters, so that two opposite corners can't be had alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.halves = torch.nn.Parameter(0.01 * torch.randn(2, 7, generator=g, dtype=torch.float64))

    def log_probs(self) -> Tensor:
        first, second = self.halves.log_softmax(-1)
        return (first[:, None] + second[None]).view(1, -1)


def test_a_policy_that_cannot_have_both_modes_takes_one_under_reverse_kl_and_both_under_forward_kl():
    target = torch.full((7, 7), 1e-3, dtype=torch.float64)
    target[1, 1] = target[5, 5] = 0.5
    p = (target / target.sum()).log().view(1, -1)
    ends, entropy = {}, {}
    for name in ("reverse_kl", "js", "forward_kl"):
        policy, objective = Factorised(0), exact(name)

        def loss(policy=policy, objective=objective) -> Tensor:
            logp = policy.log_probs()
            ones, even = torch.ones_like(logp), torch.full_like(logp, -math.log(49))
            return objective(ListLogps(logp, ones, ones.bool(), p, old=even)).sum()

        descend(policy, loss, steps=1500, learning_rate=0.03)
        final = policy.log_probs().detach()
        ends[name] = final.exp().view(7, 7)[[1, 5], [1, 5]]
        entropy[name] = -(final.exp() * final).sum().item()
    print({k: [f"{x:.2f}" for x in v.tolist()] for k, v in ends.items()}, entropy)
    assert ends["reverse_kl"].max() >= 0.9
    assert ends["forward_kl"].min() >= 0.2
    assert entropy["reverse_kl"] < entropy["js"] < entropy["forward_kl"]


def test_reverse_kl_to_the_tilted_reference_is_rlhf():
    reward, ref, beta = table(3).logits.detach(), table(4).frozen(), 0.5
    policy, objective = TabularPolicy(ref.logits), exact("reverse_kl", target="tilted", beta=beta)
    descend(policy, lambda: objective(everything(policy, reward, ref)).sum(), steps=800, learning_rate=0.05)
    best = TabularPolicy(ref.logits)
    descend(best, lambda: -(best.expected(reward) - beta * best.kl(ref)).sum(), steps=800, learning_rate=0.05)
    torch.testing.assert_close(policy.probs, best.probs, rtol=0, atol=1e-3)
    assert policy.total_variation(ref).min() > 0.2


def test_hard_constraints_are_met_where_the_divergence_can_have_them():
    ref = table(4).frozen()
    allowed = torch.arange(RESPONSES) < 20
    scores = torch.where(allowed, 0.0, -torch.inf).double().expand(2, -1)
    wanted = (ref.probs * allowed) / (ref.probs * allowed).sum(-1, keepdim=True)
    for name in ("js", "forward_kl"):
        policy, objective = TabularPolicy(ref.logits), exact(name, target="tilted", beta=1.0)

        def loss(policy=policy, objective=objective) -> Tensor:
            return objective(everything(policy, scores, ref)).sum()

        descend(policy, loss, steps=800, learning_rate=0.05)
        assert (policy.probs - wanted).abs().max() < 0.01
        assert policy.probs[:, ~allowed].sum(-1).max() < 0.02
        start, divergence = TabularPolicy(ref.logits), get_divergence(name)
        (gradient,) = torch.autograd.grad(objective(everything(start, scores, ref)).sum(), start.logits)
        slope = divergence.slope(ref.log_probs - wanted.clamp(min=1e-300).log())
        slope = torch.where(allowed, slope, divergence.slope_at_infinity)
        torch.testing.assert_close(gradient, ref.probs * (slope - (ref.probs * slope).sum(-1, keepdim=True)))
        nothing_allowed = objective(everything(start, torch.full_like(scores, -torch.inf), ref))
        assert nothing_allowed.isfinite().all()
    with pytest.raises(DataError, match="rules out"):
        exact("reverse_kl", target="tilted")(everything(TabularPolicy(ref.logits), scores, ref))
