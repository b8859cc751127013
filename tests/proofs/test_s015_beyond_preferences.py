"""Proof of S015: what can't be compared is left open, overlooked criteria don't bend weights, norms bind, groups agree.

Two groups with opposed weights on two of five attributes.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from accordance.feedback.norms import Norm, Role, agree
from accordance.feedback.partial_orders import PartialOrder, fit_attention, fit_partial_order, fit_utilities
from accordance.feedback.rational import comparison, fit

TRUE = np.array([[0.3, 0.2, 0.1, 0.5, -0.4], [0.3, 0.2, 0.1, -0.4, 0.5]])


def world(seed: int) -> tuple[PartialOrder, np.ndarray, np.ndarray]:
    """What is fitted from marks on each criterion and overall choices; options' features; true utilities' map."""
    g = np.random.default_rng(seed)
    features = np.linalg.qr(g.normal(size=(5, 5)))[0]  # utilities are hidden in features
    gaps, marks = [], []
    for c in range(5):
        gap = g.normal(size=(400, 5))
        gaps.append(gap)
        marks.append(g.random(400) < expit(6 * gap @ features[c]))
    found = fit_utilities(gaps, marks)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    pairs = g.normal(size=(1200, 5))
    groups = g.integers(2, size=1200)
    said = g.random(1200) < expit(8 * np.einsum("nd,nd->n", pairs @ features.T, TRUE[groups]))
    order = fit_partial_order(pairs @ found.T, said, groups.tolist())
    return order, found, features


def test_what_groups_judge_oppositely_can_not_be_compared_and_the_rest_can() -> None:
    for seed in range(3):
        order, found, features = world(seed)
        g = np.random.default_rng(100 + seed)
        gap = g.normal(size=(4000, 5)) * 1.5
        value = gap @ features.T @ TRUE.T  # [pairs, groups]
        clear = np.abs(value).min(1) > 0.15
        opposed, agreed = clear & (value[:, 0] * value[:, 1] < 0), clear & (value[:, 0] * value[:, 1] > 0)
        verdict = np.array([order.compare(x @ found.T, np.zeros(5)) for x in gap])
        assert np.mean(verdict[opposed] == "incomparable") >= 0.85
        assert np.mean(verdict[agreed] == "incomparable") <= 0.10
        right = np.where(value[:, 0] > 0, "first", "second")
        assert np.mean(verdict[agreed] == right[agreed]) >= 0.9
        both = [
            comparison(x, np.zeros(5)) if v.mean() > 0 else comparison(np.zeros(5), x)
            for x, v in zip(gap[:500], value)
        ]
        scalar = PartialOrder(fit(both).mean[None, :])
        assert all(scalar.compare(x, np.zeros(5)) != "incomparable" for x in gap[opposed]), (
            "it has no word for it"
        )


def test_a_small_improvement_does_not_decide_what_could_not_be_compared() -> None:
    partial, scalar = PartialOrder(TRUE), PartialOrder(TRUE.mean(0, keepdims=True))
    a, b = np.array([0.0, 0, 0, 1, 0]), np.array([0.0, 0, 0, 0, 1])
    better = a + np.array([1e-3, 0, 0, 0, 0])
    assert partial.compare(better, a) == "first"
    assert partial.compare(a, b) == partial.compare(better, b) == "incomparable"
    assert scalar.compare(a, b) == "equal" and scalar.compare(better, b) == "first"
    options = np.array([a, b, a - 0.1])
    assert partial.undominated(options)[:2] == [0, 1] and partial.choose(options) is None
    assert partial.choose(options, break_ties=lambda left: left[-1]) in (0, 1, 2)
    assert PartialOrder(TRUE[:1]).choose(np.array([a, b])) == 0, "one weighting is a scalar utility"


def test_agreement_protects_the_smaller_group_at_little_cost() -> None:
    worst, cost = [], []
    for seed in range(50):
        g = np.random.default_rng(seed)
        lean = g.random(10)  # whose norms a set follows: 0 the large group's, 1 the small one's
        large, small = (
            1 - lean**2 + g.normal(scale=0.05, size=10),
            1 - (1 - lean) ** 2 + g.normal(scale=0.05, size=10),
        )
        sets = {f"n{i}": {"large": float(large[i]), "small": float(small[i])} for i in range(10)}
        sets["n0"] = {"large": 1.15, "small": 0.15}
        made = agree(sets, {"large": 0.1, "small": 0.1}, {"large": 0.7, "small": 0.3})
        mean = lambda name: 0.7 * sets[name]["large"] + 0.3 * sets[name]["small"]  # noqa: E731, B023
        worst.append(min(sets[made.chosen].values()) - min(sets[made.by_mean].values()))
        cost.append(mean(made.by_mean) - mean(made.chosen))
    assert np.mean(worst) >= 0.15, np.mean(worst)
    assert np.mean(cost) <= 0.12, np.mean(cost)


def test_a_veto_holds_whatever_the_product_would_be() -> None:
    sets = {"feast": {"a": 9.0, "b": 0.2}, "fast": {"a": 0.6, "b": 0.6}, "hurt": {"a": -9.0, "b": -9.0}}
    made = agree(sets, {"a": 0.3, "b": 0.3})
    assert made.chosen == "fast" and made.by_mean == "feast"
    assert made.vetoed == {"feast": ("b",), "hurt": ("a", "b")}, "two losses make no gain"


def test_weights_are_found_although_criteria_are_overlooked() -> None:
    ratio = []
    for seed in range(3):
        g = np.random.default_rng(seed)
        weights = np.array([2.0, -1.5, 1.0, 2.5, -1.0])
        gap = g.normal(size=(3000, 5)) * 1.5
        seen = g.random((3000, 5)) < 0.7
        said = g.random(3000) < expit((gap * seen) @ weights)
        found = fit_attention(gap, said)
        plain = np.array(
            fit([comparison(x, 0 * x) if s else comparison(0 * x, x) for x, s in zip(gap, said)]).mean
        )
        ratio.append(np.linalg.norm(found.weights - weights) / np.linalg.norm(plain - weights))
        assert np.abs(found.attended - 0.7).max() < 0.15, found.attended
    assert np.mean(ratio) <= 0.5, ratio


def test_who_overlooks_nothing_is_a_plain_logistic_chooser() -> None:
    g = np.random.default_rng(9)
    weights, gap = np.array([2.0, -1.5, 1.0]), 1.5 * g.normal(size=(4000, 3))
    said = g.random(4000) < expit(gap @ weights)
    found = fit_attention(gap, said)
    plain = fit([comparison(x, 0 * x) if s else comparison(0 * x, x) for x, s in zip(gap, said)]).mean
    assert found.weights == pytest.approx(plain, abs=0.15) and found.attended.min() > 0.95


def test_no_prohibited_option_is_ever_taken_where_a_penalty_leaks() -> None:
    g = np.random.default_rng(7)
    role = Role((
        Norm("no harm", "prohibition", lambda s, o: not o["harm"]),
        Norm("answer in French", "requirement", lambda s, o: o["french"], lambda s: s == "fr", priority=0),
        Norm("be brief", "requirement", lambda s, o: o["brief"], priority=1),
    ))  # fmt: skip
    leaks = taken = 0
    for _ in range(2000):
        options = [{"harm": bool(g.random() < 0.3), "french": bool(g.random() < 0.5), "brief": bool(g.random() < 0.5)}
                   for _ in range(6)]  # fmt: skip
        quality = (g.normal(size=6) + np.array([o["harm"] for o in options])).tolist()  # harm sells
        made = role.decide("fr", options, quality)
        penalised = int(np.argmax([q - 2.5 * o["harm"] for q, o in zip(quality, options)]))
        leaks += options[penalised]["harm"]
        if made.chosen is None:
            assert all(o["harm"] for o in options)
            continue
        taken += 1
        mine = options[made.chosen]
        assert not mine["harm"] and made.violations[made.chosen] == tuple(
            name for name, met in (("answer in French", mine["french"]), ("be brief", mine["brief"])) if not met
        )
        fine = [i for i, o in enumerate(options) if not o["harm"]]
        if any(options[i]["french"] for i in fine):
            assert mine["french"], "no quality makes up for a requirement of the first priority"
        same = [
            i for i in fine if (options[i]["french"], options[i]["brief"]) == (mine["french"], mine["brief"])
        ]
        assert quality[made.chosen] == max(quality[i] for i in same)
    assert taken > 1900 and leaks / 2000 > 0.02
