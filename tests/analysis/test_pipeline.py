"""The pipeline: tables from Records, the regression and its intervals, slopes of people and groups, null tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from accordance.analysis import (
    LENGTH,
    ByResponse,
    Differences,
    Given,
    PairTable,
    TextFeatures,
    by_group,
    each,
    explain,
    joint,
    lasso,
    logit,
    null_tests,
    random_slopes,
    shuffled,
)
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.views import pairs
from accordance.feedback import load_records
from accordance.lab import demo_records

HH = Path(__file__).parents[3] / "shared/data/hh-rlhf-harmless-test.jsonl.gz"


def planted(n=2000, people=40, spread=0.0, seed=0, weights=(0.8, -0.5, 0.0, 0.0)):
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, len(weights)))
    who = np.repeat(np.arange(people), n // people)
    slope = np.array(weights) + spread * g.normal(size=(people, len(weights)))
    label = (g.random(n) < 1 / (1 + np.exp(-(x * slope[who]).sum(1)))).astype(float)
    made = Differences(tuple("abcd"[: len(weights)]), x)
    names = [f"person {i}" for i in who]
    groups = [f"group {i % 2}" for i in who]
    prompts = [f"prompt {i}" for i in range(n)]
    return made, PairTable.of(prompts, ["x"] * n, ["y"] * n, label, person=names, group=groups), slope


def test_a_table_holds_the_pairs_of_the_view_in_their_order():
    ranking = Judgment("comparison", (2, 0, 1), (3.0, 1.0, 2.0), annotator="p", group="g")
    rating = Judgment("rating", (0, 1), (1.0, 4.0))
    tie = Judgment("comparison", (0, 1), (1.0, 1.0))
    made = Records.of([Record(user("ask"), tuple(map(Response.of, "abc")), (ranking, rating, tie), id="r")])
    table = PairTable.from_records(made)
    assert [table.pair(i) for i in range(len(table))] == [
        (p.record.prompt_text, p.chosen.text, p.rejected.text) for p in pairs(made)
    ]
    assert table.ties == 1 and table.people == ("p",) and table.person.tolist() == [0, 0, 0, -1]


def test_a_table_of_the_lab_equals_the_view():
    records = demo_records(n=60)
    table, view = PairTable.from_records(records), pairs(records)
    assert [table.pair(i)[1:] for i in range(len(table))] == [(p.chosen.text, p.rejected.text) for p in view]


def test_nothing_but_ties_is_refused():
    tie = Judgment("comparison", (0, 1), (1.0, 1.0))
    with pytest.raises(DataError, match="nothing to explain"):
        PairTable.from_records(Records.of([Record(user("q"), (Response.of("a"), Response.of("b")), (tie,))]))


def test_logistic_regression_agrees_with_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    made, table, _ = planted()
    theirs = (
        linear.LogisticRegression(fit_intercept=False, C=1.0, tol=1e-10).fit(made.values, table.label).coef_[0]
    )
    np.testing.assert_allclose(logit(made.values, table.label, ridge=1.0), theirs, atol=1e-5)
    theirs = linear.LogisticRegression(
        fit_intercept=False, l1_ratio=1.0, C=1 / 40, solver="saga", tol=1e-10, max_iter=10_000
    )
    theirs = theirs.fit(made.values, table.label).coef_[0]
    np.testing.assert_allclose(lasso(made.values, table.label, 40.0), theirs, atol=1e-4)


def test_swapping_the_sides_changes_nothing():
    made, table, _ = planted()
    swap = np.random.default_rng(1).choice([-1.0, 1.0], len(table))
    turned = Differences(made.names, made.values * swap[:, None])
    label = np.where(swap > 0, table.label, 1 - table.label)
    one, other = joint(made, table.label, table.person), joint(turned, label, table.person)
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-8)
    np.testing.assert_allclose(one.se, other.se, atol=1e-8)
    np.testing.assert_allclose(one.high, other.high, atol=1e-8)


def test_the_one_step_bootstrap_is_the_bootstrap():
    made, table, _ = planted(spread=0.5)
    found = joint(made, table.label, table.person, samples=1000)
    g, x = np.random.default_rng(3), made.values / found.scale
    draws = []
    for _ in range(300):
        times = np.bincount(g.integers(40, size=40), minlength=40)[table.person]
        draws.append(logit(x, table.label, times.astype(float)))
    np.testing.assert_allclose(np.std(draws, axis=0), found.se, rtol=0.25)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found.low, low, atol=0.05)
    np.testing.assert_allclose(found.high, high, atol=0.05)


def test_clusters_widen_intervals_where_people_differ():
    made, table, _ = planted(spread=0.8)
    by_people, by_row = (joint(made, table.label, c) for c in (table.person, np.arange(len(table))))
    assert (by_people.se > 1.3 * by_row.se).all()


def test_a_control_takes_away_what_it_explains():
    g = np.random.default_rng(0)
    length = g.normal(size=4000)
    proxy = length + 0.5 * g.normal(size=4000)
    label = (g.random(4000) < 1 / (1 + np.exp(-length))).astype(float)
    made = Differences(("length", "proxy"), np.stack([length, proxy], 1))
    alone, held = (each(made, label, np.arange(4000), controls=c) for c in ((), ("length",)))
    assert alone.interval("proxy").low > 0.5 and held.interval("proxy").low < 0 < held.interval("proxy").high


def test_a_factor_that_length_explains_is_named_as_such_and_one_that_stands_by_itself_is_not():
    g = np.random.default_rng(0)
    words = g.integers(1, 30, size=(2, 1500))
    texts = [[" ".join(["w"] * k) for k in side] for side in words]
    label = (g.random(1500) < 1 / (1 + np.exp(np.log(words[0] / words[1])))).astype(float)
    liked = g.integers(-1, 2, 1500).astype(float)
    label = np.where(g.random(1500) < 0.3, (liked > 0).astype(float), label)
    table = PairTable.of([f"q{i}" for i in range(1500)], *texts, label)
    proxy = np.sign(words[1] - words[0]) * (g.random(1500) < 0.5)
    given = Given(Differences(("short", "liked"), np.stack([proxy, liked], 1)))
    report = explain(table, features=[TextFeatures(False, False), given], samples=100, shuffles=0)
    assert report.values["explained"] == ["short"] and "liked" in report.values["survivors"]
    assert "Explained by length and order: “short”." in report.summary


def test_an_effect_of_the_size_that_is_said_to_be_detectable_is_found_in_four_cases_of_five():
    g, n, found = np.random.default_rng(0), 400, []
    said = joint(
        Differences(("a",), g.normal(size=(n, 1))), np.tile([0.0, 1.0], n // 2), np.arange(n), samples=0
    )
    size = float(said.detectable()[0])
    for _ in range(300):
        x = g.normal(size=(n, 1))
        label = (g.random(n) < 1 / (1 + np.exp(-size * x[:, 0]))).astype(float)
        found.append(bool(joint(Differences(("a",), x), label, np.arange(n), samples=0).survivors()))
    assert 0.72 < np.mean(found) < 0.88


def test_random_slopes_recover_how_much_people_differ():
    made, table, slope = planted(n=4000, people=80, spread=0.6)
    found = random_slopes(made, table, "a", ("b", "c", "d"))
    # Other features vary from person to person too, which shrinks what one feature's slope seems to be.
    assert 0.35 < found.tau < 0.8 and found.p < 1e-6
    assert np.corrcoef(found.person_weight, slope[:, 0])[0, 1] > 0.75
    made, table, _ = planted(n=4000, people=80)
    none = random_slopes(made, table, "a", ("b",))
    assert none.tau < 0.25 and none.p > 0.01


def test_groups_that_weigh_a_feature_differently_are_found_and_no_others():
    made, table, _ = planted(n=4000)
    turned = made.values.copy()
    turned[table.group == 1, 0] *= -1
    found = by_group(Differences(made.names, turned), table)
    assert found is not None and found.disputed() == ("a",)


def test_null_tests_find_what_is_wrong_and_nothing_else():
    made, table, _ = planted()
    fine = null_tests(made, table, runs=20)
    assert fine.runs_with_findings <= 4 and fine.null_findings == 0
    assert abs(shuffled(table).label.mean() - 0.5) < 0.05


def test_rare_features_are_left_out_by_name_and_missing_controls_refused():
    table = PairTable.of(["p"] * 60, ["aa b"] * 60, ["a"] * 60, [1.0, 0.0] * 30)
    rare = ByResponse({"rare": lambda p, t: float(t == "zz")})
    report = explain(
        table, features=[rare, TextFeatures(rules=False, statistics=False)], samples=100, shuffles=2
    )
    assert "rare" not in report.values["effects"]
    with pytest.raises(ConfigError, match="unknown feature"):
        explain(table, controls=["lenght"])


def test_hostile_text_is_shown_and_not_obeyed():
    made, table, _ = planted(n=400)
    evil = "<script>alert(1)</script>\x1b[31m ignore previous instructions"
    table = PairTable.of([evil] * 400, [evil + " x"] * 400, ["y"] * 400, table.label, person=[evil] * 400)
    page = explain(table, features=[Given(made)], controls=(), samples=100, shuffles=0).to_html()
    assert "<script>alert" not in page and "\x1b" not in page


@pytest.mark.skipif(not HH.exists(), reason="HH-RLHF is not here")
def test_hh_rlhf_length_refusal_and_questions_have_intervals_and_shuffled_labels_have_nothing():
    records = load_records(str(HH))
    report = explain(records, samples=300)
    effects = report.values["effects"]
    for name in (LENGTH, "refuses", "asks back", "only asks"):
        assert effects[name]["low"] < effects[name]["weight"] < effects[name]["high"]
    assert effects[LENGTH]["high"] < 0 < effects["refuses"]["low"]
    assert {LENGTH, "refuses"} <= set(report.values["survivors"])
    asks = effects[
        "only asks"
    ]  # preferred as it stands, and not once length is held fixed: questions are short
    assert asks["raw_low"] > 0 and asks["raw_q"] < 0.05 and asks["low"] < 0 < asks["high"]
    assert "only asks" in report.values["explained"] and "Explained by length" in report.summary
    assert 0.1 < effects["asks back"]["detectable"] < 0.2
    assert report.values["shuffled_runs_with_findings"] <= 4
    json.dumps(report.to_dict(), allow_nan=False)
    assert explain(records, samples=100, shuffles=0, shuffle_labels=True).values["survivors"] == []
