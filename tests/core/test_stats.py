"""The statistics kit against values known from elsewhere, or from first principles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from accordance.core.errors import ConfigError, DataError
from accordance.core.stats import (
    bootstrap,
    fdr,
    mcnemar,
    paired_difference,
    permutation_test,
    proportion,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (7, 9), (81, 263), (10, 10)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    ours = wilson(successes, n)
    assert ours.bounds == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.estimate <= ours.high


def test_wilson_matches_the_published_example_of_newcombe() -> None:
    # Newcombe 1998, table I: 81 of 263 has the score interval 0.2553 to 0.3662.
    assert wilson(81, 263).bounds == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_wilson_counts_ties_as_halves_and_says_nothing_without_data() -> None:
    assert wilson(2.5, 5).estimate == 0.5
    assert all(math.isnan(x) for x in (wilson(0, 0).estimate, *wilson(0, 0).bounds))
    with pytest.raises(ConfigError, match="successes"):
        wilson(11, 10)
    with pytest.raises(ConfigError, match="level"):
        wilson(1, 10, level=95)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=2000)
    interval = bootstrap(values, samples=4000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.bounds == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_the_vectorised_mean_and_an_explicit_statistic_see_the_same_resamples() -> None:
    values = np.random.default_rng(2).normal(size=30)
    clusters = [i // 3 for i in range(30)]
    fast = bootstrap(values, clusters=clusters, seed=5, samples=200)
    slow = bootstrap(values, lambda x: float(np.mean(x)), clusters=clusters, seed=5, samples=200)
    assert fast.bounds == pytest.approx(slow.bounds)
    assert fast.n == 10


def test_copies_of_an_observation_do_not_narrow_a_clustered_interval() -> None:
    values = np.random.default_rng(3).normal(size=40)
    alone = bootstrap(values, seed=1)
    copied = bootstrap(np.repeat(values, 25), clusters=np.repeat(np.arange(40), 25).tolist(), seed=1)
    naive = bootstrap(np.repeat(values, 25), seed=1)
    assert copied.bounds == pytest.approx(alone.bounds)
    assert (naive.high - naive.low) < 0.4 * (alone.high - alone.low)


def test_bootstrap_is_seeded_and_gives_no_bounds_where_it_can_not() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert math.isnan(bootstrap([]).estimate)
    one = bootstrap([1.0, 2.0], clusters=["a", "a"])
    assert one.estimate == 1.5 and math.isnan(one.low) and one.n == 1
    with pytest.raises(DataError, match="NaN"):
        bootstrap([1.0, math.nan])
    with pytest.raises(DataError, match="label"):
        bootstrap([1.0, 2.0], clusters=["a"])


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        interval = bootstrap(generator.exponential(size=60), seed=trial, samples=400)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.88 <= hits / 300 <= 0.98


def test_proportion_is_wilson_for_single_outcomes_and_wider_for_repeated_prompts() -> None:
    outcomes = [1, 0, 1, 1, 0.5, 1, 0, 1]
    assert proportion(outcomes) == wilson(5.5, 8)
    repeated = proportion(np.repeat(outcomes, 20), clusters=np.repeat(np.arange(8), 20).tolist())
    assert repeated.n == 8
    assert repeated.high - repeated.low > 3 * (wilson(110, 160).high - wilson(110, 160).low)


def test_proportion_keeps_a_width_where_all_clusters_agree() -> None:
    sure = proportion([1.0] * 12, clusters=[i // 3 for i in range(12)])
    assert sure.estimate == 1 and sure.bounds == pytest.approx(wilson(4, 4).bounds)
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        proportion([2.0])


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_pairs() -> None:
    # 5 against 15 discordant pairs: 2 * P(Binomial(20, 1/2) <= 5) = 2 * 21700 / 2**20.
    assert mcnemar(5, 15) == pytest.approx(2 * 21700 / 2**20)
    assert mcnemar(5, 15) == mcnemar(15, 5)
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(ConfigError):
        mcnemar(-1, 3)


def test_permutation_test_is_exact_on_few_observations() -> None:
    # All of a exceed all of b: 1 of C(6, 3) = 20 splits is as extreme, 2 of 20 two-sided.
    assert permutation_test([4, 5, 6], [1, 2, 3]) == pytest.approx(2 / 20)
    assert permutation_test([4, 5, 6], [1, 2, 3], alternative="greater") == pytest.approx(1 / 20)
    # Paired, all five differences positive: 1 of 2**5 sign patterns, 2 of 32 two-sided.
    assert permutation_test([2, 4, 6, 8, 11], [1, 2, 3, 4, 5], paired=True) == pytest.approx(2 / 32)
    with pytest.raises(DataError, match="equal numbers"):
        permutation_test([1, 2], [1, 2, 3], paired=True)


def test_permutation_test_rejects_at_its_level_when_nothing_differs() -> None:
    generator = np.random.default_rng(0)
    p = [
        permutation_test(generator.normal(size=12), generator.normal(size=12), samples=199, seed=i)
        for i in range(200)
    ]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_fdr_matches_the_step_up_procedure_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    # Sorted 0.005 0.01 0.03 0.04 times 4/1 4/2 4/3 4/4, running minimum from the right.
    assert fdr(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert len(fdr([])) == 0


def test_paired_difference_is_tighter_than_the_spread_it_removes() -> None:
    generator = np.random.default_rng(4)
    before = generator.normal(scale=10, size=100)
    after = before + 1 + generator.normal(scale=0.1, size=100)
    interval = paired_difference(after, before)
    assert interval.low > 0.95 and interval.high < 1.05
    with pytest.raises(DataError):
        paired_difference([1.0], [1.0, 2.0])
