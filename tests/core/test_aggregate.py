"""Aggregation: every method against an independent implementation, exact cases, and intervals over people."""

from __future__ import annotations

import numpy as np
import pytest

from accordance.core.aggregate import (
    METHODS,
    Comparisons,
    aggregate,
    bradley_terry,
    elo,
    pagerank,
    ranked_pairs,
)
from accordance.core.annotators import dawid_skene, eta_squared
from accordance.core.errors import ConfigError, DataError

STRENGTH = np.array([1.5, 0.8, 0.3, 0.0, -0.6, -1.2])


def games(n: int = 3000, people: int = 50, seed: int = 0, spread: float = 0.0) -> Comparisons:
    """Bradley-Terry games; `spread` lets people differ."""
    g = np.random.default_rng(seed)
    a = g.integers(6, size=n)
    b = (a + g.integers(1, 6, size=n)) % 6
    who = g.integers(people, size=n)
    taste = STRENGTH + spread * g.normal(size=(people, 6))
    win = g.random(n) < 1 / (1 + np.exp(taste[who, b] - taste[who, a]))
    return Comparisons.of(a.tolist(), b.tolist(), win.astype(float), who.tolist())


def test_bradley_terry_recovers_strengths_and_agrees_with_evalica():
    c = games()
    ours = bradley_terry(c.wins(), prior=0.0)
    truth = np.array([STRENGTH[i] for i in c.items])
    assert np.abs(ours - (truth - truth.mean())).max() < 0.2
    evalica = pytest.importorskip("evalica")
    winners = [evalica.Winner.X if o else evalica.Winner.Y for o in c.outcome]
    xs, ys = [c.items[i] for i in c.first], [c.items[i] for i in c.second]
    theirs = np.log(
        evalica.bradley_terry(xs, ys, winners, tolerance=1e-12, limit=10_000).scores.loc[list(c.items)]
    )
    np.testing.assert_allclose(ours, theirs - theirs.mean(), atol=1e-4)


def test_elo_and_pagerank_agree_with_evalica():
    evalica = pytest.importorskip("evalica")
    c = games(400)
    winners = [evalica.Winner.X if o else evalica.Winner.Y for o in c.outcome]
    xs, ys = [c.items[i] for i in c.first], [c.items[i] for i in c.second]
    theirs = evalica.elo(xs, ys, winners).scores.loc[list(c.items)]
    np.testing.assert_allclose(elo(c), theirs, rtol=1e-6)
    theirs = evalica.pagerank(xs, ys, winners, tolerance=1e-12, limit=1000).scores.loc[list(c.items)]
    np.testing.assert_allclose(pagerank(c.wins()), theirs / theirs.sum(), atol=1e-3)


@pytest.mark.parametrize("method", [*METHODS, "elo"])
def test_every_method_finds_the_order_of_a_clear_case(method):
    order = [s.item for s in aggregate(games(), method, samples=5)]
    assert order[0] == 0 and order[-1] == 5


def test_intervals_widen_where_people_differ_and_cover_the_truth():
    alike, unlike = (aggregate(games(spread=s), samples=100) for s in (0.0, 1.5))
    width = [np.mean([s.score.high - s.score.low for s in standings]) for standings in (alike, unlike)]
    assert width[1] > 1.3 * width[0]
    truth = STRENGTH - STRENGTH.mean()
    assert sum(s.score.low - 0.05 <= truth[s.item] <= s.score.high + 0.05 for s in alike) >= 5


def test_ranked_pairs_breaks_the_weakest_link_of_a_circle():
    wins = np.array([[0, 7, 4], [3, 0, 8], [6, 2, 0]], dtype=float)  # 0 > 1 by 4, 1 > 2 by 6, 2 > 0 by 2
    assert np.argsort(-ranked_pairs(wins)).tolist() == [0, 1, 2]


def test_an_item_that_never_lost_is_finite_with_a_prior_and_refused_without():
    wins = np.array([[0.0, 5.0], [0.0, 0.0]])
    assert np.isfinite(bradley_terry(wins)).all()
    with pytest.raises(DataError, match="no finite solution"):
        bradley_terry(wins, prior=0.0)


def test_one_person_gives_no_interval():
    c = Comparisons.of(["a", "b"], ["b", "a"], [1.0, 0.0], ["p", "p"])
    assert np.isnan(aggregate(c)[0].score.low)


def test_bad_comparisons_are_refused_by_name():
    with pytest.raises(DataError, match="itself"):
        Comparisons.of(["a"], ["a"], [1.0])
    with pytest.raises(ConfigError, match="unknown method"):
        aggregate(games(20), "bradly_terry")


def test_dawid_skene_finds_who_can_be_trusted_and_beats_the_majority():
    g = np.random.default_rng(0)
    skill = np.array([0.95, 0.9, 0.55, 0.52, 0.5, 0.55, 0.2])
    truth = g.integers(2, size=600)
    said = np.where(g.random((600, 7)) < skill, truth[:, None], 1 - truth[:, None])
    item, person = np.divmod(np.arange(600 * 7), 7)
    found = dawid_skene(person, item, said.ravel())
    np.testing.assert_allclose(found.accuracy, skill, atol=0.07)
    best = np.array(found.classes)[found.posterior.argmax(1)]
    assert (best == truth).mean() > (np.round(said.mean(1)) == truth).mean() + 0.1


def test_dawid_skene_needs_items_judged_twice():
    with pytest.raises(DataError, match="two people"):
        dawid_skene(["a", "b"], [0, 1], [0, 1])


def test_eta_squared_is_one_between_constant_groups_and_none_without_difference():
    assert eta_squared([1, 1, 3, 3], list("aabb")) == 1.0
    assert eta_squared([1, 3, 1, 3], list("aabb")) == 0.0
