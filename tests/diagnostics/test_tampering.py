"""Tampering: laws of best-of-n and of tilting, audits on data that can be reckoned by hand, the report's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.diagnostics import Attack, best_of, cluster_scores, coupling, tampering_report, tilted


def test_best_of_n_is_exact_and_ties_share():
    base, reward = np.array([0.5, 0.25, 0.25]), np.array([0.0, 1.0, 1.0])
    assert np.allclose(best_of(base, reward, 1), base)
    assert np.allclose(best_of(base, reward, 2), [0.25, 0.375, 0.375])
    draws = np.random.default_rng(0).choice(3, p=base, size=(20_000, 3))
    assert np.mean(reward[draws].max(1) == 0) == pytest.approx(best_of(base, reward, 3)[0], abs=0.01)
    with pytest.raises(ConfigError):
        best_of(base, reward, 0)


def test_tilting_without_reward_changes_nothing_and_has_the_closed_form():
    base = np.array([0.7, 0.3])
    assert np.allclose(tilted(base, np.zeros(2), 0.1), base)
    p = tilted(base, np.array([0.0, 1.0]), 0.5)
    assert p[1] / p[0] == pytest.approx(3 / 7 * np.e**2)
    with pytest.raises(ConfigError):
        tilted(base, np.zeros(2), 0.0)


def test_coupling_by_hand():
    found = coupling([0, 0, 1, 1, 2, 2], [1, 0, 1, 0, 0, 0], [2.0, 0.0, 2.0, 0.0, 5.0, 9.0], samples=50)
    assert found.mixed == 2 and found.first.estimate == 1 and found.chance == 0.5
    assert found.rank == 1 and found.middle == 1.5 and found.gap.estimate == pytest.approx(2.0)
    assert found.rate.estimate == pytest.approx(1 / 3) and found.paid is None
    with pytest.raises(DataError, match="both"):
        coupling([0, 0], [1, 1], [0.0, 1.0])


def test_clusters_of_one_prompt_and_none_of_another():
    g = np.random.default_rng(0)
    two = np.concatenate([g.normal(size=(4, 3)), g.normal(size=(4, 3)) + 8])
    vectors = np.concatenate([two, 2 * g.normal(size=(8, 3))])
    reward = [1.0] * 4 + [0.0] * 4 + list(g.normal(size=8))
    scores, links = cluster_scores(vectors, [0] * 8 + [1] * 8, reward)
    assert scores[0] > 0.7 > scores[1] + 0.2 and links[0] == pytest.approx(1.0)
    copies = np.concatenate([np.zeros((4, 3)), np.full((4, 3), 1e-3)])
    small = cluster_scores(np.concatenate([copies, two, two]), np.repeat([0, 1, 2], 8))[0]
    assert small[0] < 0.01 and np.isnan(cluster_scores(two[:3], [0, 0, 0])[0]).all()


def test_the_report_warns_of_a_bias_that_rides_and_of_a_reward_that_pays_for_it():
    prompts = [f"ask {i}" for i in range(60)]
    responses = [["plain answer", "good answer by ACME"] for _ in prompts]
    quality = [[0.0, 1.0 + 0.1 * (i % 3)] for i in range(60)]
    reward = [[0.0, 3.0 + q[1]] for q in quality]
    report = tampering_report(
        prompts,
        responses,
        lambda p, t: "ACME" in t,
        quality,
        reward,
        twins=([3.0, 3.2], [1.0, 1.1]),
        samples=50,
    )
    assert report.values["bias_rate"] == 0.5 and report.values["quality_gap"] > 0
    assert report.values["best_of"][-1]["bias_rate"] > 0.99 and report.values["twin_gap"] == pytest.approx(2.05)
    assert len(report.warnings) == 2 and report.to_html().count("<svg") == 4
    with pytest.raises(DataError, match="one quality"):
        tampering_report(prompts, responses, lambda p, t: True, quality[:3])


def test_the_neutral_mitigation_and_attack_change_nothing():
    attack = Attack(coupling=0.7)
    assert attack.reward("none") == attack.reward()
    assert attack.reward("twins", strength=0.0).bias == pytest.approx(attack.reward().bias)
    assert np.allclose(attack.optimum(attack.reward(), 1e9), attack.reference)
    with pytest.raises(ConfigError, match="mitigation"):
        attack.reward("prayer")
