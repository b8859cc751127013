"""Ratings by person, census weights and welfare: what is refused, and the report on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.feedback import load_records
from accordance.feedback.participation import (
    RatedTurn,
    group_distance,
    kendall_distance,
    load_profiles,
    model_scores,
    plan_sample,
    rake,
    rated_turns,
    scaled,
)
from accordance.feedback.welfare import Scheme, welfare
from tests.app.conftest import Accord
from tests.proofs.test_s066_prism import population, rows

TURNS = [RatedTurn("p", ("a", "b"), (10, 20), kind="x"), RatedTurn("p", ("a", "c"), (30, 40), kind="y"),
         RatedTurn("q", ("a", "b"), (5, 5))]  # fmt: skip


def test_scaling_is_per_person() -> None:
    centred = scaled(TURNS, "centre")
    assert [t.scores for t in centred] == [(-15, -5), (5, 15), (0, 0)]
    z = np.concatenate([t.scores for t in scaled(TURNS, "zscore")[:2]])
    assert z.mean() == pytest.approx(0) and z.std() == pytest.approx(1)
    assert [t.scores for t in scaled(TURNS, "rank")] == [(0.125, 0.375), (0.625, 0.875), (0.5, 0.5)]
    by_kind = scaled(TURNS, "centre", by_kind=True)
    assert by_kind[0].scores == by_kind[1].scores == (-5, 5), "harder prompts are no fault of the model"


def test_tie_bands_and_weights_count() -> None:
    shares = model_scores(TURNS, "win_share")
    assert shares == {"a": pytest.approx(1 / 6), "b": 0.75, "c": 1.0}
    assert model_scores(TURNS, "win_share", tie_band=10) == {"a": 0.5, "b": 0.5, "c": 0.5}
    of_q = model_scores(TURNS, "win_share", weights={"q": 2.0})
    assert (of_q["a"], of_q["b"]) == (0.5, 0.5) and np.isnan(of_q["c"]), "p counts for nothing"
    with pytest.raises(ConfigError, match="unknown method"):
        model_scores(TURNS, "dice")


def test_distances() -> None:
    assert kendall_distance({"a": 1, "b": 2}, {"a": 1, "b": 2}) == 0
    assert kendall_distance({"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1}) == 1
    turns, groups = population(120, 5)
    sides = tuple({p for p, g in groups.items() if g == name} for name in "AB")
    found = group_distance(turns, (sides[0], sides[1]), samples=20)
    assert 0 <= found.low <= found.high <= 1 and found.estimate > 0.2
    with pytest.raises(DataError, match="rated nothing"):
        group_distance(turns, (sides[0], set()))


def test_weights_that_can_not_be_are_refused() -> None:
    people = {"a": {"q": "x"}, "b": {"q": "y"}}
    assert rake(people, {"q": {"x": 0.5, "y": 0.5}}) == {"a": 1.0, "b": 1.0}, (
        "a sample like the census: no weights"
    )
    for census, complaint in (
        ({"q": {"x": 1.0}}, "not in the census"),
        ({"q": {"x": 0.5, "y": 0.4, "z": 0.1}}, "nobody in the sample"),
        ({"q": {"x": 0.5, "y": 0.4}}, "sum to 1"),
        ({"q": {"x": 0.5, "y": 0.5}, "r": {"u": 1.0}}, "not in the census"),
    ):
        with pytest.raises(DataError, match=complaint):
            rake(people, census)
    crossed = {"a": {"q": "x", "r": "u"}, "b": {"q": "y", "r": "v"}}
    with pytest.raises(DataError, match="no weights match"):
        rake(crossed, {"q": {"x": 0.5, "y": 0.5}, "r": {"u": 0.9, "v": 0.1}})
    with pytest.raises(ConfigError, match="can't give"):
        plan_sample({"a": {"q": "x"}, "b": {"q": "y"}, "c": {"q": "y"}}, {"q": {"x": 0.8, "y": 0.2}}, 2)


def test_what_can_not_be_analysed_is_said() -> None:
    with pytest.raises(DataError, match="nobody rated"):
        rated_turns(Records.of([Record(user("q"), (Response.of("a"),), (Judgment("rating", (0,), (1.0,)),))]))
    with pytest.raises(DataError, match="of its own"):
        load_profiles([{"user_id": "a"}, {"user_id": "a"}])
    turns, groups = population(30, 6)
    with pytest.raises(DataError, match="too small"):
        welfare(turns, groups, [Scheme("s", {"nobody": 1.0}, 5)])
    with pytest.raises(DataError, match="no model has"):
        welfare(turns, groups, [Scheme("s", {"A": 1.0}, 2)], draws=1, least=500)
    with pytest.raises(ConfigError, match="asks nobody"):
        Scheme("s", {"A": 0.5}, 5)


def test_the_command_reports_people_rankings_and_welfare(accord: Accord, tmp_path: Path) -> None:
    turns, groups = population(160, 7)
    files = {"u": rows(turns), "s": [{"user_id": p, "team": g} for p, g in groups.items()]}
    for name, many in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    (tmp_path / "c.json").write_text(json.dumps({"team": {"A": 0.25, "B": 0.25, "C": 0.25, "D": 0.25}}))
    args = ["ask", "people", "--records", str(tmp_path / "u.jsonl"), "--draws", "10", "--asked", "40"]
    more = ["--survey", str(tmp_path / "s.jsonl"), "--group-by", "team", "--census", str(tmp_path / "c.json")]
    found = accord.json(*args, *more, "--plan", "20", "--output-dir", str(tmp_path / "out"))
    assert found["people"] == 160 and found["effective_people"] < 160 and len(found["plan"]) == 20
    assert set(found["model_ranks"]) == {"everybody", "weighted to the census", "A", "B", "C", "D"}
    assert set(found["welfare_regret"]["only A"]) == set("ABCD")
    assert (tmp_path / "out" / "people.html").exists()
    plain = accord.json(*args)
    assert "model_ranks" in plain and "welfare_regret" not in plain
    assert "no effect" in accord.error(*args, "--census", str(tmp_path / "c.json"))["problem"]
    assert (
        "nobody answered"
        in accord.error(*args, "--survey", str(tmp_path / "s.jsonl"), "--group-by", "x")["problem"]
    )


def test_prism_itself(shared_data: Path) -> None:
    folder = shared_data / "prism"
    if not (folder / "utterances.jsonl").exists():
        pytest.skip("PRISM is not here (shared/data/prism/utterances.jsonl)")
    turns = rated_turns(load_records(str(folder / "utterances.jsonl")))
    assert len({t.person for t in turns}) > 1000 and len(model_scores(turns)) == 21


@pytest.fixture
def accord() -> Accord:
    return Accord()
