"""TDPO and SparsePO: their neutral values, the sign of the divergences, and masks that are what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bundles import LAYERS, WIDTH, get_objective, pair_bundle
from torch.nn.functional import logsigmoid

from accordance.core.errors import ConfigError
from accordance.core.objective import PairLogps
from accordance.objectives.token_level import TokenMasks, activation_mask


def fixed(value: float, divergence: float | None = None, **options: Any) -> Any:
    """SparsePO whose masks are constants."""
    made = get_objective("sparsepo", masks="common" if divergence is None else "independent", **options)
    with torch.no_grad():
        made.module.read.zero_()
        made.module.mix.fill_(1 / (LAYERS + 1))
        made.module.shift[:, 0] = value
        if divergence is not None:
            made.module.shift[:, 1] = divergence
    return made


def sums(pairs: PairLogps, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    assert pairs.tokens is not None
    total = torch.zeros(12, dtype=torch.float64).index_add(0, pairs.tokens.row, values)
    return total[0::2], total[1::2]


def test_masks_of_one_are_tdpo_and_no_divergence_is_dpo():
    pairs = pair_bundle()
    plain = get_objective("tdpo", beta=0.3, alpha=1.0, detach_chosen=False)(pairs)
    torch.testing.assert_close(fixed(1.0, beta=0.3)(pairs), plain, rtol=1e-6, atol=1e-6)
    dpo = get_objective("dpo", beta=0.3)(pairs)
    torch.testing.assert_close(fixed(1.0, 0.0, beta=0.3)(pairs), dpo, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(get_objective("tdpo", beta=0.3, alpha=0.0)(pairs), dpo)


def test_tdpo_is_written_as_in_its_paper():
    """-log sigmoid(u - alpha (beta D(rejected) - beta D(chosen))), D the sum of KL(reference || policy)."""
    pairs = pair_bundle()
    assert pairs.tokens is not None and pairs.tokens.kl is not None
    chosen, rejected = sums(pairs, pairs.tokens.kl)
    u = 0.3 * (pairs.chosen_ratio - pairs.rejected_ratio)
    expected = -logsigmoid(u - 0.5 * (0.3 * rejected - 0.3 * chosen))
    torch.testing.assert_close(get_objective("tdpo", beta=0.3)(pairs), expected)
    kl = pairs.tokens.kl.clone().requires_grad_()
    live = replace(pairs, tokens=replace(pairs.tokens, kl=kl))
    (second,) = torch.autograd.grad(get_objective("tdpo")(live).sum(), kl)
    (first,) = torch.autograd.grad(get_objective("tdpo", alpha=1.0, detach_chosen=False)(live).sum(), kl)
    of_chosen = pairs.tokens.row % 2 == 0
    assert (second[of_chosen] == 0).all() and (second[~of_chosen] > 0).all()
    assert (first[of_chosen] < 0).all() and (first[~of_chosen] > 0).all()


def test_l1_counts_the_masks_of_both_answers():
    pairs = pair_bundle()
    size = (pairs.chosen_length + pairs.rejected_length).double()
    extra = fixed(0.5, 2.0, l1_reward=0.1, l1_kl=0.01)(pairs) - fixed(0.5, 2.0)(pairs)
    torch.testing.assert_close(extra, (0.1 * 0.5 + 0.01 * 2.0) * size, rtol=1e-5, atol=1e-7)


def test_trained_masks_have_gradients_are_rectified_and_start_at_about_one():
    torch.manual_seed(0)
    masks = TokenMasks(2, 0.0)
    masks.attach(WIDTH, LAYERS)
    made = masks(torch.randn(50, LAYERS + 1, WIDTH))
    assert made.shape == (50, 2) and 0.5 < float(made.detach().mean()) < 1.5
    with torch.no_grad():
        masks.mix.fill_(-1.0)
    assert (masks(torch.randn(50, LAYERS + 1, WIDTH)) == 0).all()
    pairs, objective = pair_bundle(), get_objective("sparsepo", l1_reward=0.01)
    objective(pairs).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.module.parameters())


def test_activation_masks_span_zero_to_one_in_every_answer_and_train_nothing():
    pairs = pair_bundle()
    assert pairs.tokens is not None
    masks = activation_mask(pairs.tokens)
    for row in range(12):
        own = masks[pairs.tokens.row == row]
        assert float(own.max()) == 1.0 and (len(own) == 1 or float(own.min()) == 0.0)
    assert get_objective("sparsepo", masks="activation").module is None
    with pytest.raises(ConfigError, match="l1_reward"):
        get_objective("sparsepo", masks="activation", l1_reward=0.1)
