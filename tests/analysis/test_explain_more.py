"""Explain, further: what rides on quality, noise by annotator, features of a model, principles with a judge."""

from __future__ import annotations

import numpy as np
import pytest

from accordance.analysis import Differences, Given, PairTable, ScriptedJudge, explain
from accordance.analysis.explain import analyse
from accordance.analysis.hidden import ModelFeatures
from accordance.analysis.riding import riding
from accordance.analysis.words import telling_words
from accordance.core.errors import ConfigError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.lab import base_model_path, demo_records
from accordance.models import load_policy


def pairs(coupled: float, liked: float, n: int = 2500) -> tuple[PairTable, Given]:
    """Labels of quality (weight 2) and of a bias (weight `liked`); biased answers are better by `coupled`."""
    g = np.random.default_rng(0)
    bias = g.integers(-1, 2, n).astype(float)
    quality = 0.7 * g.normal(size=n) + coupled * bias
    won = (g.random(n) < 1 / (1 + np.exp(-2 * quality - liked * bias))).astype(float)
    made = Differences(("bias", "quality", "noise"), np.stack([bias, quality, g.normal(size=n)], 1))
    return PairTable.of([f"ask {i}" for i in range(n)], ["x"] * n, ["y"] * n, won), Given(made)


@pytest.mark.parametrize(
    ("coupled", "liked", "flagged"), [(1.0, 0.0, True), (0.0, 0.0, False), (0.0, 1.0, False)]
)
@pytest.mark.parametrize("quality", ["quality", None])
def test_a_bias_is_flagged_where_it_rides_on_quality_and_not_where_it_is_liked_for_itself(
    coupled: float, liked: float, flagged: bool, quality: str | None
) -> None:
    table, given = pairs(coupled, liked)
    found = riding(analyse(table, [given], (), samples=100, shuffles=0), quality)
    assert found.flagged == (("bias",) if flagged else ())
    at = found.names.index("bias")
    assert (found.gap[at].low > 0) is flagged
    report = explain(table, features=[given], controls=(), quality=quality, samples=100, shuffles=0)
    assert any("rides" in w for w in report.warnings) is (flagged and quality is not None)


def test_quality_must_be_a_factor_that_is_not_held_fixed() -> None:
    table, given = pairs(1.0, 0.0, 300)
    found = analyse(table, [given], ("quality",), samples=100, shuffles=0)
    with pytest.raises(ConfigError, match="held fixed"):
        riding(found, "quality")
    with pytest.raises(ConfigError, match="beauty"):
        riding(found, "beauty")


def test_the_careless_annotator_is_told_from_the_careful_ones() -> None:
    g, made = np.random.default_rng(0), []
    for i in range(120):
        texts = ["It is a long and careful answer to this.", "No."]
        said = [(f"p{k}", 0.9 if k else 0.5) for k in range(5)]
        judgments = tuple(
            Judgment("comparison", (0, 1), (1.0, 0.0) if g.random() < sure else (0.0, 1.0), annotator=name)
            for name, sure in said
        )
        made.append(Record(user(f"ask {i}"), tuple(map(Response.of, texts)), judgments, id=str(i)))
    report = explain(Records.of(made), samples=100, shuffles=0)
    found = {a["annotator"]: a for a in report.values["annotators"]}
    assert min(found, key=lambda n: found[n]["reliability"]) == "p0"
    assert found["p0"]["high"] < min(found[f"p{k}"]["low"] for k in range(1, 5))
    assert report.values["foreseen"]["p0"]["share"] < report.values["foreseen"]["p1"]["share"]


def test_features_of_the_packaged_model_do_not_depend_on_order_or_labels_and_say_what_they_mean() -> None:
    table = PairTable.from_records(demo_records(60))
    maker = ModelFeatures(load_policy(base_model_path()), directions=3)
    made = maker.differences(table)
    assert made.names == ("likelier to the model", *(f"hidden direction {k}" for k in (1, 2, 3)))
    again = maker.differences(table.select(np.arange(len(table))[::-1]).with_labels(1 - table.label[::-1]))
    assert np.allclose(again.values[::-1], made.values, atol=1e-4)
    plain = load_policy(base_model_path()).logprobs(demo_records(60))
    first = plain[(plain.record == 0)]
    gap = (first.logprob / first.tokens).to_numpy()
    sides = dict(zip(table.texts.to_pylist()[:2], gap))
    a, b = (table.texts[int(i)].as_py() for i in (table.first[0], table.second[0]))
    assert made.values[0, 0] == pytest.approx(sides[a] - sides[b], abs=1e-4)
    assert "more of:" in made.notes["hidden direction 1"]


def test_principles_of_a_judge_stand_in_the_report_with_their_accuracy_on_held_out_prompts() -> None:
    g = np.random.default_rng(1)
    sizes = g.integers(1, 30, size=(200, 2))
    sizes[:, 1] += sizes[:, 0] == sizes[:, 1]
    first, second = (["w " * k for k in side] for side in sizes.T)
    table = PairTable.of(
        [f"ask {i}" for i in range(200)], first, second, (sizes[:, 0] > sizes[:, 1]).astype(float)
    )
    judge = ScriptedJudge({"longer is better": lambda p, t: len(t), "shorter is better": lambda p, t: -len(t)})
    report = explain(table, judge=judge, principles=1, judged=90, samples=100, shuffles=0)
    assert report.values["principles_accuracy"] == 1.0 and report.values["principles_judged"] == 90


def test_telling_words_are_of_the_pile_and_rare_words_do_not_win() -> None:
    more, less = ["the brand is good"] * 30 + ["odd"], ["the thing is good"] * 30
    assert [w for w, _ in telling_words(more, less)] == ["brand"]
    assert telling_words([], less) == []
