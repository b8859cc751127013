"""BCO's shift and re-weighting, and the listwise losses against an enumeration of all orders."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from bundles import list_bundle, unary_bundle
from torch.nn.functional import logsigmoid

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import ListLogps
from accordance.objectives import across_workers, bco, density_ratio_weights, get_objective, plackett_luce, pro

UNEVEN = torch.tensor([True, True, True, True, False, True])


def rewards(bundle, beta=0.1):
    return beta * (bundle.logp - bundle.ref)


def test_two_means_and_the_shift_halfway_between_them():
    bundle = replace(unary_bundle(), label=UNEVEN)
    r = rewards(bundle)
    delta = (r[UNEVEN].mean() + r[~UNEVEN].mean()) / 2
    expected = -logsigmoid(r[UNEVEN] - delta).mean() - logsigmoid(delta - r[~UNEVEN]).mean()
    torch.testing.assert_close(bco()(bundle).mean(), expected)


def test_one_mean_over_all_rows():
    bundle = replace(unary_bundle(), label=UNEVEN)
    r = rewards(bundle)
    expected = -logsigmoid(torch.where(UNEVEN, 1.0, -1.0) * (r - r.mean()))
    torch.testing.assert_close(bco(average="all")(bundle), expected)


def test_weights_on_the_downs_re_weigh_their_mean():
    bundle = replace(unary_bundle(), label=UNEVEN)
    weight = torch.where(UNEVEN, 1.0, 3.0)
    r = rewards(bundle)
    expected = -logsigmoid(r[UNEVEN]).mean() - 3 * logsigmoid(-r[~UNEVEN]).mean()
    torch.testing.assert_close((weight * bco(shift=False)(bundle)).mean(), expected)


def test_shift_is_a_running_mean_over_batches_and_survives_a_checkpoint():
    first, second = unary_bundle(seed=1), replace(unary_bundle(seed=2), label=UNEVEN)
    objective = bco()
    objective(first)
    saved = {name: value.clone() for name, value in objective.state.items()}
    after = objective(second)
    both, labels = torch.cat([rewards(first), rewards(second)]), torch.cat([first.label, UNEVEN])
    delta = (both[labels].mean() + both[~labels].mean()) / 2
    sign = torch.where(UNEVEN, 1.0, -1.0)
    factor = torch.where(UNEVEN, 6 / 5, 6 / 1)
    torch.testing.assert_close(after, -factor * logsigmoid(sign * (rewards(second) - delta)))
    resumed = bco()
    for name, value in saved.items():
        resumed.state[name].copy_(value)
    assert torch.equal(resumed(second), after)


def test_evaluation_leaves_the_shift_alone():
    objective = bco()
    objective(unary_bundle(seed=1))
    before = objective.state["reward_totals"].clone()
    with torch.no_grad():
        objective(unary_bundle(seed=2))
    assert torch.equal(objective.state["reward_totals"], before)


def test_two_objectives_do_not_share_a_shift():
    one, other = bco(), bco()
    one(unary_bundle())
    assert other.state["reward_totals"].abs().sum() == 0


@pytest.mark.parametrize("label", [True, False], ids=["only ups", "only downs"])
@pytest.mark.parametrize("average", ["label", "all"])
def test_batches_of_one_label_work_and_move_the_shift(label, average):
    bundle = replace(unary_bundle(), label=torch.full((6,), label))
    r, sign = rewards(bundle), 1.0 if label else -1.0
    torch.testing.assert_close(bco(average=average)(bundle), -logsigmoid(sign * (r - r.mean())))


def test_no_gradient_flows_through_the_shift():
    bundle = replace(unary_bundle(), label=UNEVEN)
    leaf = bundle.logp.clone().requires_grad_()
    r = 0.1 * (leaf - bundle.ref)
    delta = ((r[UNEVEN].mean() + r[~UNEVEN].mean()) / 2).item()
    by_hand = -logsigmoid(r[UNEVEN] - delta).mean() - logsigmoid(delta - r[~UNEVEN]).mean()
    ours = bco()(replace(bundle, logp=leaf)).mean()
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss in (ours, by_hand)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["bco", "kto"])
def test_two_workers_give_the_loss_of_one(name):
    """Each worker adds the other's totals to its own; the mean of their means is the mean over all rows."""
    whole = replace(unary_bundle(8), label=torch.tensor([1, 1, 1, 1, 0, 1, 0, 1]).bool())
    fields = ("logp", "length", "label", "ref", "kl_logp", "kl_ref")
    halves = [replace(whole, **{f: getattr(whole, f).chunk(2)[i] for f in fields}) for i in range(2)]
    totals = []
    for half in halves:
        with across_workers(lambda t: totals.append(t) or t):
            get_objective(name)(half)
    means = []
    for half in halves:
        with across_workers(lambda _: totals[0] + totals[1]):
            means.append(get_objective(name)(half).mean())
    torch.testing.assert_close(torch.stack(means).mean(), get_objective(name)(whole).mean())


# Density ratios.


def shifted_data(n_up, n_down, seed=0):
    """Ups from N(1, 1), downs from N(0, 1): the true density ratio is exp(x - 1/2)."""
    generator = np.random.default_rng(seed)
    x = np.concatenate([generator.normal(1, 1, n_up), generator.normal(0, 1, n_down)])[:, None]
    return x, np.arange(n_up + n_down) < n_up


@pytest.mark.parametrize("n_up, n_down", [(3000, 3000), (3000, 600)], ids=["balanced", "five ups per down"])
def test_density_ratio_is_recovered_whatever_the_label_counts(n_up, n_down):
    x, up = shifted_data(n_up, n_down)
    weights = density_ratio_weights(x, up, low=0.05, high=50, fit_on=None)
    true = np.exp(x[:, 0] - 0.5)
    inner = ~up & (np.abs(x[:, 0]) < 1.5)
    assert np.abs(np.log(weights[inner] / true[inner])).mean() < 0.2
    assert (weights[up] == 1).all()
    assert np.average(x[~up, 0], weights=weights[~up]) == pytest.approx(1.0, abs=0.2)


def test_density_ratios_are_clipped_and_seeded():
    x, up = shifted_data(500, 500)
    weights = density_ratio_weights(x, up, low=0.5, high=2.0, fit_on=100)
    assert weights.min() == pytest.approx(0.5) and weights.max() == pytest.approx(2.0)
    assert np.array_equal(weights, density_ratio_weights(x, up, low=0.5, high=2.0, fit_on=100))
    assert not np.array_equal(weights, density_ratio_weights(x, up, low=0.5, high=2.0, fit_on=100, seed=1))


@pytest.mark.parametrize("x, up, error", [
    (np.zeros((3, 2)), [True, True, True], DataError),
    (np.zeros((3, 2)), [True, False], DataError),
    (np.zeros(3), [True, False, True], DataError),
    (np.array([[0.0], [np.nan]]), [True, False], DataError),
])  # fmt: skip
def test_embeddings_that_can_not_be_used_are_refused(x, up, error):
    with pytest.raises(error):
        density_ratio_weights(x, up)


def test_an_empty_clip_range_is_refused():
    with pytest.raises(ConfigError, match="must hold 1"):
        density_ratio_weights(np.zeros((2, 1)), [True, False], low=2.0)


# Lists.


def test_plackett_luce_equals_the_enumeration_of_all_orders():
    """P(order) by drawing without replacement, for each of the 24 orders of four; they add up to 1."""
    logp = torch.tensor([-1.0, -2.5, -0.3, -1.7], dtype=torch.float64)
    weight, probabilities = logp.exp(), []
    for order in permutations(range(4)):
        left, probability = list(range(4)), 1.0
        for k in order:
            probability *= (weight[k] / weight[left].sum()).item()
            left.remove(k)
        scores = torch.empty(1, 4, dtype=torch.float64)
        scores[0, list(order)] = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
        lists = ListLogps(logp[None], torch.ones(1, 4), torch.ones(1, 4, dtype=torch.bool), scores)
        loss = plackett_luce(beta=1.0, reference=False)(lists).item()
        assert loss == pytest.approx(-np.log(probability), rel=1e-9)
        probabilities.append(np.exp(-loss))
    assert sum(probabilities) == pytest.approx(1)


def test_padding_changes_nothing():
    lists = list_bundle()
    short = ListLogps(*(x[1:2, :3] for x in (lists.logp, lists.length, lists.mask, lists.scores, lists.ref)))
    for name in ("pro", "plackett_luce"):
        torch.testing.assert_close(get_objective(name)(lists)[1:2], get_objective(name)(short))


@pytest.mark.parametrize("name", ["pro", "plackett_luce"])
def test_tied_responses_are_not_set_against_each_other(name):
    logp = torch.tensor([[-1.0, -3.0, -2.0]], dtype=torch.float64, requires_grad=True)
    ones, scores = torch.ones(1, 3), torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    lists = ListLogps(logp, ones, ones.bool(), scores, torch.zeros(1, 3, dtype=torch.float64))
    options = {"alpha": 0.0} if name == "pro" else {}
    (gradient,) = torch.autograd.grad(get_objective(name, **options)(lists).sum(), logp)
    assert (gradient[0, :2] < 0).all() and gradient[0, 2] > 0  # both go up, against the third alone
    tied = replace(lists, scores=torch.zeros(1, 3, dtype=torch.float64))
    assert get_objective(name, **options)(tied).item() == 0


def test_pro_pushes_the_best_up_and_heeds_the_order_of_the_others():
    lists = list_bundle(n=4, k=4, seed=3)
    lists = replace(
        lists, mask=torch.ones_like(lists.mask), scores=torch.tensor([[3.0, 2, 1, 0]]).double().expand(4, 4)
    )
    leaf = lists.logp.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pro(alpha=0.0)(replace(lists, logp=leaf)).sum(), leaf)
    assert (gradient[:, 0] < 0).all() and (gradient[:, 3] > 0).all()
    other = replace(lists, scores=lists.scores[:, [0, 2, 1, 3]])
    assert not torch.isclose(pro()(other), pro()(lists)).any()


def test_sft_term_of_pro_is_a_sum_over_tokens_times_the_squared_number_of_contrasts():
    lists = list_bundle()
    scores = lists.scores.masked_fill(~lists.mask, -9)
    top = lists.logp.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    extra = pro(alpha=0.3)(lists) - pro(alpha=0.0)(lists)
    torch.testing.assert_close(extra, -0.3 * torch.tensor([16.0, 4, 16, 16]).double() * top)


def test_scores_squashed_by_range_do_not_depend_on_their_scale():
    lists = list_bundle()
    loss = pro(squash="range")(lists)
    torch.testing.assert_close(pro(squash="range")(replace(lists, scores=7 * lists.scores + 3)), loss)
    assert not torch.isclose(pro()(replace(lists, scores=7 * lists.scores + 3)), pro()(lists)).any()


def test_rankings_without_scores_are_refused():
    with pytest.raises(DataError, match="carry no scores"):
        pro()(replace(list_bundle(), scores=None))
