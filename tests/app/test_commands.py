"""The other commands: each on a small job, with JSON that programs can read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from accordance import load_policy, load_records
from accordance.app.options import named_options, value_of
from accordance.app.scorers import resolve_scorer
from accordance.core.errors import ConfigError
from accordance.core.report import Report
from tests.app.conftest import Accord


def test_help_is_there_at_once_and_loads_no_model_library() -> None:
    heavy = "'torch', 'transformers', 'datasets', 'pandas'"
    code = f"import sys, accordance.app.cli; print([m for m in ({heavy}) if m in sys.modules])"
    began = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "align",
        "data",
        "generate",
        "blend",
        "synthesize",
        "score",
        "evaluate",
        "report",
        "systems",
        "doctor",
        "lab",
        "lab write",
    ],
)
def test_every_command_has_help_with_an_example(accord: Accord, command: str) -> None:
    shown = accord(*command.split(), "--help")
    assert shown.exit_code == 0
    assert command in {"lab", "demo"} or f"accord {command}" in " ".join(shown.stdout.split())


def test_data_is_the_preflight_alone(accord: Accord, model: str, feedback: str, tmp_path: Path) -> None:
    found = accord.json(
        "data",
        "--records",
        feedback,
        "--model",
        model,
        "--max-length",
        "20",
        "--objective",
        "dpo",
        "--output-dir",
        str(tmp_path / "look"),
    )
    assert found["records_kept"] == 41 and found["identical_responses"] == 1 and found["usable"] == 41
    assert Report.load(tmp_path / "look" / "preflight.json").values["records_kept"] == 41
    assert "no effect" in accord.error("data", "--records", feedback, "--chat-template", "plain")["problem"]


def test_generate_writes_what_the_policy_answers(accord: Accord, model: str, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    args = ["generate", "--model", model, "-p", "sun", "-p", "moon", "-n", "2", "--max-new-tokens", "4"]
    found = accord.json(*args, "--seed", "3", "-o", str(file))
    made = load_policy(model).generate(["sun", "moon"], n=2, max_new_tokens=4, seed=3)
    assert [[c["text"] for c in row["completions"]] for row in found["rows"]] == [
        [c.text for c in row] for row in made
    ]
    assert len(load_records(str(file))) == 4
    assert "nothing to answer" in accord.error("generate", "--model", model)["problem"]


def test_score_gives_the_log_probabilities_that_python_gives(
    accord: Accord, model: str, feedback: str, tmp_path: Path
) -> None:
    file = tmp_path / "scores.parquet"
    found = accord.json("score", "--model", model, "--records", feedback, "-o", str(file))
    table = pd.read_parquet(file)
    expected = load_policy(model).logprobs(load_records(feedback))
    assert table["logprob"].tolist() == pytest.approx(expected["logprob"].tolist())
    assert found["mean"]["logprob"] == pytest.approx(expected["logprob"].mean())
    assert "nobody" in accord.error("score", "--records", feedback)["problem"]


def test_score_by_a_reward_function_in_a_file(accord: Accord, feedback: str, tmp_path: Path) -> None:
    rewards = tmp_path / "mine.py"
    rewards.write_text("async def length(prompts, completions):\n    return [len(c) for c in completions]\n")
    found = accord.json("score", "--scorer", f"{rewards}:length", "--records", feedback, "--limit", "3")
    assert [row["score"] for row in found["rows"]] == [len(row["text"]) for row in found["rows"]]
    wrong = accord.error("score", "--scorer", f"{rewards}:lenght", "--records", feedback)
    assert "length" in wrong["expected"]


def test_evaluate_and_report(accord: Accord, model: str, feedback: str, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    args = ["--samples", "3", "--max-new-tokens", "4", "--output-dir", str(out)]
    found = accord.json("evaluate", "--model", model, "--records", feedback, "--reference", model, *args)
    assert found["kl"] == pytest.approx(0, abs=1e-5) and found["preference_accuracy"] == 0.5
    assert accord.json("report", str(out))["kl"] == found["kl"]
    page = tmp_path / "page.html"
    shown = accord("report", str(out / "report.json"), "--html", str(page))
    assert "Preference accuracy" in shown.stdout and page.read_text().startswith("<!doctype html")
    assert accord.error("report", str(tmp_path))["error"] == "DataError"


def test_systems_lists_the_catalogue(accord: Accord) -> None:
    found = accord.json("systems")
    assert {row["id"] for row in found} >= {"S031", "S052", "S076", "S162"}
    assert all(row.keys() >= {"id", "name", "room", "where", "proof"} for row in found)
    assert "objectives" in accord.error("systems", "--room", "objectivs")["remedy"]


def test_lab_scenes_can_be_shown_written_and_read_by_name(accord: Accord, tmp_path: Path) -> None:
    scenes = accord.json("lab", "scenes")
    assert {"lab:critiques", "lab:steps", "lab:dialogues", "lab:instructions"} <= scenes.keys()
    (row,) = accord.json("lab", "show", "--scene", "dialogues", "-n", "1")["rows"]
    assert [turn["role"] for turn in row["prompt"]][:3] == ["user", "assistant", "user"]
    file = tmp_path / "steps.jsonl"
    assert accord.json("lab", "write", "-o", str(file), "-n", "6", "--scene", "steps")["records"] == 6
    judged = accord.json("data", "--records", "lab:critiques?n=5", "--model", "lab:base")
    assert "critique" in json.dumps(judged)
    assert "lab:critiques" in str(accord.error("data", "--records", "lab:critics", "--model", "lab:base"))


def test_lab_answers_with_the_attributes_asked_for_and_tells_why_people_judge(accord: Accord) -> None:
    ask = "What colour is the lemon?"
    said = accord.json("lab", "answer", ask, "--set", "politeness=1", "--set", "correctness=0")
    assert (said["attributes"]["politeness"], said["attributes"]["correctness"]) == (1, 0)
    lucky = accord.json("lab", "answer", "--scene", "steps", "--set", "outcome=1", "--set", "sound=0")
    assert (lucky["attributes"]["outcome"], lucky["attributes"]["sound"]) == (1, 0)
    judged = accord.json("lab", "judge", ask, "The lemon is yellow.", "The lemon is blue.")
    assert len(judged["judgments"]) == 30 and min(judged["prefer_first"].values()) > 0.9
    assert sum(one["attribute"] == "correctness" for one in judged["judgments"]) > 25
    circle = accord.json("lab", "people", "--cycle", "--size", "3", "--each")
    assert len(circle["persons"]) == 3 == len(circle["groups"])
    other = accord.json("lab", "people", "--seed", "5", "--each")["persons"]
    assert other != accord.json("lab", "people", "--seed", "6", "--each")["persons"]


def test_lab_shows_its_world_and_writes_feedback(accord: Accord, tmp_path: Path) -> None:
    assert len(accord.json("lab", "show", "-n", "3")["rows"]) == 3
    assert len(accord.json("lab", "people")["groups"]) >= 3
    file = tmp_path / "lab" / "feedback.jsonl"
    assert accord.json("lab", "write", "-o", str(file), "-n", "5")["records"] == 5
    assert load_records(str(file)).counts() == {"comparison": 5}


def test_doctor_measures_rather_than_claims(accord: Accord, monkeypatch: pytest.MonkeyPatch) -> None:
    found = accord.json("doctor")
    assert found["ok"] and "relative error" in found["checks"]["log-probabilities are exact"]["found"]
    monkeypatch.setenv("ACCORD_CACHE", "/proc/nowhere")
    ill = accord.json("doctor", code=1)
    assert not ill["checks"]["cache can be written"]["ok"]


def test_version(accord: Accord) -> None:
    assert accord("--version").stdout.startswith("accord 0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("3", 3),
        ("-2.5", -2.5),
        ("true", True),
        ("null", None),
        ("no", "no"),
        ("[a, b]", ["a", "b"]),
        ("a: b", "a: b"),
        ("{", "{"),
    ],
)
def test_values_are_what_they_look_like(text: str, value: object) -> None:
    assert value_of(text) == value and type(value_of(text)) is type(value)


def test_options_by_name_in_all_spellings() -> None:
    args = ["--learning-rate", "1e-4", "--max_steps=3", "--bf16", "--no-check", "--beta", "-1"]
    expected = {"learning_rate": 1e-4, "max_steps": 3, "bf16": True, "check": False, "beta": -1, "a": "b c"}
    assert named_options(args, ["a=b c"]) == expected


def test_scorers_are_found_or_refused() -> None:
    scorer, by_group = resolve_scorer("population")
    assert by_group is not None and len(by_group) >= 3 and scorer.name == "population"
    assert resolve_scorer(None) == (None, None)
    with pytest.raises(ConfigError, match="no scorer"):
        resolve_scorer(3)
    with pytest.raises(ConfigError, match="module:function"):
        resolve_scorer("judge")


def test_json_stays_one_document_where_a_reward_function_prints(
    accord: Accord, feedback: str, tmp_path: Path
) -> None:
    loud = tmp_path / "loud.py"
    loud.write_text(
        "def reward(prompts, completions):\n    print('hello')\n    return [0.0 for _ in completions]\n"
    )
    result = accord("score", "--scorer", f"{loud}:reward", "--records", feedback, "--limit", "1", "--json")
    assert json.loads(result.stdout)["mean"]["score"] == 0 and "hello" in result.stderr
