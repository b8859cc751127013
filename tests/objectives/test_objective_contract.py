"""What every registered objective owes: shape, gradients, no NaN, honest flags, neutral values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bundles import (
    bundle_for,
    get_objective,
    list_bundle,
    pair_bundle,
    policy_fields,
    unary_bundle,
    with_policy,
)

from accordance.core.errors import DataError, MissingReference
from accordance.core.objective import ListLogps, PairLogps, UnaryLogps
from accordance.objectives import objective_names, objective_options

# They read the tokens of one answer under two prompts, or a teacher; see test_language and test_distillation.
APART = {"cut", "dckd", "adpa"}

VARIANTS = [
    *((name, {}) for name in objective_names() if name not in APART),
    *(("f_dpo", {"divergence": d}) for d in ("reverse_kl", "forward_kl", "alpha")),
    ("dpo", {"label_smoothing": 0.2}),
    ("robust", {"label_smoothing": 0.3}),
    ("ipo", {"reduction": "sum"}),
    ("bco", {"average": "all"}),
    ("bco", {"shift": False}),
    ("orpo", {"nll_average": "batch"}),
    ("cpo", {"nll_average": "sum"}),
    ("plackett_luce", {"reference": False, "reduction": "mean"}),
    ("pro", {"temperatures": False}),
    ("pro", {"squash": "range"}),
    ("sppo", {"beta": 0.1}),
    ("inpo", {"eta": 0.1, "tau": 0.02, "labels": "soft", "reduction": "mean"}),
    ("gspo", {"clip": 0.2, "clip_high": 0.3}),
    ("grao", {"statistics": "samples"}),
    ("ppo", {"beta": 0.0, "normalise": "none", "clip": None, "clip_value": None, "whiten": False}),
    ("reinforce", {"baseline": "leave_one_out", "scale": "group", "beta": 0.1}),
    ("sami", {"reduction": "sum"}),
    ("tdpo", {"alpha": 1.0, "detach_chosen": False}),
    ("sparsepo", {"masks": "independent", "l1_reward": 0.1, "l1_kl": 0.2}),
    ("sparsepo", {"masks": "activation"}),
]
each_variant = pytest.mark.parametrize(
    "name, options", VARIANTS, ids=[f"{name}({', '.join(map(str, o.values()))})" for name, o in VARIANTS]
)


def leaves_of(bundle):
    return [getattr(bundle, field).detach().clone().requires_grad_() for field in policy_fields(bundle)]


@each_variant
def test_gives_one_finite_loss_per_example_in_the_dtype_of_the_bundle(name, options):
    for dtype in (torch.float32, torch.float64):
        objective = get_objective(name, **options)
        bundle = bundle_for(objective.bundle, dtype=dtype)
        loss = objective(bundle)
        assert loss.shape == (len(getattr(bundle, policy_fields(bundle)[0])),)
        assert loss.dtype == dtype and loss.isfinite().all()


@each_variant
def test_gradient_equals_finite_differences(name, options):
    if name == "f_dpg":
        pytest.skip("a surrogate: its gradient is held against that of the divergence in its proof")
    objective = get_objective(name, **options)
    bundle = bundle_for(objective.bundle)
    leaves = leaves_of(bundle)
    # A running shift stays what it is while gradients are off, so differences are taken at the same shift.
    gradients = torch.autograd.grad(objective(with_policy(bundle, *leaves)).sum(), leaves)
    with torch.no_grad():
        for i, (leaf, gradient) in enumerate(zip(leaves, gradients)):
            for position in range(leaf.numel()):
                step = torch.zeros(leaf.numel(), dtype=leaf.dtype)
                step[position] = 1e-5
                sides = []
                for sign in (1, -1):
                    moved = [x + sign * step.view_as(x) if j == i else x for j, x in enumerate(leaves)]
                    sides.append(objective(with_policy(bundle, *moved)).sum())
                slope = (sides[0] - sides[1]) / 2e-5
                assert gradient.flatten()[position] == pytest.approx(slope.item(), rel=1e-5, abs=1e-7)


@each_variant
@pytest.mark.parametrize("extreme", [-1e4, 1e4])
@pytest.mark.parametrize("which", ["chosen", "rejected", "both"])
def test_extreme_log_ratios_give_no_nan_and_no_infinity(name, options, extreme, which):
    objective = get_objective(name, **options)
    bundle = bundle_for(objective.bundle, dtype=torch.float32)
    sides = (
        {"chosen": "ref_chosen", "rejected": "ref_rejected"}
        if objective.bundle is PairLogps
        else {"logp": "ref"}
    )
    for policy, reference in sides.items():
        if which in (policy, "both") or policy == "logp":
            # Log-probabilities stay at or below 0: a ratio of +1e4 comes from the reference.
            moved = {policy: getattr(bundle, policy) + min(extreme, 0)}
            bundle = replace(bundle, **moved, **{reference: getattr(bundle, reference) - max(extreme, 0)})
    leaves = leaves_of(bundle)
    loss = objective(with_policy(bundle, *leaves))
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), leaves))


@each_variant
def test_certain_responses_give_no_nan(name, options):
    objective = get_objective(name, **options)
    bundle = bundle_for(objective.bundle, dtype=torch.float32)
    leaves = [torch.zeros_like(leaf, requires_grad=True) for leaf in leaves_of(bundle)]
    loss = objective(with_policy(bundle, *leaves))
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), leaves))


@each_variant
def test_reference_flag_is_true_exactly_where_the_loss_reads_the_reference(name, options):
    objective = get_objective(name, **options)
    bundle = bundle_for(objective.bundle)
    fields = ("ref_chosen", "ref_rejected") if objective.bundle is PairLogps else ("ref",)
    bare = replace(bundle, **dict.fromkeys(fields))
    if getattr(bare, "tokens", None) is not None:
        bare = replace(bare, tokens=replace(bare.tokens, ref=None))
    if objective.reference:
        with pytest.raises(MissingReference):
            objective(bare)
    else:
        torch.testing.assert_close(objective(bare), objective(bundle))


@each_variant
def test_labels_and_mismatched_flags_are_true_exactly_where_they_are_read(name, options):
    objective = get_objective(name, **options)
    if objective.bundle is not UnaryLogps:
        assert not objective.labels and not objective.mismatched
        return
    bundle = unary_bundle()
    for flag, fields, error in (
        (objective.labels, ["label"], DataError),
        (objective.mismatched, ["kl_logp", "kl_ref"], MissingReference),
    ):
        bare = replace(bundle, **dict.fromkeys(fields))
        if flag:
            with pytest.raises(error):
                objective(bare)
        else:
            get_objective(name, **options)(bare)


@each_variant
def test_weights_of_the_bundle_are_left_to_the_trainer(name, options):
    bundle = bundle_for(get_objective(name, **options).bundle)
    weighted = replace(bundle, weight=torch.full((len(getattr(bundle, policy_fields(bundle)[0])),), 7.0))
    torch.testing.assert_close(get_objective(name, **options)(weighted), get_objective(name, **options)(bundle))


PAIRWISE = [n for n in objective_names() if get_objective(n).bundle is PairLogps and n not in APART]


@pytest.mark.parametrize("name", PAIRWISE)
def test_loss_falls_as_the_chosen_reward_grows_over_the_rejected(name):
    objective = get_objective(name)
    pairs = pair_bundle()
    leaf = pairs.rejected.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(with_policy(pairs, pairs.chosen, leaf)).sum(), leaf)
    if name == "ipo":  # pairs beyond the target are pulled back to it
        assert torch.equal(gradient > 0, torch.sub(*objective.rewards(pairs)) < 0.5)
    elif name == "egpo":  # to the gap of the win rates
        assert torch.equal(gradient > 0, torch.sub(*objective.rewards(pairs)) < pairs.gap)
    elif name == "discopop":  # known to rise and fall again around 0; here all but one pair are beside that dip
        assert (gradient > 0).sum() == 5
    else:
        assert (gradient >= 0).all() and gradient.max() > 0


@pytest.mark.parametrize("name", [n for n in objective_names() if get_objective(n).rewards])
def test_rewards_grow_with_the_policys_log_probability(name):
    objective = get_objective(name)
    bundle = bundle_for(objective.bundle)
    leaves = leaves_of(bundle)
    rewards = objective.rewards(with_policy(bundle, *leaves))
    rewards = rewards if isinstance(rewards, tuple) else (rewards,)
    for leaf, reward in zip(leaves, rewards):
        (gradient,) = torch.autograd.grad(reward.sum(), leaf, retain_graph=True)
        mask = bundle.mask if isinstance(bundle, ListLogps) else torch.ones_like(leaf, dtype=torch.bool)
        grows = gradient[mask] >= 0 if name == "sparsepo" else gradient[mask] > 0  # a mask may be 0
        assert reward.shape == leaf.shape and grows.all() and gradient.max() > 0


# (variant at its neutral value, base): the same losses on the same bundle.
NEUTRAL = [
    ("dpo", {"label_smoothing": 0.0}, "f_dpo", {"divergence": "reverse_kl"}),
    ("robust", {"label_smoothing": 0.0}, "dpo", {}),
    ("ln_dpo", {"beta": 0.1}, "f_dpo", {"divergence": "reverse_kl", "reduction": "mean"}),
    ("cpo", {"beta": 1.0, "nll_weight": 0.0}, "cpo", {"beta": 1.0, "nll_weight": 1e-12}),
]


@pytest.mark.parametrize("name, options, base, base_options", NEUTRAL)
def test_neutral_value_reproduces_the_base_method(name, options, base, base_options):
    pairs = pair_bundle()
    torch.testing.assert_close(
        get_objective(name, **options)(pairs), get_objective(base, **base_options)(pairs)
    )


# EXO's smoothing is inside a KL and can't be 0.
SMOOTHED = [n for n in objective_names() if "label_smoothing" in objective_options(n) and n != "exo_pair"]


@pytest.mark.parametrize("name", SMOOTHED)
def test_label_smoothing_mixes_the_loss_with_that_of_the_swapped_pair(name):
    """At 0 it is the base; at e the two-sided average (for `robust` its unbiased inverse)."""
    pairs, options = pair_bundle(), {"cpo": {"nll_weight": 0.0}, "simpo": {"gamma": 0.0}}.get(name, {})
    base = get_objective(name, label_smoothing=0.0, **options)
    smooth = get_objective(name, label_smoothing=0.2, **options)(pairs)
    plain, swapped = base(pairs), base(pairs.swapped())
    expected = (0.8 * plain - 0.2 * swapped) / 0.6 if name == "robust" else 0.8 * plain + 0.2 * swapped
    if base.ranked:  # which pair a rank's loss stands at may turn over with the pairs
        smooth, expected = smooth.sum(), expected.sum()
    torch.testing.assert_close(smooth, expected)


def test_length_normalisation_is_neutral_where_every_response_is_one_token():
    pairs = replace(pair_bundle(), chosen_length=torch.ones(6), rejected_length=torch.ones(6))
    torch.testing.assert_close(get_objective("ln_dpo", beta=0.1)(pairs), get_objective("dpo")(pairs))
    for name in ("ipo", "hinge", "f_dpo"):
        by = [get_objective(name, reduction=reduction)(pairs) for reduction in ("sum", "mean")]
        torch.testing.assert_close(*by)


def test_duplicating_every_token_doubles_the_margin_of_dpo_and_leaves_that_of_ln_dpo():
    pairs = pair_bundle()
    double = PairLogps(
        *(2 * x for x in (pairs.chosen, pairs.rejected, pairs.chosen_length, pairs.rejected_length)),
        *(2 * x for x in (pairs.ref_chosen, pairs.ref_rejected)),
    )
    for name, factor in (("dpo", 2), ("ln_dpo", 1)):
        objective = get_objective(name)
        once, twice = (torch.sub(*objective.rewards(p)) for p in (pairs, double))
        torch.testing.assert_close(twice, factor * once)


def test_kto_with_equal_weights_of_one_and_no_kl_is_unpaired_apo_zero():
    bundle = unary_bundle()
    same = replace(bundle, kl_logp=bundle.kl_ref)
    torch.testing.assert_close(get_objective("kto")(same), get_objective("apo_zero_unpaired")(same))
    low = replace(bundle, kl_logp=bundle.kl_ref - 3)
    torch.testing.assert_close(get_objective("kto")(low), get_objective("kto")(same))


def test_pro_without_temperatures_and_sft_is_plain_plackett_luce():
    lists = list_bundle()
    torch.testing.assert_close(
        get_objective("pro", temperatures=False, alpha=0.0)(lists),
        get_objective("plackett_luce", beta=1.0, reduction="mean", reference=False)(lists),
    )


def test_plackett_luce_of_two_is_dpo():
    pairs = pair_bundle()
    lists = ListLogps(
        torch.stack([pairs.rejected, pairs.chosen], 1),
        torch.stack([pairs.rejected_length, pairs.chosen_length], 1),
        torch.ones(6, 2, dtype=torch.bool),
        torch.tensor([[0.0, 1.0]]).expand(6, 2),
        torch.stack([pairs.ref_rejected, pairs.ref_chosen], 1),
    )
    torch.testing.assert_close(get_objective("plackett_luce")(lists), get_objective("dpo")(pairs))
