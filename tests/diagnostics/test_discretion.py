"""Discretion: what consensus is, priorities without a finite fit, distances with ties, an oracle in two orders."""

from __future__ import annotations

import json

import numpy as np
import pytest

from accordance.analysis import PairTable, ScriptedJudge
from accordance.core.errors import DataError
from accordance.diagnostics import discrepancy, discretion, discretion_report, oracle_votes, priority

NAN = float("nan")


def test_ties_are_dropped_and_never_counted_as_agreement():
    votes = np.array([[1, 1], [1, NAN], [1, -1], [0, NAN]])
    found = discretion(votes, {"a": np.array([1, -1, 1, 1]), "silent": np.array([0, NAN, 0, 0])}, ["p", "q"])
    assert dict(found.kinds) == {"consensus": 2, "conflict": 1, "indifference": 1}
    assert found.arbitrariness[0].estimate == 0.5 and found.judged == (2, 0)
    assert np.isnan(found.arbitrariness[1].estimate) and np.isnan(found.priority[1]).all()
    assert found.supremacy[0, 0, 1] == 1 and found.supremacy[0, 1, 0] == 0 and found.counts[0, 0, 1] == 1


def test_what_always_wins_is_infinite_and_leaves_the_fit():
    wins = np.array([[0, 5, 5], [0, 0, 3], [0, 2, 0.0]])
    weights, prior = priority(wins, wins + wins.T)
    assert weights[0] == np.inf and not prior
    assert weights[1] - weights[2] == pytest.approx(np.log(3 / 2)) and weights[1:].sum() == pytest.approx(0)
    lonely = np.zeros((3, 3))
    lonely[0, 1] = 4
    assert np.isnan(priority(lonely, lonely + lonely.T)[0][2])


def test_priorities_are_bradley_terry_where_all_meet():
    true = np.array([1.0, 0.2, -1.2])
    share = 1 / (1 + np.exp(-(true[:, None] - true[None])))
    count = 1000 * (1 - np.eye(3))
    assert np.allclose(priority(share * count, count)[0], true, atol=1e-6)


def test_the_distance_of_an_order_to_itself_its_reverse_and_a_tie():
    order = np.array([3.0, 1.0, -np.inf, 2.0])
    assert discrepancy(order, order) == 0 and discrepancy(order, -order) == 1
    assert discrepancy(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == 0.5
    assert np.isnan(discrepancy(np.array([1.0, NAN]), np.array([1.0, 2.0])))


class Biased(ScriptedJudge):
    """Always takes the side shown first on principles that it does not know."""

    def vote(self, principles, questions):
        return np.where(np.isnan(known := super().vote(principles, questions)), 1.0, known)


def test_an_oracle_that_goes_by_order_has_no_preference_and_is_reported():
    judge = Biased({"longer": lambda p, t: float(len(t))})
    table = PairTable.of(["x"] * 3, ["aa", "b", "c"], ["a", "bbb", "d"], [1, 0, 1])
    votes, consistent = oracle_votes(judge, ["longer", "unknown"], table)
    assert np.array_equal(votes[:, 0], [1, -1, NAN], equal_nan=True) and np.isnan(votes[:, 1]).all()
    assert consistent.tolist() == [1.0, 0.0]
    found = discretion(votes, {"people": table.sign, "reversed": -table.sign}, ["longer", "unknown"])
    report = discretion_report(found, consistency=consistent)
    assert any("oracle" in w for w in report.warnings)
    assert report.values["arbitrariness"]["people"]["rate"] == 0 and "<svg" in report.to_html()
    assert json.loads(json.dumps(report.to_dict()))["discrepancy"]["people"]["people"] is None


def test_a_judge_that_takes_no_side_is_named_in_one_sentence_and_leaves_no_warning_for_each_number():
    sign = np.tile([1.0, -1.0], 10)
    found = discretion(
        np.zeros((20, 2)), {"people": sign, "a": sign, "b": -sign}, ("short", "kind"), samples=20
    )
    report = discretion_report(found)
    assert len(report.warnings) == 1 and "no side" in report.warnings[0]
    assert report.values["arbitrariness"]["people"] == {"rate": None, "low": None, "high": None, "n": 0}


def test_what_is_no_vote_is_refused():
    with pytest.raises(DataError, match="1, -1"):
        discretion(np.array([[0.5, 1.0]]), {"a": np.array([1])}, ["p", "q"])
    with pytest.raises(DataError, match="one preference"):
        discretion(np.ones((2, 2)), {"a": np.array([1])}, ["p", "q"])
    with pytest.raises(DataError, match="two or more"):
        discretion(np.ones((2, 1)), {"a": np.array([1, 1])}, ["p"])
