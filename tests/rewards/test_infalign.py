"""Calibrated rewards: ranks among the reference's answers to the same prompt, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.rewards import calibrated, for_procedure, optimal_transform, tilted


def test_a_share_counts_what_is_worse_and_half_of_what_is_equal() -> None:
    found = calibrated(np.array([[0.0, 1.0, 2.0, 9.0]]), np.array([[1.0, 1.0, 2.0, 3.0]]))
    assert found.tolist() == [[0.125, 0.25, 0.625, 0.875]]  # the ends lie half a sample inside


def test_no_rising_change_of_a_prompts_rewards_changes_anything() -> None:
    draw = np.random.default_rng(0)
    rewards, reference = draw.normal(size=(5, 8)), draw.normal(size=(5, 32))
    scale, shift = draw.uniform(0.1, 9, size=(5, 1)), draw.normal(size=(5, 1))
    same = calibrated(np.exp(rewards) * scale + shift, np.exp(reference) * scale + shift)
    assert (same == calibrated(rewards, reference)).all()


def test_under_the_reference_shares_are_uniform() -> None:
    draw = np.random.default_rng(1)
    found = np.sort(calibrated(draw.standard_cauchy((400, 8)), draw.standard_cauchy((400, 64))), axis=None)
    assert np.abs(found - (np.arange(3200) + 0.5) / 3200).max() < 0.03


def test_rewards_for_a_procedure_rise_with_the_share_and_keep_their_range() -> None:
    share = np.linspace(0, 1, 11)
    assert (for_procedure(share, "one") == share).all()
    for procedure, low, high in (("best_of_n", 0, 1), ("worst_of_n", -1, 0)):
        made = for_procedure(share, procedure)  # type: ignore[arg-type]
        assert (np.diff(made) > 0).all() and low <= made.min() and made.max() <= high
    assert np.diff(for_procedure(share, "best_of_n"))[-1] > 100 * np.diff(for_procedure(share, "best_of_n"))[0]
    assert (
        np.diff(for_procedure(share, "worst_of_n"))[0] > 100 * np.diff(for_procedure(share, "worst_of_n"))[-1]
    )


def test_the_reference_itself_wins_half_the_time_by_any_procedure() -> None:
    same = tilted(np.zeros(2000), beta=1.0)
    assert same.kl == 0
    assert [same.win_rate(p, 4) for p in ("one", "best_of_n", "worst_of_n")] == pytest.approx(
        [0.5] * 3, abs=1e-3
    )


def test_what_can_not_be_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="no such way to use"):
        for_procedure(np.ones(2), "median")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="above 0"):
        for_procedure(np.ones(2), "best_of_n", 0.0)
    with pytest.raises(ConfigError, match="is the best"):
        optimal_transform("one", 4, 1.0)
    with pytest.raises(ConfigError, match="give beta, or the KL"):
        tilted(np.ones(10), beta=1.0, kl=1.0)
    with pytest.raises(ConfigError, match="leads there"):
        tilted(np.arange(10.0), kl=50.0)
    for rewards, reference in (
        (np.ones((2, 3)), np.ones((3, 3))),
        (np.ones((1, 2)), np.ones((1, 0))),
        (np.array([[np.nan]]), np.ones((1, 2))),
    ):
        with pytest.raises(DataError):
            calibrated(rewards, reference)
