"""Each objective equals TRL 1.16 on the same batch, in value and in gradient, to 1e-5."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from trl_losses import LogitPairs, TokenTable, trl_cpo, trl_dpo, trl_kto, trl_orpo, trl_rollouts

from accordance.core.objective import ListLogps, PairLogps, Tokens, UnaryLogps
from accordance.objectives import bco, get_objective

pytest.importorskip("trl")

# (our objective, our options, TRL's loss type, TRL's options)
DPO_FAMILY = [
    ("dpo", {"beta": 0.3}, "sigmoid", {"beta": 0.3}),
    ("ln_dpo", {"beta": 2.0}, "sigmoid_norm", {"beta": 2.0}),
    ("ipo", {"beta": 0.2}, "ipo", {"beta": 0.2}),
    ("hinge", {"beta": 0.4}, "hinge", {"beta": 0.4}),
    ("robust", {"beta": 0.3, "label_smoothing": 0.2}, "robust", {"beta": 0.3, "label_smoothing": 0.2}),
    ("nca", {"beta": 0.3}, "nca_pair", {"beta": 0.3}),
    ("bco_pair", {"beta": 0.3}, "bco_pair", {"beta": 0.3}),
    ("apo_zero", {"beta": 0.3}, "apo_zero", {"beta": 0.3}),
    ("apo_down", {"beta": 0.3}, "apo_down", {"beta": 0.3}),
    ("exo_pair", {"beta": 0.3, "label_smoothing": 0.1}, "exo_pair", {"beta": 0.3, "label_smoothing": 0.1}),
    ("aot", {"beta": 0.3}, "aot", {"beta": 0.3}),
    ("aot_unpaired", {"beta": 0.3}, "aot_unpaired", {"beta": 0.3}),
    (
        "aot_unpaired",
        {"beta": 0.3, "label_smoothing": 0.2},
        "aot_unpaired",
        {"beta": 0.3, "label_smoothing": 0.2},
    ),
    ("sppo", {"beta": 0.3}, "sppo_hard", {"beta": 0.3}),
    ("discopop", {"beta": 0.3, "tau": 0.07}, "discopop", {"beta": 0.3, "discopop_tau": 0.07}),
    (
        "f_dpo",
        {"beta": 0.3, "divergence": "js"},
        "sigmoid",
        {"beta": 0.3, "f_divergence_type": "js_divergence"},
    ),
    (
        "f_dpo",
        {"beta": 0.3, "divergence": "forward_kl"},
        "sigmoid",
        {"beta": 0.3, "f_divergence_type": "forward_kl"},
    ),
    (
        "f_dpo",
        {"beta": 0.3, "divergence": "alpha", "alpha": 0.7},
        "sigmoid",
        {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    ),
]


def assert_same(ours: Tensor, theirs: Tensor, leaf: Tensor) -> None:
    """Equal values, and equal gradients with respect to the leaf."""
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    assert gradients[0].abs().max() > 1e-4


@pytest.mark.parametrize("name, options, loss_type, trl_options", DPO_FAMILY)
def test_dpo_family_equals_trl(name, options, loss_type, trl_options):
    table = TokenTable.random(2 * 6, seed=1)
    assert_same(
        get_objective(name, **options)(table.pairs()).mean(),
        trl_dpo(table, loss_type, **trl_options),
        table.leaf,
    )


@pytest.mark.parametrize("name, options, loss_type, trl_options", DPO_FAMILY)
def test_dpo_family_equals_trl_pair_by_pair(name, options, loss_type, trl_options):
    ours, theirs = [], []
    for seed in range(8):
        table = TokenTable.random(2, seed=10 + seed, spread=3.0)
        ours.append(get_objective(name, **options)(table.pairs()))
        theirs.append(trl_dpo(table, loss_type, **trl_options).reshape(1))
    torch.testing.assert_close(torch.cat(ours), torch.cat(theirs), rtol=1e-5, atol=1e-5)


def with_tokens(table: TokenTable, collision: Tensor) -> PairLogps:
    """The pairs of a table with their tokens, rows 2i and 2i + 1 being chosen and rejected of pair i."""
    pairs, mask = table.pairs(), table.completion[:, 1:].bool()
    size = len(pairs.chosen)
    order = torch.arange(2 * size).view(2, size).T.flatten()  # from the table's halves to pairs
    row = torch.arange(2 * size).repeat_interleave(table.lengths[order])
    logp = torch.cat([table.logps[i][mask[i]] for i in order])
    against = torch.cat([collision[i][mask[i]] for i in order])
    return replace(pairs, tokens=Tokens(logp, row, collision=against))


@pytest.mark.parametrize("base, loss_type, options", [
    ("dpo", "sigmoid", {"beta": 0.3}), ("ipo", "ipo", {"beta": 0.2}), ("apo_down", "apo_down", {"beta": 0.4})
])  # fmt: skip
def test_wpo_equals_trls_weighting_around_any_loss(base, loss_type, options):
    """The weight has no gradient: its own would show in the gradients that are compared."""
    table = TokenTable.random(2 * 6, seed=11)
    collision = -torch.rand(table.ref.shape, generator=torch.Generator().manual_seed(1))
    ours = get_objective(f"wpo({base})", **options)(with_tokens(table, collision)).mean()
    assert_same(ours, trl_dpo(table, loss_type, collision, **options), table.leaf)
    assert not torch.allclose(ours, get_objective(base, **options)(table.pairs()).mean(), rtol=1e-2)


@pytest.mark.parametrize("name, options, trainer, trl_options", [
    ("grpo", {"clip": 0.1, "beta": 0.3}, "GRPOTrainer", {"epsilon_low": 0.1, "epsilon_high": 0.1, "beta": 0.3}),
    ("dr_grpo", {"max_length": 50}, "GRPOTrainer", {"loss_type": "dr_grpo", "max_completion_length": 50}),
    ("dapo", {}, "GRPOTrainer", {"loss_type": "dapo", "epsilon_high": 0.28}),
    ("gspo", {"clip": 0.05, "clip_high": 0.08}, "GRPOTrainer",
     {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.08}),
    ("rloo", {}, "RLOOTrainer", {}),
])  # fmt: skip
def test_policy_gradients_equal_trl(name, options, trainer, trl_options):
    table = TokenTable.random(12, seed=12)
    generator = torch.Generator().manual_seed(2)
    old = table.logps.detach() + 0.3 * torch.randn(table.ref.shape, generator=generator)
    old = old * table.completion[:, 1:]
    advantages = torch.randn(12, generator=generator)
    mask = table.completion[:, 1:].bool()
    row = torch.arange(12).repeat_interleave(table.lengths)
    lists = ListLogps(
        table.logps.sum(1).view(3, 4),
        table.lengths.view(3, 4),
        torch.ones(3, 4, dtype=torch.bool),
        ref=table.ref.sum(1).view(3, 4),
        old=old.sum(1).view(3, 4),
        tokens=Tokens(table.logps[mask], row, table.ref[mask]),
        old_tokens=old[mask],
        extras={"advantages": advantages.view(3, 4)},
    )
    objective = get_objective(name, **options)
    losses = objective(lists)
    ours = losses.sum() / table.lengths.sum() if objective.unit == "tokens" else losses.mean()
    assert_same(ours, trl_rollouts(table, old, advantages, trainer, **trl_options), table.leaf)


def test_rewards_of_dpo_are_those_that_trl_logs():
    table = TokenTable.random(2 * 6, seed=2)
    chosen, rejected = get_objective("dpo", beta=0.3).rewards(table.pairs())
    ratio_chosen, ratio_rejected = (table.logps - table.ref).sum(1).chunk(2)
    torch.testing.assert_close(chosen, 0.3 * ratio_chosen)
    torch.testing.assert_close(rejected, 0.3 * ratio_rejected)


def test_sft_on_the_chosen_equals_trl_per_token():
    table = TokenTable.random(2 * 6, seed=3)
    pairs = table.pairs()
    losses = get_objective("sft")(UnaryLogps(pairs.chosen, pairs.chosen_length))
    assert_same(losses.sum() / pairs.chosen_length.sum(), trl_dpo(table, "sft"), table.leaf)


def test_bco_without_shift_equals_trls_pairwise_bco_where_ups_and_downs_are_pairs():
    table = TokenTable.random(2 * 6, seed=4)
    up = torch.arange(12) < 6
    bundle = UnaryLogps(table.logps.sum(1), table.lengths, label=up, ref=table.ref.sum(1))
    loss = bco(beta=0.3, shift=False)(bundle).mean()
    assert_same(loss, trl_dpo(table, "bco_pair", beta=0.3), table.leaf)


def unary(table: TokenTable, label: Tensor, kl: Tensor) -> UnaryLogps:
    return UnaryLogps(table.logps.sum(1), table.lengths, label, table.ref.sum(1), kl_logp=kl[0], kl_ref=kl[1])


@pytest.mark.parametrize("ups", [0, 1, 4, 8], ids="{} ups of 8".format)
@pytest.mark.parametrize("kl_shift", [1.5, -1.5], ids=["positive KL", "KL below 0"])
def test_kto_equals_trl(ups, kl_shift):
    table = TokenTable.random(8, seed=5)
    kl = torch.randn(2, 8) - 9
    kl[0] += kl_shift
    bundle = unary(table, torch.arange(8) < ups, kl)
    options = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.7}
    loss = get_objective("kto", **options)(bundle).mean()
    assert_same(loss, trl_kto(table, bundle, **options), table.leaf)


def test_unpaired_apo_zero_equals_trl():
    table = TokenTable.random(8, seed=6)
    bundle = unary(table, torch.arange(8) % 3 == 0, torch.zeros(2, 8))
    loss = get_objective("apo_zero_unpaired", beta=0.3)(bundle).mean()
    assert_same(loss, trl_kto(table, bundle, "apo_zero_unpaired", beta=0.3), table.leaf)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_cpo_equals_trl_with_likelihood_per_token_of_the_batch(smoothing, weight):
    data = LogitPairs.random(5, seed=7)
    ours = get_objective("cpo", beta=0.3, nll_weight=weight, nll_average="batch", label_smoothing=smoothing)
    theirs = trl_cpo(data, "sigmoid", beta=0.3, cpo_alpha=weight, label_smoothing=smoothing)
    assert_same(ours(data.pairs()).mean(), theirs, data.logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_equals_trl(smoothing):
    data = LogitPairs.random(5, seed=8)
    ours = get_objective("simpo", beta=2.0, gamma=0.8, label_smoothing=smoothing)
    theirs = trl_cpo(data, "simpo", beta=2.0, simpo_gamma=0.8, cpo_alpha=0.0, label_smoothing=smoothing)
    assert_same(ours(data.pairs()).mean(), theirs, data.logits)


def test_orpo_equals_trl_where_the_prompt_is_left_out_of_the_likelihood():
    data = LogitPairs.random(5, seed=9)
    ours = get_objective("orpo", beta=0.3, nll_average="batch")
    assert_same(ours(data.pairs()).mean(), trl_orpo(data, beta=0.3), data.logits)


@pytest.mark.parametrize("name, trl_loss", [("orpo", "orpo"), ("cpo", "sigmoid")])
def test_default_likelihood_average_equals_trl_on_a_single_pair(name, trl_loss):
    data = LogitPairs.random(1, seed=10)
    theirs = trl_orpo(data, beta=0.3) if trl_loss == "orpo" else trl_cpo(data, trl_loss, beta=0.3)
    assert_same(get_objective(name, beta=0.3)(data.pairs()).mean(), theirs, data.logits)
