"""Objectives by name: options with one home for their defaults, and errors that say the way out."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from bundles import list_bundle, pair_bundle, unary_bundle

from accordance.core.catalogue import systems
from accordance.core.errors import ConfigError
from accordance.core.objective import ListLogps, PairLogps
from accordance.objectives import (
    get_objective,
    log_ratio,
    log_sigmoid,
    margin,
    objective,
    objective_names,
    objective_options,
    pairwise,
    weighted_sum,
)
from accordance.objectives.registry import _builders, _options


def test_every_objective_builds_from_its_defaults_and_tells_its_options():
    for name in objective_names():
        built = get_objective(name)
        assert built.name == name
        assert built.options == {key: option.default for key, option in objective_options(name).items()}


def test_options_have_types_help_and_choices():
    options = objective_options("ipo")
    assert options["beta"].type is float and options["beta"].default == 0.1
    assert "tau" in options["beta"].help
    assert options["reduction"].choices == get_args(options["reduction"].type) == ("sum", "mean")


def test_unknown_objective_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'simpo'"):
        get_objective("simp0")


def test_unknown_option_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'beta'"):
        get_objective("dpo", betta=0.1)


def test_option_without_effect_says_which_objectives_have_it():
    with pytest.raises(ConfigError, match="label_smoothing has no effect on hinge") as error:
        get_objective("hinge", label_smoothing=0.1)
    assert "dpo" in error.value.remedy and "robust" in error.value.remedy
    assert error.value.expected == "one of: beta, reduction"


def test_squashing_scores_that_are_not_used_is_refused():
    with pytest.raises(ConfigError, match="squash"):
        get_objective("pro", temperatures=False, squash="none")


@pytest.mark.parametrize("name, options", [
    ("dpo", {"beta": 0}),
    ("dpo", {"beta": -0.1}),
    ("dpo", {"beta": "0.1"}),
    ("dpo", {"beta": True}),
    ("dpo", {"beta": float("nan")}),
    ("dpo", {"beta": None}),
    ("dpo", {"label_smoothing": 0.5}),
    ("robust", {"label_smoothing": 0.7}),
    ("exo_pair", {"label_smoothing": 0.0}),
    ("ipo", {"reduction": "average"}),
    ("bco", {"shift": 1}),
    ("cpo", {"nll_weight": -1.0}),
    ("pro", {"alpha": -1.0}),
    ("kto", {"desirable_weight": 0.0}),
])  # fmt: skip
def test_values_that_can_not_be_used_are_refused_and_named(name, options):
    with pytest.raises(ConfigError) as error:
        get_objective(name, **options)
    assert next(iter(options)) in str(error.value)


def test_whole_numbers_are_taken_for_floats():
    assert get_objective("dpo", beta=1).options["beta"] == 1.0


def test_builders_check_their_arguments_when_called_directly():
    from accordance.objectives import dpo

    assert dpo(0.2).options == {"beta": 0.2, "label_smoothing": 0.0}
    with pytest.raises(ConfigError):
        dpo(beta="a lot")


def test_a_new_objective_is_a_few_lines():
    """An offset that grows with the judged gap (ODPO, arXiv:2402.10571) and a weight per pair."""
    try:

        @objective("gap_dpo")
        def gap_dpo(beta: float = 0.1, scale: float = 1.0):
            """DPO with an offset.

            Args:
                beta: as in DPO.
                scale: of the offset,
                    over two lines.
            """
            return pairwise(
                margin(log_sigmoid(), offset=lambda pairs: scale * pairs.gap.log1p()),
                score=log_ratio(),
                beta=beta,
                weight=lambda pairs: pairs.extras["trust"],
            )

        assert objective_options("gap_dpo")["scale"].help == "of the offset, over two lines."
        pairs = pair_bundle()
        gap, trust = torch.arange(6.0).double(), torch.linspace(0, 1, 6).double()
        pairs = PairLogps(**{**vars(pairs), "gap": gap, "extras": {"trust": trust}})
        chosen, rejected = get_objective("dpo").rewards(pairs)
        expected = -trust * torch.nn.functional.logsigmoid(chosen - rejected - gap.log1p())
        torch.testing.assert_close(get_objective("gap_dpo")(pairs), expected)
    finally:
        _builders.pop("gap_dpo", None), _options.pop("gap_dpo", None)


def test_builders_without_help_or_default_and_taken_names_are_refused():
    with pytest.raises(ValueError, match="registered twice"):
        objective("dpo")(lambda: None)
    with pytest.raises(ValueError, match="needs a type, a default and a help line"):

        @objective("bare")
        def bare(beta: float = 0.1):
            """No help."""


def test_the_four_systems_of_this_room_are_catalogued_with_their_proofs():
    proofs = {s.id: s.proof for s in systems()}
    assert proofs["S031"] == "tests/proofs/test_s031_bco.py"
    assert proofs["S052"] == "tests/proofs/test_s052_ln_dpo.py"
    assert proofs["S076"] == "tests/proofs/test_s076_pro.py"
    assert proofs["S162"] == "tests/proofs/test_s162_f_dpo.py"


# Sums.


def test_sum_adds_the_losses_with_their_weights():
    pairs = pair_bundle()
    total = get_objective("dpo+0.5*hinge", **{"dpo.beta": 0.2, "hinge.beta": 0.3})
    expected = get_objective("dpo", beta=0.2)(pairs) + 0.5 * get_objective("hinge", beta=0.3)(pairs)
    torch.testing.assert_close(total(pairs), expected)
    assert total.name == "dpo+0.5*hinge" and total.options["dpo.beta"] == 0.2


def test_sft_in_a_sum_with_pairs_is_the_mean_over_the_chosen_tokens():
    pairs = pair_bundle()
    total = get_objective("dpo + 0.1 * sft", beta=0.2)
    assert total.unit == "examples" and total.reference
    expected = get_objective("dpo", beta=0.2)(pairs) - 0.1 * pairs.chosen / pairs.chosen_length
    torch.testing.assert_close(total(pairs), expected)
    torch.testing.assert_close(total.rewards(pairs), get_objective("dpo", beta=0.2).rewards(pairs))


def test_sum_of_cpo_parts_is_cpo():
    pairs = pair_bundle()
    simpo = get_objective("simpo+0.3*sft", gamma=0.0, beta=0.7)
    expected = get_objective("cpo", nll_weight=0.3, beta=0.7)(
        PairLogps(
            pairs.chosen / pairs.chosen_length,
            pairs.rejected / pairs.rejected_length,
            torch.ones(6),
            torch.ones(6),
        )
    )
    torch.testing.assert_close(simpo(pairs), expected)
    assert not simpo.reference


def test_sft_in_a_sum_with_lists_is_on_the_best_response():
    lists = list_bundle()
    row, top = torch.arange(4), lists.scores.masked_fill(~lists.mask, -9).argmax(1)
    total = get_objective("plackett_luce+2*sft")
    expected = get_objective("plackett_luce")(lists) - 2 * lists.logp[row, top] / lists.length[row, top]
    torch.testing.assert_close(total(lists), expected)


def test_sum_of_unary_objectives_keeps_flags_and_shares_state():
    total = get_objective("bco+kto", **{"bco.beta": 0.2, "kto.beta": 0.1})
    assert total.labels and total.mismatched and set(total.state) == {"bco.reward_totals"}
    total(unary_bundle())
    assert total.state["bco.reward_totals"][:, 1].tolist() == [3, 3]


@pytest.mark.parametrize("text, message", [
    ("dpo+kto", "kto learns from thumbs"),
    ("dpo+pro", "different kinds of feedback"),
    ("dpo+dpo", "named twice"),
    ("dpo+sfd", "did you mean 'sft'"),
    ("dpo+", "names no objective"),
    ("", "names no objective"),
    ("dpo-0.1*sft", "names no objective"),
    ("dpo+0*sft", "above 0"),
    ("1.2.3*dpo", "no number"),
])  # fmt: skip
def test_sums_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        get_objective(text)


@pytest.mark.parametrize("options, message", [
    ({"beta": 0.1}, "dpo.beta or ipo.beta"),
    ({"gamma": 0.1}, "unknown option 'gamma'"),
    ({"hinge.beta": 0.1}, "unknown member of the sum 'hinge'"),
    ({"ipo.label_smoothing": 0.1}, "dpo.label_smoothing"),
])  # fmt: skip
def test_options_of_a_sum_must_be_clear(options, message):
    with pytest.raises(ConfigError, match=message):
        get_objective("dpo+ipo", **options)


def test_weights_in_sums_may_be_written_with_exponents():
    assert get_objective("dpo+1e-1*sft").name == "dpo+0.1*sft"
    assert get_objective("dpo+1e+1*sft").name == "dpo+10*sft"


def test_a_single_weighted_objective_is_scaled():
    pairs = pair_bundle()
    torch.testing.assert_close(get_objective("2*dpo")(pairs), 2 * get_objective("dpo")(pairs))


def test_sums_need_members():
    with pytest.raises(ConfigError, match="sum of no objectives"):
        weighted_sum([])


def test_bundles_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="dpo takes PairLogps"):
        get_objective("dpo")(list_bundle())
    assert get_objective("pro").bundle is ListLogps
