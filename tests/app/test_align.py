"""`accord align` and `align`: one job end to end, its folder, its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from transformers import AutoModelForCausalLM, TrainerCallback

from accordance import align, load_policy
from accordance.app.recipe import PROVENANCE, Recipe
from accordance.core.errors import ConfigError, DataError
from tests import tiny
from tests.app.conftest import QUICK, Accord, write_feedback

KEYS = {
    "win_rate",
    "win_rate_ci95",
    "preference_accuracy",
    "preference_accuracy_ci95",
    "kl",
    "chosen_logp_change",
    "rejected_logp_change",
    "length_before",
    "length_after",
    "by_group",
    "records",
}
SHORT: dict[str, Any] = {
    "held_out": 0.3,
    "samples": 3,
    "max_new_tokens": 5,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
}


@pytest.fixture
def brevity(tmp_path: Path) -> str:
    """A reward function of the user's own, in a file."""
    path = tmp_path / "rewards.py"
    path.write_text(
        "def brevity(prompts, completions, **columns):\n    return [-len(c) for c in completions]\n"
    )
    return f"{path}:brevity"


def test_one_command_trains_evaluates_and_leaves_the_evidence(
    accord: Accord, model: str, feedback: str, brevity: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    found = accord.json(
        "align", "--model", model, "--records", feedback, "--output-dir", str(out), "--scorer", brevity, *QUICK
    )
    assert found.keys() >= KEYS
    assert found["win_rate"] is not None and found["win_rate_ci95"][0] <= found["win_rate"]
    assert found["records"]["read"] == 41 and found["records"]["kept"] == 41
    trained, held_out = found["records"]["trained_on"], found["records"]["held_out"]
    assert trained + held_out + sum(found["records"]["not_trained_on"].values()) == 41
    saved = json.loads((out / "report.json").read_text())
    assert {key: saved[key] for key in KEYS} == {key: found[key] for key in KEYS}
    assert saved["preference_accuracy"] is not None and saved["kl"] != 0
    for name in ("report.html", "preflight.html", "preflight.json", "recipe.yaml", "tokenizer.json"):
        assert (out / name).stat().st_size > 100
    assert {"before", "after", "win"} <= set(pd.read_parquet(out / "samples.parquet"))
    assert AutoModelForCausalLM.from_pretrained(out).num_parameters() == tiny.policy().num_parameters
    card = (out / "README.md").read_text()
    assert f"{100 * saved['preference_accuracy']:.1f}%" in card and "Not evaluated" not in card


def test_a_saved_recipe_runs_again_with_the_same_numbers(
    accord: Accord, model: str, feedback: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = accord.json(
        "align", "--model", model, "--data", feedback, "--output_dir", str(out), "--beta=2e-1", *QUICK
    )
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["beta"] == 0.2 and recipe["seed"] == 42 and recipe["learning_rate"] == 1e-3
    assert set(recipe[PROVENANCE]) >= {"versions", "records", "model", "seed"}
    again = accord.json("align", "--recipe", str(out / "recipe.yaml"))
    assert again["output_dir"] == f"{out}-2", "the run that the recipe belongs to is left alone"
    for key in KEYS - {"records"}:
        assert again[key] == first[key], key


def test_the_command_line_overrides_the_recipe_and_it_the_defaults(
    accord: Accord, model: str, feedback: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"model: {model}\nrecords: {feedback}\nobjective: ipo\nlearning_rate: 1e-5\nbeta: 3e-1\n")
    found = accord.json("align", "--recipe", str(file), "--set", "beta=0.7", "--dry-run")
    assert found["recipe"]["beta"] == 0.7
    assert found["recipe"]["learning_rate"] == 1e-5, "YAML reads 1e-5 as text; we don't"
    assert found["recipe"]["objective"] == "ipo" and found["recipe"]["max_length"] == 1024


@pytest.mark.parametrize("objective", ["dpo", "sft", "kto", "pro", "dpo + 0.1*sft"])
@pytest.mark.parametrize("more", [{}, {"use_peft": True}, {"save_strategy": "no"}])
def test_resolved_options_are_taken_back(objective: str, more: dict[str, Any]) -> None:
    recipe = Recipe.of({"model": "m", "records": "r", "objective": objective, **more})
    again = Recipe.of(recipe.options())
    assert again.options() == recipe.options()


def test_dry_run_shows_everything_and_writes_nothing(
    accord: Accord, model: str, feedback: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    found = accord.json("align", "--model", model, "--records", feedback, "--dry-run", *QUICK)
    assert found["dry_run"] and found["train"] + found["held_out"] == 41
    assert found["preflight"]["identical_responses"] == 1
    assert list(empty.iterdir()) == []
    shown = accord("align", "--model", model, "--records", feedback, "--dry-run", *QUICK)
    assert "Nothing was written" in shown.stdout and "learning_rate: 0.001" in shown.stdout
    assert list(empty.iterdir()) == []


def test_a_policy_given_as_an_object_is_compared_with_what_it_was(model: str, tmp_path: Path) -> None:
    by_path = align(model, tiny.records(), output_dir=tmp_path / "a", **SHORT).report
    by_object = align(load_policy(model), tiny.records(), output_dir=tmp_path / "b", **SHORT).report
    assert by_path is not None and by_object is not None
    assert by_path.values["kl"] != 0
    for key in ("kl", "chosen_logp_change", "preference_accuracy", "length_before"):
        assert by_object.values[key] == pytest.approx(by_path.values[key], rel=1e-4), key


def test_an_adapter_is_compared_with_the_model_below_it(model: str, tmp_path: Path) -> None:
    done = align(model, tiny.records(), output_dir=tmp_path / "a", use_peft=True, lora_r=2, **SHORT)
    assert done.report is not None and done.report.values["chosen_logp_change"] != 0
    assert (tmp_path / "a" / "adapter_config.json").exists()
    assert not (tmp_path / "a" / "model.safetensors").exists()
    assert load_policy(tmp_path / "a").has_adapter


def test_without_held_out_records_the_report_says_that_it_knows_nothing(model: str, tmp_path: Path) -> None:
    done = align(model, tiny.records(), output_dir=tmp_path / "a", max_steps=1, held_out=0)
    assert done.report is not None and done.report.values.keys() >= KEYS
    assert done.report.values["win_rate"] is None and done.report.values["records"]["read"] == 24
    assert any("held out" in warning for warning in done.report.warnings)


def test_held_out_records_of_their_own_leave_all_others_for_training(model: str, tmp_path: Path) -> None:
    options = SHORT | {"held_out": tiny.records(8, seed=5)}
    done = align(model, tiny.records(), output_dir=tmp_path / "a", **options)
    assert len(done.run.examples) == 24
    assert done.report is not None and done.report.values["records"]["held_out"] == 8


def test_probes_are_called_and_progress_is_told(model: str, tmp_path: Path) -> None:
    steps, stages = [], []

    class Probe(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps.append(state.global_step)

    def note(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    align(model, tiny.records(), output_dir=tmp_path / "a", callbacks=(Probe(),), progress=note, **SHORT)
    assert steps == [1, 2]
    assert list(dict.fromkeys(stages)) == ["tokenise", "reference", "train", "evaluate"]


def test_an_exception_in_the_preflight_hook_stops_the_run_before_anything_is_saved(
    model: str, tmp_path: Path
) -> None:
    def refuse(report: Any) -> None:
        assert report.values["records_kept"] == 24
        raise RuntimeError("not these data")

    with pytest.raises(RuntimeError, match="not these data"):
        align(model, tiny.records(), output_dir=tmp_path / "a", on_preflight=refuse, **SHORT)
    assert list((tmp_path / "a").iterdir()) == []


def test_one_prompt_only_can_not_be_split(model: str, tmp_path: Path) -> None:
    rows = [{"prompt": "always the same", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(6)]
    with pytest.raises(DataError, match="one side empty"):
        align(model, rows, output_dir=tmp_path / "a", **SHORT)


def test_going_on_with_other_data_is_refused(model: str, tmp_path: Path) -> None:
    first = write_feedback(tmp_path / "one.jsonl", 20)
    other = write_feedback(tmp_path / "two.jsonl", 20, seed=3)
    options = SHORT | {"save_steps": 1}
    align(model, first, output_dir=tmp_path / "a", **options)
    with pytest.raises(Exception, match="not those that the run began with"):
        align(model, other, output_dir=tmp_path / "a", resume_from_checkpoint=True, **options)


def test_a_recipe_of_objects_says_that_it_can_not_be_run_again(
    accord: Accord, model: str, tmp_path: Path
) -> None:
    align(model, tiny.records(), output_dir=tmp_path / "a", **SHORT)
    found = accord.error("align", "--recipe", str(tmp_path / "a" / "recipe.yaml"))
    assert "objects" in found["problem"] and "--records" in found["remedy"]


def test_options_are_not_given_twice(model: str) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        align(model, tiny.records(), model_name_or_path="other")
