"""Comparing objectives: the same budget for all, trials that are kept, labels that are flipped as told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accordance.app.compare import (
    Point,
    Trial,
    at_budget,
    compare_objectives,
    flipped,
    plan_trials,
    study_report,
)
from accordance.core.errors import ConfigError
from accordance.core.scorer import FunctionScorer
from tests.tiny import policy, records

QUICK: dict[str, Any] = {
    "max_steps": 2, "probes": 2, "samples": 6, "max_new_tokens": 6, "learning_rate": 1e-2, "use_cpu": True,
}  # fmt: skip


def longer(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def study(folder: Path, loads: list[int], **options: Any) -> Any:
    def load() -> Any:
        loads.append(1)
        return policy()

    some = records(16)
    return compare_objectives(
        load, some, some, output_dir=folder, scorer=FunctionScorer(longer), max_kl=0.05, **QUICK | options
    )


def test_a_study_measures_every_trial_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    loads: list[int] = []
    options: dict[str, Any] = {"objectives": ["dpo", "orpo"], "factors": [1.0], "noise": [0.25]}
    report = study(tmp_path, loads, **options)
    assert len(loads) == 1 + 4, "the start, and one policy for each trial"
    assert {row["objective"] for row in report.values["table"]} == {"dpo", "orpo"}
    assert all(0 <= row["win rate"] <= 1 and "change at 25% flipped" in row for row in report.values["table"])
    assert (tmp_path / "report.html").exists()
    again = study(tmp_path, loads, **options)
    assert len(loads) == 1 + 4 + 1 and again.values["table"] == report.values["table"]
    (tmp_path / "trials" / "orpo-beta0.1-seed0-noise0.json").unlink()
    assert study(tmp_path, loads, **options).values["table"] == report.values["table"] and len(loads) == 8
    study(tmp_path, loads, **options | {"max_steps": 3})
    assert len(loads) == 8 + 5, "another setting is another study"


def test_methods_are_compared_where_they_reach_the_budget() -> None:
    points = [Point(s, kl, win, {}, 9.0) for s, kl, win in ((0, 0, 0.5), (1, 2, 0.6), (2, 4, 0.8), (3, 6, 0.7))]
    assert at_budget(points, 3.0, lambda p: p.win) == (pytest.approx(0.7), True)
    assert at_budget(points, 9.0, lambda p: p.win) == (0.7, False)


def test_a_larger_step_alone_does_not_make_a_method_better() -> None:
    """Both follow the same curve of win rate against KL, one further: at the budget they are equal."""
    curve = [(0, 0.5), (1, 0.6), (2, 0.7), (4, 0.8), (8, 0.9)]
    near = [Point(i, kl, win, {"a": win}, 9.0) for i, (kl, win) in enumerate(curve[:4])]
    far = [Point(i, kl, win, {"a": win}, 9.0) for i, (kl, win) in enumerate(curve)]
    found = {Trial("near", None, 0, 0.0): near, Trial("far", None, 0, 0.0): far}
    table = study_report(found, 3.0, {}).values["table"]
    assert [row["win rate"] for row in table] == pytest.approx([0.75, 0.75])
    assert [row["worst group"] for row in table] == pytest.approx([0.75, 0.75])
    soon = {Trial("soon", None, 0, 0.0): [far[0], far[4]]}  # the budget is passed before the first probe
    (row,) = study_report(soon, 4.0, {}).values["table"]
    assert row["win rate"] == row["worst group"] == pytest.approx(0.7)
    assert "stayed below" in " ".join(study_report(found, 5.0, {}).warnings)


def test_labels_are_flipped_in_about_the_share_told_and_the_same_for_all(tmp_path: Path) -> None:
    some = records(200)
    turned = flipped(some, 0.3, seed=1)
    changed = [a.judgments[0].values != b.judgments[0].values for a, b in zip(some, turned)]
    assert 0.2 < sum(changed) / len(changed) < 0.4
    assert all(sorted(a.judgments[0].values) == sorted(b.judgments[0].values) for a, b in zip(some, turned))
    assert [r.judgments for r in flipped(some, 0.3, seed=1)] == [r.judgments for r in turned]
    assert flipped(some, 0.0, seed=1) is some


def test_strengths_are_multiples_of_an_objectives_own() -> None:
    trials = plan_trials(["dpo", "simpo", "lcpo(dpo)"], [1, 4], [0, 1], [0.2])
    assert {(t.objective, t.strength) for t in trials} == {
        ("dpo", 0.1), ("dpo", 0.4), ("simpo", 2.0), ("simpo", 8.0), ("lcpo(dpo)", 0.1), ("lcpo(dpo)", 0.4),
    }  # fmt: skip
    assert len(trials) == 3 * 2 * 2 * 2 and len({t.name for t in trials}) == len(trials)


@pytest.mark.parametrize("names", [["dpo", "dpo"], ["grpo"], ["dpoo"]])
def test_what_can_not_be_compared_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError):
        plan_trials(names, [1], [0], [])


def test_the_command_lists_its_trials_without_running_them(accord: Any) -> None:
    done = accord(
        "compare-objectives",
        "--model",
        "lab:base",
        "--records",
        "lab:demo",
        "--objectives",
        "dpo",
        "--dry-run",
        "--json",
    )
    assert done.exit_code == 0 and len(json.loads(done.stdout)["trials"]) == 4
