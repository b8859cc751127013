"""Aggregation of Records: planted strengths and reliabilities come back, whatever order things are shown in."""

from __future__ import annotations

import numpy as np
import pytest

from accordance.analysis import aggregation_report
from accordance.core.errors import ConfigError, DataError
from accordance.core.flat import FlatPairs
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.views import pairs

STRENGTH = {"ada": 1.2, "bob": 0.4, "cyd": -0.3, "dee": -1.3}
RIGHT = {"careful": 0.95, "fair": 0.8, "careless": 0.6, "also fair": 0.8, "again fair": 0.8}


def arena(n: int = 1500, seed: int = 0, *, extras: bool = False) -> Records:
    """Two of four models answer, one of 30 visitors says which is better; a tenth are ties."""
    g, names, made = np.random.default_rng(seed), list(STRENGTH), []
    for number in range(n):
        a, b = (names[i] for i in g.choice(4, 2, replace=False))
        win = g.random() < 1 / (1 + np.exp(STRENGTH[b] - STRENGTH[a]))
        values = (0.0, 0.0) if g.random() < 0.1 else (1.0, 0.0) if win else (0.0, 1.0)
        answers = tuple(Response.of(f"{m} {number}", source=None if extras else m) for m in (a, b))
        judgment = Judgment("comparison", (0, 1), values, annotator=f"visitor {int(g.integers(30))}")
        named = {"model_a": a, "model_b": b} if extras else {}
        made.append(Record(user(f"q{number}"), answers, (judgment,), id=str(number), extras=named))
    return Records.of(made)


def crowd(n: int = 500, seed: int = 0) -> Records:
    """Five people of planted reliability judge the same pairs, shown either way round, in records of their own."""
    g, made = np.random.default_rng(seed), []
    for number in range(n):
        better = int(g.integers(2))
        for who, right in RIGHT.items():
            shown = (0, 1) if g.random() < 0.5 else (1, 0)
            said = better if g.random() < right else 1 - better
            values = tuple(float(i == said) for i in shown)
            answers = [Response.of(f"a {number}"), Response.of(f"b {number}")]
            judgment = Judgment("comparison", shown, values, annotator=who)
            if g.random() < 0.5:
                answers.reverse()
                judgment = Judgment("comparison", tuple(1 - i for i in shown), values, annotator=who)
            made.append(Record(user(f"q{number}"), tuple(answers), (judgment,), id=f"{number} {who}"))
    return Records.of(made)


@pytest.mark.parametrize("extras", [False, True])
def test_models_stand_in_the_order_of_their_planted_strengths(extras):
    report = aggregation_report(arena(extras=extras), ["bradley_terry", "elo"], samples=60)
    found = report.values["standings"]
    for standings in found.values():
        assert [s["model"] for s in standings] == list(STRENGTH)
        assert all(s["score_ci95"][0] <= s["score"] <= s["score_ci95"][1] for s in standings)
    score = {s["model"]: s["score"] for s in found["bradley_terry"]}
    assert score["ada"] - score["dee"] == pytest.approx(2.5, abs=0.6)
    assert report.values["people"] == 30 and report.values["annotators"] is None
    assert report.values["ties"] == pytest.approx(150, abs=40)


def test_annotators_get_their_planted_reliability():
    report = aggregation_report(crowd())
    found = {row["annotator"]: row for row in report.values["annotators"]}
    for who, right in RIGHT.items():
        assert found[who]["reliability"] == pytest.approx(right, abs=0.06)
        assert (
            found[who]["low"] < found[who]["reliability"] < found[who]["high"] and found[who]["shared"] == 500
        )
    assert report.values["annotators"][0]["annotator"] == "careful"
    assert report.values["standings"] is None
    assert "<svg" in report.to_html()


def test_what_can_not_be_aggregated_is_refused_with_what_is_missing():
    alone = Records.of([Record(user("q"), (Response.of("a"), Response.of("b")),
                               (Judgment("comparison", (0, 1), (1.0, 0.0), annotator="x"),))])  # fmt: skip
    with pytest.raises(DataError, match="nothing to aggregate"):
        aggregation_report(alone)
    with pytest.raises(ConfigError, match="bradley_terry"):
        aggregation_report(arena(20), ["bradley_tery"])
    with pytest.raises(DataError, match="nobody judged"):
        aggregation_report(arena(20), attribute="tone")


def test_flat_pairs_are_the_pairs_of_the_view_over_several_batches(monkeypatch):
    monkeypatch.setattr("accordance.core.flat._BATCH", 2)
    records = Records.of(
        Record(user(f"q{n}"), tuple(Response.of(f"{n} {i}", source="xyz"[i]) for i in range(3)), judgments)
        for n, judgments in enumerate(
            [
                (Judgment("comparison", (2, 0, 1), (3.0, 1.0, 1.0)), Judgment("thumb", (0,), (1.0,))),
                (),
                (Judgment("rating", (1, 2), (2.0, 5.0), annotator="a", group="g", attribute="t"),),
            ]
        )
    )
    flat, view = FlatPairs.of(records), pairs(records, ties=True)
    assert len(flat) == len(view) == 4
    texts = [response.text for record in records for response in record.responses]
    for i, pair in enumerate(view):
        shown = texts[flat.first[i]], texts[flat.second[i]]
        assert shown == (
            (pair.chosen.text, pair.rejected.text)
            if pair.chosen_first
            else (pair.rejected.text, pair.chosen.text)
        )
        assert flat.label[i] == (0.5 if pair.tie else float(pair.chosen_first))
        assert records[int(flat.row[i])].judgments[int(flat.number[i])] == pair.judgment
    assert flat.names == {"annotator": ("a",), "group": ("g",), "attribute": ("t",)}
    assert flat.annotator.tolist() == [-1, -1, -1, 0] and flat.sources == ("x", "y", "z")


def test_judgments_of_one_pair_on_two_attributes_are_two_things_judged():
    answers = Response.of("a"), Response.of("b")
    judgments = [
        Judgment("comparison", (0, 1), (1.0, 0.0), attribute=name) for name in ("tone", "truth", "tone")
    ]
    turned = Record(user("q"), answers[::-1], (judgments[0],))
    codes, _ = FlatPairs.of(Records.of([Record(user("q"), answers, tuple(judgments)), turned])).items()
    assert codes[0] == codes[2] == codes[3] != codes[1]


def test_ranks_and_shares_are_told_as_people_read_them():
    report = aggregation_report(arena(400), ["bradley_terry", "win_share"], samples=20)
    page = report.to_html()
    assert "Bradley-Terry: score" in page and "1 to 1" not in page
    tables = {b["title"]: b for b in report.blocks if b["kind"] == "table"}
    assert tables["Win share: ranks"]["rows"][0][2]["unit"] == "share"
    assert tables["Share of comparisons that the row won against the column"]["rows"][0][1] is None
