"""Objectives that learn from a teacher: each term is what it says, averaged over tokens, with the right sign."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bundles import pair_bundle

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import PairLogps
from accordance.objectives import get_objective


def sums(pairs: PairLogps, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    assert pairs.tokens is not None
    total = torch.zeros(12, dtype=torch.float64).index_add(0, pairs.tokens.row, getattr(pairs.tokens, name))
    return total[0::2], total[1::2]


def test_dckd_is_likelihood_plus_the_mean_divergence_on_both_answers():
    pairs = pair_bundle()
    chosen, rejected = sums(pairs, "teacher_kl")
    nll = -pairs.chosen / pairs.chosen_length
    expected = 2 * nll + 0.5 * (chosen / pairs.chosen_length + rejected / pairs.rejected_length)
    torch.testing.assert_close(get_objective("dckd", alpha=0.5, nll_weight=2.0)(pairs), expected)
    torch.testing.assert_close(get_objective("dckd", alpha=0.0)(pairs), nll)


def test_adpa_is_likelihood_less_the_mean_advantage_on_the_students_own_answer():
    pairs = pair_bundle()
    nll = -pairs.chosen / pairs.chosen_length
    expected = nll - 0.5 * sums(pairs, "advantage")[1] / pairs.rejected_length
    torch.testing.assert_close(get_objective("adpa", gamma=0.5)(pairs), expected)
    torch.testing.assert_close(get_objective("adpa", gamma=0.0)(pairs), nll)


@pytest.mark.parametrize("name", ["adpa", "dckd", "tdpo"])
def test_without_what_they_read_the_error_says_what_is_missing(name):
    pairs = pair_bundle()
    assert pairs.tokens is not None
    bare = replace(pairs.tokens, kl=None, teacher_kl=None, advantage=None)
    with pytest.raises(DataError, match="whole distributions"):
        get_objective(name)(replace(pairs, tokens=bare))


def test_own_answers_do_not_go_with_objectives_that_read_the_rejected_ones():
    with pytest.raises(ConfigError, match="own answers in the rejected ones' place"):
        get_objective("adpa+dpo")
    assert get_objective("adpa+0.1*sft").own_answers
