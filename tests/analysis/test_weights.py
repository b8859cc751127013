"""Weights of judgments: a weight of 2 is the judgment twice, a weight of 0 its absence, in every reading of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from accordance.analysis import Differences, PairTable, aggregation_report, by_group, explain, joint
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.stats import bootstrap, proportion
from accordance.core.weights import weighted, weights_of

WORDS = ("please", "sorry", "maybe", "the", "cat", "you", "good", "12", "why?", "no")


def judged(n: int = 240) -> list[Record]:
    """Comparisons of made-up texts by twelve people of two groups; shorter ones are preferred more often than not."""
    g, made = np.random.default_rng(0), []
    for i in range(n):
        texts = [" ".join(g.choice(WORDS, int(g.integers(3, 25)))) for _ in range(2)]
        first = g.random() < 1 / (1 + np.exp((len(texts[0]) - len(texts[1])) / 30))
        said = Judgment(
            "comparison", (0, 1), (float(first), float(not first)), annotator=f"p{i % 12}", group=f"g{i % 2}"
        )
        answers = tuple(Response.of(text, source=f"m{(i + k) % 3}") for k, text in enumerate(texts))
        made.append(Record(user(f"ask {i // 2}"), answers, (said,), id=str(i)))
    return made


def with_weights() -> Records:
    """Every third judgment counts twice, every fifth not at all."""
    return Records.of([weighted(r, [w]) for r, w in zip(judged(), weights())])


def by_hand() -> Records:
    """The same with rows written twice or left out."""
    times = [(r, int(w)) for r, w in zip(judged(), weights())]
    return Records.of([replace(r, id=f"{r.id} {k}") for r, many in times for k in range(many)])


def weights(n: int = 240) -> list[float]:
    # Resamples draw people in the order in which they appear, so everybody's first judgment stays.
    return [0.0 if i % 5 == 0 and i > 11 else 2.0 if i % 3 == 0 else 1.0 for i in range(n)]


def test_explain_reads_a_weight_of_2_as_the_row_twice_and_of_0_as_its_absence():
    one, other, none = (
        explain(r, samples=100, shuffles=0).values for r in (with_weights(), by_hand(), Records.of(judged()))
    )
    for name, effect in other["effects"].items():
        for key, value in effect.items():
            np.testing.assert_allclose(one["effects"][name][key], value, atol=1e-6, err_msg=f"{name} {key}")
    assert one["effects"].keys() == other["effects"].keys() > {"longer", "shown first"}
    for key in ("accuracy", "accuracy_ci95", "longer_preferred", "longer_preferred_ci95", "riding"):
        assert one[key] == pytest.approx(other[key]), key
    assert abs(one["effects"]["longer"]["weight"] - none["effects"]["longer"]["weight"]) > 1e-3


def test_groups_and_resamples_of_people_go_by_weight():
    g = np.random.default_rng(1)
    x, label, weight = g.normal(size=(300, 2)), (g.random(300) < 0.5).astype(float), g.integers(0, 3, 300)
    weight[:20] = 1  # as above
    made, twice = Differences(("a", "b"), x), np.repeat(np.arange(300), weight)
    names = [[f"{kind}{i % many}" for i in range(300)] for kind, many in (("p", 20), ("g", 2))]

    def table(rows: np.ndarray, given: np.ndarray | None) -> PairTable:
        person, group = ([column[i] for i in rows] for column in names)
        texts = ["q"] * len(rows), ["a"] * len(rows), ["b"] * len(rows)
        return PairTable.of(*texts, label[rows], person=person, group=group, weight=given)

    whole, hand = table(np.arange(300), weight), table(twice, None)
    one = joint(made, whole.label, whole.person, weight=whole.weight, samples=200)
    other = joint(made.select(twice), hand.label, hand.person, samples=200)
    for name in ("weight", "se", "low", "high", "p", "scale", "shift", "differ"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)
    found, by = by_group(made, whole, samples=0), by_group(made.select(twice), hand, samples=0)
    assert found is not None and by is not None
    np.testing.assert_allclose(found.weight, by.weight, atol=1e-7)


def test_aggregation_reads_them_and_elo_refuses_them():
    one, other = (aggregation_report(r, samples=30).values["standings"] for r in (with_weights(), by_hand()))
    for a, b in zip(one["bradley_terry"], other["bradley_terry"], strict=True):
        assert a["model"] == b["model"] and a["score"] == pytest.approx(b["score"])
        assert a["score_ci95"] == pytest.approx(b["score_ci95"])
    with pytest.raises(ConfigError, match="no weights"):
        aggregation_report(with_weights(), ["elo"])


def test_a_table_has_the_weights_of_the_records_and_says_where_they_are_broken():
    some = judged(30)
    two = replace(some[0], judgments=some[0].judgments * 2)
    table = PairTable.from_records(Records.of([weighted(two, [0.5, 3]), *some[1:]]))
    assert table.weight.tolist() == [0.5, 3.0] + [1.0] * 29
    broken = replace(some[4], extras={"weights": [1, 2]}, origin="file:5")
    with pytest.raises(DataError, match="file:5"):
        PairTable.from_records(Records.of([*some[:4], broken]))
    with pytest.raises(DataError, match="nothing to explain"):
        PairTable.from_records(Records.of([weighted(r, [0]) for r in some]))
    assert weights_of(replace(some[0], extras={"note": {"weights": 7}})) == (1.0,)


def test_shares_and_means_go_by_weight():
    values, who, weight = [1.0, 0.0, 1.0, 0.0, 1.0], list("aabbc"), np.array([2, 1, 0, 3, 1])
    twice = np.repeat(np.arange(5), weight)
    for measure in (bootstrap, proportion):
        one = measure(values, clusters=who, weights=weight)
        other = measure([values[i] for i in twice], clusters=[who[i] for i in twice])
        assert (one.estimate, one.low, one.high) == pytest.approx((other.estimate, other.low, other.high))
    assert proportion(values, weights=np.ones(5)) == proportion(values)
    with pytest.raises(ConfigError, match="other than the mean"):
        bootstrap(values, np.median, weights=weight)
