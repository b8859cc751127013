"""Wrappers: around every objective over pairs, neutral values are the base, and what can't be wrapped is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bundles import get_objective, pair_bundle

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import PairLogps
from accordance.objectives import (
    conflict,
    dpo,
    focal,
    ipo,
    known_options,
    label_confidence,
    lcpo,
    objective_names,
    objective_options,
    pair_weights,
    wpo,
    wrapper,
    wrapper_names,
)
from accordance.objectives.parts import log_ratio, log_sigmoid, margin, pairwise


def wrappable(name: str) -> bool:
    """Whether its pairs are two answers to one prompt, and it keeps no running values."""
    built = get_objective(name)
    if built.bundle is not PairLogps or built.arrange is not None or built.rewards is None:
        return False
    return not built.state and not built.ranked


PAIRWISE = [name for name in objective_names() if wrappable(name)]
AT_TOKENS = {"sparsepo"}  # gradients come through the tokens alone
AROUND = {"mapl", "spo"}  # they put more responses around a pair; see test_several
# The tokens of `full_bundle` are exactly as likely as what wpo holds them against.
NEUTRAL = {"lcpo": {"initial": 1.0}, "focal": {"exponent": 0.0}, "conflict": {}, "soft": {}, "wpo": {}}


def full_bundle(**changes) -> PairLogps:
    """Pairs with per-token values and every extra that a wrapper reads."""
    pairs = pair_bundle()
    lengths = torch.stack([pairs.chosen_length, pairs.rejected_length], 1).flatten()
    sums = torch.stack([pairs.chosen, pairs.rejected], 1).flatten()
    refs = torch.stack([pairs.ref_chosen, pairs.ref_rejected], 1).flatten()
    row = torch.arange(12).repeat_interleave(lengths)
    whole = pairs.tokens
    assert whole is not None
    each = (sums / lengths)[row]
    tokens = replace(whole, logp=each, row=row, ref=(refs / lengths)[row], collision=each)
    extras = {"annotator": torch.arange(6) % 3, "conflict": torch.ones(6), "soft_label": torch.ones(6)}
    return replace(pairs, tokens=tokens, extras={**pairs.extras, **extras, **changes})


def test_every_wrapper_has_a_neutral_value_in_this_test():
    assert sorted([*NEUTRAL, *AROUND]) == wrapper_names()


@pytest.mark.parametrize("outer", sorted(NEUTRAL))
@pytest.mark.parametrize("name", sorted(set(PAIRWISE) - AT_TOKENS))
def test_neutral_value_reproduces_the_base_bit_for_bit_with_its_gradient(name, outer):
    base = get_objective(name)
    wrapped = get_objective(f"{outer}({name})", **{f"{outer}.{k}": v for k, v in NEUTRAL[outer].items()})
    assert (wrapped.reference, wrapped.tokens) == (base.reference, base.tokens or outer == "wpo")
    results = []
    for objective in (base, wrapped):
        leaf = pair_bundle().chosen.requires_grad_()
        loss = objective(replace(full_bundle(), chosen=leaf))
        results.append((loss, torch.autograd.grad(loss.sum(), leaf)[0]))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("outer", sorted(NEUTRAL))
@pytest.mark.parametrize("name", sorted(set(PAIRWISE) - AT_TOKENS))
def test_losses_and_gradients_stay_finite_for_extreme_pairs(name, outer):
    for far in (-1e4, 1e4):
        pairs = full_bundle(conflict=torch.linspace(-1, 1, 6))
        leaf = (pairs.chosen + min(far, 0)).float().requires_grad_()
        ref = (pairs.ref_chosen - max(far, 0)).float()
        loss = get_objective(f"{outer}({name})")(replace(pairs, chosen=leaf, ref_chosen=ref))
        assert loss.isfinite().all() and torch.autograd.grad(loss.sum(), leaf)[0].isfinite().all()


# LCPO.


def test_lcpo_weighs_both_orientations_by_the_posterior():
    pairs, base = full_bundle(), dpo(beta=1.0)
    h = torch.sub(*base.rewards(pairs))
    right = 0.8 * h.sigmoid() / (0.8 * h.sigmoid() + 0.2 * (-h).sigmoid())
    expected = right * base(pairs) + (1 - right) * base(pairs.swapped())
    torch.testing.assert_close(lcpo(base, initial=0.8)(pairs), expected)
    torch.testing.assert_close(label_confidence(base, pairs, 0.8), right)


def test_lcpo_gives_the_probability_of_the_paper_for_ipo():
    """p = sigmoid(2 h / tau) in the paper's terms, h the difference of log-ratios."""
    pairs, base = full_bundle(), ipo(beta=0.5, reduction="sum")
    h = torch.sub(pairs.chosen_ratio, pairs.rejected_ratio)
    torch.testing.assert_close(label_confidence(base, pairs, 0.5), (2 * h / 0.5).sigmoid())


def test_lcpo_takes_no_gradient_through_its_weights():
    pairs = full_bundle()
    leaf = pairs.chosen.clone().requires_grad_()
    moved = replace(pairs, chosen=leaf)
    right = label_confidence(dpo(), pairs, 0.75)
    by_hand = right * dpo()(moved) + (1 - right) * dpo()(moved.swapped())
    ours = lcpo(dpo())(moved)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), leaf)[0] for x in (ours, by_hand)))


def test_reliabilities_move_per_annotator_and_only_where_gradients_are_recorded():
    pairs, objective = full_bundle(), lcpo(dpo(beta=1.0), memory=0.0)
    right = label_confidence(dpo(beta=1.0), pairs, 0.75)
    with torch.no_grad():
        objective(pairs)
    assert (objective.state["reliability"] == 0.75).all()
    objective(pairs)
    means = torch.stack([right[k::3].mean() for k in range(3)]).clamp(0.501, 0.999)
    torch.testing.assert_close(objective.state["reliability"][:3], means)
    assert (objective.state["reliability"][3:] == 0.75).all()


def test_memory_counts_labels_so_that_more_labels_move_a_reliability_further():
    few, many = lcpo(dpo(), memory=10.0), lcpo(dpo(), memory=10.0)
    pairs = full_bundle(annotator=torch.tensor([0, 1, 1, 1, 1, 1]))
    few(pairs)
    gap = (label_confidence(dpo(), pairs, 0.75)[0] - 0.75).item()
    moved = few.state["reliability"][0].item() - 0.75
    assert moved == pytest.approx(gap * (1 - 2.718281828459045**-0.1))
    many(replace(pairs, extras={}))  # without the column all labels are one annotator's
    assert (many.state["reliability"][1:] == 0.75).all() and many.state["reliability"][0] != 0.75


def test_too_many_annotators_are_refused_with_the_number_that_would_do():
    with pytest.raises(DataError, match="annotators=4"):
        lcpo(dpo(), annotators=2)(full_bundle())


# Focal and conflict weights.


def test_focal_weight_is_the_probability_of_being_wrong_to_the_exponent():
    pairs = full_bundle()
    p = torch.sub(*dpo().rewards(pairs)).sigmoid()
    torch.testing.assert_close(focal(dpo(), exponent=3.0)(pairs), (1 - p) ** 3 * -p.log())


def test_conflict_weights_keep_leave_out_and_turn_over():
    pairs = full_bundle(conflict=torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, 2.0]))
    plain, turned = dpo()(pairs), dpo()(pairs.swapped())
    expected = torch.stack([plain[0], plain[1] / 2, plain[2] * 0, turned[3] / 2, turned[4], 2 * plain[5]])
    torch.testing.assert_close(conflict(dpo())(pairs), expected)
    with pytest.raises(DataError, match="the bundle carries none"):
        conflict(dpo())(pair_bundle())


def test_swapping_pairs_swaps_their_tokens():
    pairs = full_bundle()
    swapped = pairs.swapped()
    sums = torch.zeros(12, dtype=torch.float64).index_add(0, swapped.tokens.row, swapped.tokens.logp)
    torch.testing.assert_close(sums[0::2], swapped.chosen)
    torch.testing.assert_close(sums[1::2], swapped.rejected)
    assert (swapped.tokens.row.diff() >= 0).all()
    assert torch.equal(swapped.swapped().tokens.ref, pairs.tokens.ref)


# WPO.


def test_wpo_weighs_a_pair_by_how_likely_the_policy_is_to_write_it_and_takes_no_gradient_through_that():
    pairs = pair_bundle()
    assert pairs.tokens is not None
    g = torch.Generator().manual_seed(3)
    sampled, greedy = -torch.rand(2, len(pairs.tokens.row), generator=g, dtype=torch.float64)
    logp = pairs.tokens.logp.clone().requires_grad_()
    pairs = replace(pairs, tokens=replace(pairs.tokens, logp=logp, collision=sampled, greatest=greedy))
    mean = (pairs.chosen / pairs.chosen_length + pairs.rejected / pairs.rejected_length).exp()
    torch.testing.assert_close(wpo(dpo(), alignment="none")(pairs), dpo()(pairs) * mean)
    for alignment, against in (("sampled", sampled), ("greedy", greedy)):
        apart = (pairs.tokens.logp - against).detach()
        by_hand = [
            sum(apart[pairs.tokens.row == 2 * i + side].mean() for side in (0, 1)).exp() for i in range(6)
        ]
        weights = pair_weights(pairs, alignment)
        torch.testing.assert_close(weights, torch.stack(by_hand))
        assert not weights.requires_grad
        torch.testing.assert_close(wpo(dpo(), alignment=alignment)(pairs), dpo()(pairs) * weights)


def test_wpo_asks_for_what_it_holds_tokens_against_and_refuses_pairs_without_it():
    whole = {a: get_objective("wpo(dpo)", alignment=a).whole for a in ("sampled", "greedy", "none")}
    assert whole == {"sampled": ("collision",), "greedy": ("greatest",), "none": ()}
    with pytest.raises(DataError, match="does not tell it"):
        get_objective("wpo(dpo)")(pair_bundle())
    assert get_objective("wpo(tdpo)").whole == ("kl", "collision")


@pytest.mark.parametrize("outer", ["wpo", "lcpo", "focal"])
@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_losses_that_sort_the_pairs_of_a_batch_are_not_weighed_pair_by_pair(outer, name):
    with pytest.raises(ConfigError, match="rank in the batch"):
        get_objective(f"{outer}({name})")


# Expressions.


def test_wrappers_and_sums_nest():
    pairs = full_bundle(conflict=torch.linspace(-1, 1, 6))
    named = get_objective("lcpo(conflict(dpo+0.1*sft))+0.5*hinge", **{"dpo.beta": 0.3, "initial": 0.9})
    inner = conflict(get_objective("dpo+0.1*sft", beta=0.3))
    torch.testing.assert_close(
        named(pairs), lcpo(inner, initial=0.9)(pairs) + 0.5 * get_objective("hinge")(pairs)
    )
    assert named.columns == ("conflict", "annotator")
    assert named.options["dpo.beta"] == 0.3 and named.options["lcpo.initial"] == 0.9
    assert list(named.state) == ["lcpo(conflict(dpo+0.1*sft)).reliability"]


def test_an_expression_tells_its_options_and_takes_them_back():
    assert {"beta", "dpo.beta", "exponent", "focal.exponent"} <= known_options("focal(dpo)")
    built = get_objective("focal( dpo )", beta=0.7)
    assert built.name == "focal(dpo)"
    assert get_objective("focal(dpo)", **built.options).options == built.options


def test_wrappers_are_listed_with_their_options_and_can_be_called():
    assert "lcpo" in wrapper_names() and "lcpo" not in objective_names()
    assert objective_options("lcpo")["initial"].default == 0.75
    custom = pairwise(margin(log_sigmoid()), score=log_ratio(), name="mine")
    assert focal(custom).name == "focal(mine)"


@pytest.mark.parametrize("text, message", [
    ("lcpo", r"write lcpo\(dpo\)"),
    ("dpo(sft)", "dpo is no wrapper"),
    ("lcpo(kto)", "lcpo can't wrap kto: it goes around losses of a chosen and a rejected"),
    ("lcpo(adpa)", "it does not say which of two answers is better"),
    ("lcpo(sft)", "sft takes unary"),
    ("focal(lcpo(dpo))", "focal can't wrap .*running values"),
    ("lcpo(dpo", "names no objective"),
    ("lcpo(dpo))", "names no objective"),
    ("lcpo()", "names no objective"),
    ("lcqo(dpo)", "did you mean 'lcpo'"),
    ("lcpo(dpo)+dpo", "dpo is named twice"),
    ("lcpo(dpo)+kto", "kto learns from thumbs"),
])  # fmt: skip
def test_expressions_that_make_no_sense_are_refused_with_the_reason(text, message):
    with pytest.raises(ConfigError, match=message):
        get_objective(text)


@pytest.mark.parametrize("options, message", [
    ({"lcpo.initial": 0.4}, "initial is out of range"),
    ({"memory": -1.0}, "memory is out of range"),
    ({"initial": 0.9, "lcpo.initial": 0.8}, "given twice"),
    ({"initail": 0.9}, "did you mean 'lcpo.initial'"),
])  # fmt: skip
def test_options_of_wrappers_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        get_objective("lcpo(dpo)", **options)


def test_a_wrapper_needs_help_for_its_options_and_a_free_name():
    with pytest.raises(ValueError, match="registered twice"):
        wrapper("dpo")(lambda base: base)
    with pytest.raises(ValueError, match="needs a type, a default and a help line"):

        @wrapper("bare")
        def bare(base, factor: float = 1.0):
            """No help."""
