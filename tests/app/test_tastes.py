"""From the command line: groups, rewards and wordings compared, sparse features, and the survey's book of recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accordance.curation import Pipeline
from tests.app.conftest import Accord


@pytest.fixture
def votes(tmp_path: Path) -> str:
    """Ninety pairs: one group prefers what is polite, the other what is not; everybody the same for exclamations."""
    rows = []
    for n in range(90):
        polite, plain = f"Please see number {n}.", f"Simply see number {n}."
        loud = n % 3 == 0
        for who in range(4):
            fond = who < 2
            texts = (polite, plain) if fond else (plain, polite)
            if loud:
                texts = (f"Number {n} is there!", f"Number {n} is there.")
            said = {"kind": "comparison", "responses": [0, 1], "values": [1.0, 0.0], "annotator": f"p{who}"}
            said["group"] = "fond" if fond else "curt"
            rows.append(
                {
                    "id": f"{n}-{who}",
                    "prompt": [{"role": "user", "content": f"where is {n}?"}],
                    "responses": [{"messages": [{"role": "assistant", "content": t}]} for t in texts],
                    "judgments": [said],
                }
            )
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_judges_of_opposite_tastes_are_told_apart(accord: Accord, votes: str, tmp_path: Path) -> None:
    found = accord.json("diagnose", "judges", votes, "-o", str(tmp_path / "out"))
    fond, curt = (found["probability"][name] for name in ("fond", "curt"))
    assert fond["is polite"] > 0.6 and curt["is polite"] < 0.4
    assert min(fond["exclaims"], curt["exclaims"]) > 0.55
    assert (tmp_path / "out" / "diagnose.html").exists()
    assert "group or a person" in accord.error("diagnose", "judges", votes, "--by", "people")["problem"]
    assert "50 comparisons" not in accord.error("diagnose", "judges", votes, "--least", "999")["problem"]


def test_profiles_of_people_and_a_reward_are_compared(accord: Accord, votes: str, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "def loud(prompts, completions, **_):\n    return [t.count('!') - t.count('Please') for t in completions]\n"
    )
    found = accord.json("diagnose", "profiles", votes, "--scorer", f"{tmp_path / 'loud.py'}:loud")
    assert "more “is polite”" in found["advice"]
    assert -1 <= found["kendall"] <= 1


def test_wording_counts_votes_on_the_same_pair(accord: Accord, votes: str) -> None:
    found = accord.json("diagnose", "wording", votes)
    assert found["pairs"] == 30 and found["unclear"] == 60  # on politeness the groups split
    assert "more of: exclaims" in found["instructions"]
    assert "margin" in accord("diagnose", "wording", votes, "--margin", "0.2").stderr


def test_sparse_features_explain(accord: Accord, votes: str) -> None:
    found = accord.json("explain", votes, "--features", "sparse", "--samples", "100", "--limit", "120")
    assert "unit " in json.dumps(found)


def test_the_book_holds_recipes_that_are_steps(accord: Accord) -> None:
    found = accord.json("systems", "--book")
    assert {entry["room"] for entry in found["map"]} >= {"curation", "evaluation"}
    for recipe in found["recipes"]:
        assert Pipeline.of(*recipe["curate"]).steps or not recipe["curate"]
    assert "unknown room" in accord.error("systems", "--book", "--room", "curatoin")["problem"]
