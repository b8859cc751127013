"""Users from the command line: learned by `--users`, asked for by `--user`, evaluated against who knew none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accordance.feedback.saving import save_records
from tests.app.conftest import QUICK
from tests.training.test_users import people


@pytest.mark.parametrize("peft", [False, True])
def test_users_are_learned_asked_for_and_evaluated(accord: Any, model: str, tmp_path: Path, peft: bool) -> None:
    rows, run = tmp_path / "feedback.jsonl", str(tmp_path / "run")
    save_records(people(40), rows)
    some = ["align", "--model", model, "--records", str(rows), "--output-dir", run, *QUICK]
    rate = ["--users", "annotator", "--auxiliary-learning-rate", "1.0", *(["--use-peft"] if peft else [])]
    found = accord(*some, *rate)
    assert found.exit_code == 0, found.stderr
    recipe = Path(run, "recipe.yaml").read_text()
    assert (
        "users: annotator" in recipe and "user_tokens: 4" in recipe and "auxiliary_learning_rate: 1.0" in recipe
    )
    report = json.loads(Path(run, "report.json").read_text())
    assert report["kl"] is not None and report["preference_accuracy"] is not None

    asked = ["generate", "--model", run, "-p", "sun", "--max-new-tokens", "20", "--temperature", "0"]
    said = {name: accord.json(*asked, "--user", name)["rows"] for name in ("ann", "bob", "eve")}
    assert said["eve"] == accord.json(*asked)["rows"]  # nobody that it knows: the generic user
    assert said["ann"] != said["bob"]

    measure = ["evaluate", "--model", run, "--records", str(rows), "--samples", "0"]
    measure += [] if peft else ["--reference", model]
    one, other = (accord.json(*measure, "--user", name) for name in ("ann", "bob"))
    assert one["chosen_logp_change"] != other["chosen_logp_change"]


def test_a_user_of_a_model_without_users_is_refused(accord: Any, model: str) -> None:
    found = accord.error("generate", "--model", model, "-p", "sun", "--user", "ann")
    assert "no users" in found["problem"]
