"""The loop `chatglm` on the tiny model, and its toolbox in which a policy plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.feedback import save_records
from accordance.training.loops import Toolbox, calculate, clean_pairs
from accordance.training.trajectories import OBSERVED, Environment
from tests.tiny import policy
from tests.training.test_loops import run
from tests.training.test_online import run as online
from tests.training.test_trainer import logged, weights

LOOP: dict[str, Any] = {
    "loop": "chatglm",
    "reward": "letters",
    "num_generations": 4,
    "max_completion_length": 6,
    "max_steps": 2,
}


def test_it_filters_selects_and_reinforces_with_skills_kept_up_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    shown = Record(user("who are you"), (Response.of("a bird"),), (Judgment("demonstration", (0,), (1.0,)),))
    save_records(Records.of([shown]), tmp_path / "skills.jsonl")
    options = LOOP | {"loop.skills": str(tmp_path / "skills.jsonl"), "loop.least_words": 4}
    whole = run(tmp_path / "a", **options)
    assert [stage["name"] for stage in whole.stages] == ["reinforce"]
    assert whole.measures["prompts"]["short"] > 0
    assert 0 < whole.measures["selection"]["varied"] <= whole.measures["selection"]["asked"]
    assert logged(whole, "ptx/loss") and abs(logged(whole, "reward")[0]) < 0.3
    stage = tmp_path / "a" / "stages" / "01-reinforce"
    for file in sorted(stage.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    stage.rmdir()
    again = run(tmp_path / "a", **options | {"resume_from_checkpoint": True})
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize(
    "options", [{"loop.method": "prefer"}, {"loop.objective": "grpo", "loop.baseline": False}]
)
def test_the_alternatives_run(tmp_path: Path, options: dict[str, Any]) -> None:
    done = run(tmp_path, **LOOP | options)
    assert done.steps == 2
    assert not torch.equal(weights(done), torch.cat([p.flatten() for p in policy(0).model.parameters()]))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"loop.skill_weight": 0.2}, ConfigError, "without skills"),
        ({"loop.method": "prefer", "loop.objective": "grpo"}, ConfigError, "of method=reinforce"),
        ({"loop.least_words": 100}, DataError, "no prompt is left"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, options: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        run(tmp_path, **LOOP | options)


def test_pairs_are_cleaned_of_ties_and_circles() -> None:
    def compared(*pairs: tuple[str, str, float]) -> Records:
        return Records.of(
            Record(
                user("q"),
                (Response.of(a), Response.of(b)),
                (Judgment("comparison", (0, 1), (value, 1 - value), annotator="ann"),),
            )
            for a, b, value in pairs
        )

    circle = [("a b", "b b", 1.0), ("b b", "c b", 1.0), ("c b", "a b", 1.0)]
    kept = clean_pairs(compared(*circle, ("d b", "e b", 0.5), ("d b", "a b", 1.0))).records
    assert [(r.responses[0].text, r.responses[1].text) for r in kept if r.judgments] == [("d b", "a b")]


def test_a_toolbox_answers_calls_and_ends_with_anything_else() -> None:
    box = Toolbox({"calc": calculate}, cost=0.1, most=2)
    assert isinstance(box, Environment)
    state = box.begin(Record(user("2+3?")))
    assert box.step(state, "call calc(2 * (3 + 4))") == "14"
    assert "no tool" in str(box.step(state, "call oven(1)"))
    assert box.step(state, "call calc(1)") is None, "the last call was one too many"
    assert box.step(box.begin(Record(user("hi"))), "hello") is None
    transcripts = [f"call calc(2+3){OBSERVED}5\n5", "5", "6", "hello", f"call calc(1){OBSERVED}1\nhello"]
    scores = box.score(["q"] * 5, transcripts, answer=["5", "5", "5", None, None])
    assert scores == pytest.approx([0.9, 1.0, 0.0, 1.0, 0.9])
    for bad in ("__import__('os')", "2 ** 9", "a + 1", "1 +"):
        with pytest.raises((ValueError, SyntaxError)):
            calculate(bad)


def test_a_policy_plays_with_tools_online(tmp_path: Path) -> None:
    asked = Records.of(Record(user(f"{i}+1"), (Response.of("x"),), extras={"answer": None}) for i in range(8))
    done = online(tmp_path, asked, Toolbox({"calc": calculate}), objective="grpo", max_steps=1)
    assert done.steps == 1 and 0 <= logged(done, "reward")[0] <= 1
