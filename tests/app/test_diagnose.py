"""`accord diagnose`: discretion of people, rewards and models; tampering in data and rehearsed. All offline."""

from __future__ import annotations

import json
from pathlib import Path

from tests.app.conftest import Accord


def test_discretion_of_the_labs_people_and_of_a_reward(accord: Accord, tmp_path: Path) -> None:
    (tmp_path / "principles.txt").write_text("more politeness\n\nmore correctness\n")
    args = ["diagnose", "discretion", "lab:demo?n=60", f"--principle={tmp_path / 'principles.txt'}"]
    found = accord.json(
        *args, "--principle=less harm", "--scorer=population", "--samples=20", "-o", str(tmp_path)
    )
    assert found["oracle_consistency"] == 1.0 and "population" in found["arbitrariness"]
    assert abs(found["consensus"] + found["conflict"] + found["indifference"] - 1) < 1e-9
    assert "<svg" in (tmp_path / "diagnose.html").read_text()
    alone = accord("diagnose", "discretion", "lab:demo?n=20", "--principle=less harm")
    assert alone.exit_code == 2 and "two or more" in alone.stderr


def test_tampering_is_rehearsed_without_data_and_refuses_what_it_would_not_use(accord: Accord) -> None:
    found = accord.json("diagnose", "tampering")
    innocent = accord.json("diagnose", "tampering", "--coupling=0")
    assert found["bias_rate"] > 0.9 and abs(innocent["bias_rate"] - 0.2) < 0.07
    assert accord("diagnose", "tampering", "--bias=x").exit_code == 2
    assert accord("diagnose", "tampering", "lab:demo").exit_code == 2


def test_a_planted_bias_is_found_in_ratings_with_twins_and_clusters(accord: Accord, tmp_path: Path) -> None:
    rows = []
    for i in range(40):
        texts = ["It is red.", "It is red, says ACME. I explain it at length.", "Red.", "Red, I think."]
        rows.append({"prompt": f"What colour is thing {i}?", "responses": texts, "ratings": [2, 5, 1, 2]})
    from accordance.core.record import Judgment, Record, Records, Response, user
    from accordance.feedback import save_records

    made = [
        Record(user(r["prompt"]), tuple(map(Response.of, r["responses"])),
               (Judgment("rating", (0, 1, 2, 3), tuple(map(float, r["ratings"]))),))
        for r in rows
    ]  # fmt: skip
    save_records(Records.of(made), tmp_path / "samples.jsonl")
    (tmp_path / "reward.py").write_text(
        "def f(prompts, completions):\n    return [9.0 * ('ACME' in c) for c in completions]\n"
    )
    found = accord.json(
        "diagnose", "tampering", str(tmp_path / "samples.jsonl"), "--bias=ACME", "--quality=ratings",
        f"--scorer={tmp_path / 'reward.py'}:f", "--model=lab:base",
    )  # fmt: skip
    assert found["bias_rate"] == 0.25 and found["biased_first"] == 1 and found["twin_gap"] == 9
    assert "cluster_score" in found and any("twin" in w or "bias itself" in w for w in found["warnings"])
    json.dumps(found)


def test_explain_takes_features_of_a_model_and_a_judge_and_refuses_options_without_effect(
    accord: Accord,
) -> None:
    args = ["explain", "lab:demo?n=120", "--samples=100"]
    found = accord.json(*args, "--features=model", "--judge=lab", "--judged=100", "--principles=4")
    assert "likelier to the model" in found["effects"] and "refuses" not in found["effects"]
    assert 0.5 < found["principles_accuracy"] <= 1 and found["principles_judged"] == 100
    assert found["annotators"] is None and isinstance(found["riding"], list)
    assert accord(*args, "--judged=60").exit_code == 2
    assert accord(*args, "--quality=beauty").exit_code == 2
