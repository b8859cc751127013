"""Self-play objectives: neutral values give the base methods, lists become pairs, wrong targets are refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from bundles import list_bundle, pair_bundle

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import ListLogps, PairLogps
from accordance.objectives import get_objective, over_lists


def same(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second)


def test_egpo_with_a_gap_of_a_half_is_ipo():
    pairs = replace(pair_bundle(), gap=torch.full((6,), 0.5))
    same(get_objective("egpo", beta=0.2)(pairs), get_objective("ipo", beta=0.2, reduction="sum")(pairs))
    by_mean = get_objective("egpo", beta=0.2, reduction="mean")(pairs)
    same(by_mean, get_objective("ipo", beta=0.2)(pairs))


def test_mnpo_without_history_is_ipo_and_with_one_past_policy_inpo():
    pairs = pair_bundle()
    same(get_objective("mnpo", eta=0.2)(pairs), get_objective("ipo", beta=0.2, reduction="sum")(pairs))
    for reduction in ("sum", "mean"):
        one = get_objective("mnpo", eta=0.2, history=1, ratio=0.25, reduction=reduction)(pairs)
        same(one, get_objective("inpo", eta=0.2, tau=0.05, reduction=reduction)(pairs))
        all_ref = get_objective("mnpo", eta=0.2, history=1, ratio=1.0, reduction=reduction)(pairs)
        same(all_ref, get_objective("ipo", beta=0.2, reduction=reduction)(pairs))


def test_mnpo_averages_past_log_probs_beside_the_reference():
    pairs = pair_bundle()
    past = {f"history1_{side}": torch.randn(6, dtype=torch.float64) for side in ("chosen", "rejected")}
    pairs = replace(pairs, extras={**pairs.extras, **past})
    columns = pairs.extras
    margins = [columns[f"history{j}_chosen"] - columns[f"history{j}_rejected"] for j in (0, 1)]
    own, ref = pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected
    h = own - 0.2 * ref - 0.8 * (margins[0] + margins[1]) / 2
    objective = get_objective("mnpo", eta=0.5, ratio=0.2, history=2)
    same(objective(pairs), (h - 1) ** 2)
    same(get_objective("mnpo", eta=0.5, ratio=0.2, history=2, labels="soft")(pairs), (h - pairs.gap / 0.5) ** 2)
    assert objective.columns == tuple(f"history{j}_{side}" for j in (0, 1) for side in ("chosen", "rejected"))


def test_options_without_effect_and_columns_that_are_missing_are_refused():
    with pytest.raises(ConfigError, match="ratio"):
        get_objective("mnpo", ratio=0.5)
    with pytest.raises(ConfigError, match="tau"):
        get_objective("inpo", eta=0.1, tau=0.2)
    with pytest.raises(DataError, match="history1_chosen"):
        get_objective("mnpo", history=2)(pair_bundle())
    with pytest.raises(DataError, match="chosen_win_rate"):
        get_objective("sppo", labels="soft")(pair_bundle())


@pytest.mark.parametrize("gap", [None, torch.full((6,), 1.5)])
def test_a_gap_that_is_no_difference_of_probabilities_is_refused(gap):
    for objective in (get_objective("egpo"), get_objective("mnpo", labels="soft")):
        with pytest.raises(DataError, match="win rates"):
            objective(replace(pair_bundle(), gap=gap))


def lists_of_three() -> ListLogps:
    """Scores 0.9, 0.1, 0.1 and, with the last response missing, 0.2, 0.7."""
    five = list_bundle(n=3)
    scores = torch.tensor([[0.9, 0.1, 0.1], [0.2, 0.7, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]]).bool()
    logp, ref, length = (values[:, :3] for values in (five.logp, five.ref, five.length))
    extras = {"history0": ref * 1.1, "trust": torch.ones(3)}
    return ListLogps(logp, length, mask, scores, ref, extras=extras)


def test_every_pair_of_a_list_counts_once_with_the_better_one_chosen():
    lists = lists_of_three()
    loss = over_lists(get_objective("dpo"))(lists)
    ratio = lists.logp - lists.ref

    def dpo(i: int, better: int, worse: int) -> torch.Tensor:
        return -torch.nn.functional.logsigmoid(0.1 * (ratio[i, better] - ratio[i, worse]))

    same(loss, torch.stack([(dpo(0, 0, 1) + dpo(0, 0, 2)) / 2, dpo(1, 1, 0), torch.zeros(()).double()]))
    extremes = over_lists(get_objective("dpo"), "extremes")(lists)
    same(extremes[:2], torch.stack([dpo(0, 0, 1), dpo(1, 1, 0)]))


def test_ties_make_pairs_only_where_asked_for():
    lists = lists_of_three()
    without, with_ties = (over_lists(get_objective("egpo"), ties=ties)(lists) for ties in (False, True))
    assert without[2] == 0 < with_ties[2]
    ratio = lists.logp - lists.ref
    expected = sum((ratio[2, i] - ratio[2, j]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    same(with_ties[2], expected)


def test_columns_of_lists_become_columns_of_pairs():
    lists = lists_of_three()
    loss = over_lists(get_objective("inpo"), "extremes")(lists)
    assert loss[:2].min() > 0
    soft = over_lists(get_objective("sppo", beta=1.0, labels="soft"), "extremes")(lists)
    ratio = lists.logp - lists.ref
    same(soft[1], (ratio[1, 1] - 0.2) ** 2 + (ratio[1, 0] + 0.3) ** 2)


def test_losses_over_tokens_see_the_tokens_of_each_pair_of_a_list():
    lists = list_bundle()
    assert lists.tokens is not None
    g = torch.Generator().manual_seed(1)
    kl, collision = torch.rand(2, len(lists.tokens.row), generator=g, dtype=torch.float64)
    lists = replace(lists, tokens=replace(lists.tokens, kl=kl, collision=-collision))
    for text in ("tdpo", "wpo(dpo)"):
        losses = over_lists(get_objective(text))(lists)
        for i in range(len(lists.logp)):
            each = []
            for j, k in itertools.permutations(range(5), 2):
                if lists.mask[i, [j, k]].all() and lists.scores[i, j] > lists.scores[i, k]:
                    each.append(get_objective(text)(pair_of(lists, i, j, k)))
            same(losses[i], torch.cat(each).mean())


def pair_of(lists: ListLogps, i: int, j: int, k: int) -> PairLogps:
    """Two responses of a list as a pair, its tokens taken one by one."""
    rows = [i * lists.logp.shape[1] + place for place in (j, k)]
    index = torch.cat([(lists.tokens.row == row).nonzero()[:, 0] for row in rows])
    sizes = torch.tensor([int((lists.tokens.row == row).sum()) for row in rows])
    tokens = lists.tokens.select(index, torch.arange(2).repeat_interleave(sizes))
    found = [x[i, [place]] for x in (lists.logp, lists.length, lists.ref) for place in (j, k)]
    return PairLogps(*found, tokens=tokens)


def test_what_is_no_pairwise_objective_is_refused():
    for name in ("sft", "grpo", "plackett_luce"):
        with pytest.raises(ConfigError, match="over lists"):
            over_lists(get_objective(name))
