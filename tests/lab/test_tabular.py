"""Tabular policies: exact expectations agree with enumeration and sampling, bundles carry what objectives read."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from accordance.lab.tabular import TabularPolicy, TokenTable, descend


def table(seed: int = 0, prompts: int = 3, responses: int = 4) -> TabularPolicy:
    return TabularPolicy(
        torch.randn(prompts, responses, generator=torch.Generator().manual_seed(seed)).double()
    )


def token_table(seed: int = 0, prompts: int = 2, steps: int = 3, vocabulary: int = 3) -> TokenTable:
    g = torch.Generator().manual_seed(seed)
    return TokenTable(torch.randn(prompts, steps, vocabulary + 1, vocabulary, generator=g).double())


def all_responses(policy: TokenTable) -> torch.Tensor:
    """Every response there is: an end token closes it, or the last step cuts it."""
    end, rows = policy.vocabulary - 1, set()
    for row in product(range(policy.vocabulary), repeat=policy.steps):
        stop = row.index(end) + 1 if end in row else policy.steps
        rows.add(row[:stop] + (-1,) * (policy.steps - stop))
    return torch.tensor(sorted(rows))


def test_exact_expectations_of_a_table_agree_with_samples():
    policy, other = table(0), table(1)
    g = torch.Generator().manual_seed(0)
    reward = torch.randn(3, 4, generator=g).double()
    preference = torch.rand(3, 4, 4, generator=g).double()
    prompt = torch.arange(3)
    mine = policy.sample(prompt, 40_000, generator=g)
    theirs = other.sample(prompt, 40_000, generator=g)
    sampled = reward.gather(1, mine).mean(1)
    torch.testing.assert_close(policy.expected(reward), sampled, rtol=0, atol=0.03)
    wins = preference[prompt[:, None], mine, theirs].mean(1)
    torch.testing.assert_close(policy.win_rate(other, preference), wins, rtol=0, atol=0.01)
    torch.testing.assert_close(policy.win_rate(other, preference[0])[0], policy.win_rate(other, preference)[0])
    ratio = (policy.log_probs - other.log_probs).gather(1, mine).mean(1)
    torch.testing.assert_close(policy.kl(other), ratio, rtol=0, atol=0.03)


def test_kl_and_total_variation_vanish_only_against_oneself():
    policy = table()
    assert policy.kl(policy.frozen()).abs().max() < 1e-12 and policy.kl(table(1)).min() > 1e-3
    assert policy.total_variation(policy.frozen()).max() == 0 and policy.total_variation(table(1)).min() > 1e-3


def test_bundles_of_a_table_carry_log_probs_lengths_and_the_reference():
    policy, ref = TabularPolicy(table(0).logits, lengths=torch.arange(12).view(3, 4) + 1), table(1).frozen()
    prompt, chosen, rejected = torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([0, 2])
    pairs = policy.pairs(prompt, chosen, rejected, ref=ref, gap=torch.ones(2))
    torch.testing.assert_close(pairs.chosen_ratio, (policy.log_probs - ref.log_probs)[prompt, chosen])
    assert pairs.rejected_length.tolist() == [1, 11] and pairs.gap is not None
    assert pairs.chosen.requires_grad and not pairs.ref_chosen.requires_grad
    single = policy.single(prompt, chosen, torch.tensor([True, False]), ref=ref)
    torch.testing.assert_close(single.ratio, pairs.chosen_ratio)
    lists = policy.lists(prompt, torch.stack([chosen, rejected], 1), ref=ref, old=policy)
    torch.testing.assert_close(lists.logp, torch.stack([pairs.chosen, pairs.rejected], 1))
    assert lists.mask.all() and not lists.old.requires_grad
    assert policy.pairs(prompt, chosen, rejected).ref_chosen is None


def test_probabilities_of_all_sequences_add_up_to_one():
    policy = token_table()
    responses = all_responses(policy)
    for prompt in range(2):
        logp = policy.logp(torch.full((len(responses),), prompt), responses)
        assert logp.exp().sum().item() == pytest.approx(1)


def test_exact_kl_and_length_of_sequences_agree_with_enumeration():
    policy, ref = token_table(0), token_table(1)
    responses = all_responses(policy)
    for p in range(2):
        prompt = torch.full((len(responses),), p)
        own, theirs = policy.logp(prompt, responses), ref.logp(prompt, responses)
        torch.testing.assert_close(policy.kl(ref)[p], (own.exp() * (own - theirs)).sum())
        length = (own.exp() * policy.length(prompt, responses)).sum()
        torch.testing.assert_close(policy.expected_length()[p], length)


def test_samples_of_sequences_follow_their_probabilities():
    policy = token_table()
    responses = all_responses(policy)
    drawn = policy.sample(torch.zeros(40_000, dtype=torch.long), generator=torch.Generator().manual_seed(0))
    counts = (drawn[:, None] == responses).all(-1).double().mean(0)
    assert counts.sum() == 1  # nothing else is ever drawn
    exact = policy.logp(torch.zeros(len(responses), dtype=torch.long), responses).exp()
    torch.testing.assert_close(counts, exact.detach(), rtol=0, atol=0.01)


def test_per_token_values_add_up_to_the_sums_of_the_bundle():
    policy, ref = token_table(0), token_table(1).frozen()
    prompt = torch.tensor([0, 1, 1])
    g = torch.Generator().manual_seed(0)
    chosen, rejected = (policy.sample(prompt, generator=g) for _ in range(2))
    pairs = policy.pairs(prompt, chosen, rejected, ref=ref)
    sums = torch.zeros(6).double().index_add(0, pairs.tokens.row, pairs.tokens.logp)
    torch.testing.assert_close(sums, torch.stack([pairs.chosen, pairs.rejected], 1).flatten())
    ref_sums = torch.zeros(6).double().index_add(0, pairs.tokens.row, pairs.tokens.ref)
    torch.testing.assert_close(ref_sums[::2], pairs.ref_chosen)
    assert pairs.tokens.row.bincount().tolist()[::2] == pairs.chosen_length.tolist()


def test_descent_stops_where_it_is_told():
    policy, goal = table(), torch.zeros(3, 4).double()
    taken = descend(
        policy,
        lambda: (policy.logits - goal).square().sum(),
        steps=500,
        learning_rate=0.1,
        method="gradient",
        until=lambda: policy.logits.abs().max().item() < 1e-3,
    )
    assert taken < 500 and policy.logits.abs().max() < 1e-3
