"""Loops: stages that follow each other, and go on where they were stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.loops.iterate import deal
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK, logged, weights


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    more = {"num_generations": 4, "max_completion_length": 8} if "reward" in options else {}
    config = TrainingConfig.of(QUICK | {"output_dir": str(folder)} | more | options)
    reward = FunctionScorer(letters) if "reward" in options else None
    return run_loop(policy(0), some or records(16), config, reward=reward)


def rated() -> Records:
    """Four rated answers to each of six prompts."""
    answers = tuple(Response.of(text) for text in ("aaaa", "aaa", "ab", "b"))
    rating = Judgment("rating", (0, 1, 2, 3), (9.0, 6.0, 4.0, 1.0))
    return Records.of(Record(user(f"prompt {i}"), answers, (rating,)) for i in range(6))


def test_a_curriculum_goes_from_the_widest_gap_to_the_narrowest(tmp_path: Path) -> None:
    done = run(tmp_path, rated(), loop="curriculum", **{"loop.stages": 3})
    assert [stage["name"] for stage in done.stages] == ["stage-1", "stage-2", "stage-3"]
    assert [stage["examples"] for stage in done.stages] == [6, 6, 6]
    steps = [line["step"] for line in done.history if "step" in line and "loss" in line]
    assert steps == sorted(steps) and steps[-1] == done.steps
    first = next(line["loss"] for line in done.history if "loss" in line and line["stage"] == "stage-2")
    assert first == pytest.approx(0.6931, abs=1e-3), "each stage starts at its own reference"
    assert (tmp_path / "model.safetensors").exists()


ONLINE: dict[str, Any] = {"loop": "iterate", "reward": "letters", "loop.rounds": 3, "max_steps": 2}


@pytest.mark.parametrize("reference", ["previous", "start"])
def test_a_loop_that_was_stopped_after_a_stage_goes_on_bit_for_bit(tmp_path: Path, reference: str) -> None:
    options = ONLINE | {"loop.reference": reference}
    whole = run(tmp_path / "a", **options)
    run(tmp_path / "b", **options | {"loop.rounds": 3})
    for stage in sorted((tmp_path / "b" / "stages").glob("0[23]-*")):
        for file in sorted(stage.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        stage.rmdir()
    (tmp_path / "b" / "stages" / "pairs-3.jsonl").unlink()
    again = run(tmp_path / "b", **options | {"resume_from_checkpoint": True})
    assert torch.equal(weights(whole), weights(again))
    assert again.steps == whole.steps and again.measures == whole.measures


def test_rounds_have_prompts_of_their_own_and_say_what_was_sampled(tmp_path: Path) -> None:
    some = records(9)
    parts = [deal(some, turn, 4) for turn in range(3)]
    asked = [record.id for part in parts for record in part]
    assert len(set(asked[:9])) == 9 and len(asked) == 12
    done = run(tmp_path, **ONLINE)
    assert set(done.measures) == {"round 1", "round 2", "round 3"}
    assert all(0 <= m["reward"] <= 1 and m["length"] >= 1 for m in done.measures.values())


def test_rounds_raise_the_reward(tmp_path: Path) -> None:
    options = ONLINE | {
        "loop.rounds": 5,
        "max_steps": 8,
        "learning_rate": 3e-2,
        "beta": 0.1,
        "loop.prompts": 16,
    }
    done = run(tmp_path, **options)
    rewards = [measured["reward"] for measured in done.measures.values()]
    assert rewards[-1] > rewards[0] + 0.1


def test_an_adapter_goes_through_all_rounds(tmp_path: Path) -> None:
    done = run(tmp_path, **ONLINE | {"use_peft": True, "lora_r": 2})
    starts = [line["loss"] for line in done.history if "loss" in line][::2]
    assert starts == pytest.approx([0.6931] * 3, abs=1e-3), "its reference is the adapter of the round before"
    assert logged(done, "loss")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loop": "curiculum"}, "did you mean 'curriculum'"),
        ({"loop": "curriculum", "loop.stage": 2}, "did you mean 'stages'"),
        ({"loop": "curriculum", "loop.stages": 0}, "greater than or equal to 1"),
        ({"loop.stages": 3}, "there is no loop"),
        ({"loop": "iterate"}, "nobody is named"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, rated(), **options)


def test_prompts_without_judgments_are_enough_for_rounds(tmp_path: Path) -> None:
    bare = Records.of(replace(record, judgments=(), responses=()) for record in records(8))
    assert run(tmp_path, bare, **ONLINE).steps == 6
