"""CycleAlign's loop: what the judge is shown, what the policy learns from, stopped loops going on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.judge import Judge, JudgePairScorer
from accordance.core.policy import Completion
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Record, Records
from accordance.core.requests import Request
from accordance.core.scorer import FunctionScorer
from accordance.feedback import load_records
from accordance.training import Rollout, TrainingConfig, TrainingRun, run_loop
from accordance.training.loops.cycle import AGREED, Demonstration, Demonstrations, agreement, ranked_record
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK, weights


class Reader:
    """A scripted assistant that ranks by the share of letters, and notes what it was shown."""

    name = "reader"

    def __init__(self, readable: bool = True) -> None:
        self.readable, self.notes = readable, list[str]()

    def generate(self, prompts: Sequence[Any], **_: Any) -> list[list[Completion]]:
        return [[Completion(self.answer(Request.read(messages)))] for messages in prompts]

    def answer(self, request: Request | None) -> str:
        assert request is not None and request.task == "rank"
        self.notes.append(request.parts.get("notes", ""))
        texts = [text for name, text in request.parts.items() if name.startswith("response")]
        scores = letters(None, texts)
        lines = [f"SCORE {k}: {1 + 9 * s:.3f}" for k, s in enumerate(scores, 1)]
        return "\n".join(lines) if self.readable else "all are fine"


def run(folder: Path, judge: Any = None, some: Records | None = None, **options: Any) -> TrainingRun:
    given: dict[str, Any] = {
        "loop": "cycle",
        "loop.cycles": 3,
        "loop.agreement": 2,
        "objective": "pro",
        "reward": "judge",
        "num_generations": 5,
        "max_completion_length": 8,
        "max_steps": 2,
    }
    config = TrainingConfig.of(QUICK | given | {"output_dir": str(folder)} | options)
    reward = JudgePairScorer(PolicyJudge(Reader())) if judge is None else judge
    return run_loop(policy(0), some or records(12), config, reward=reward)


def test_the_judge_is_shown_what_it_agreed_on_with_the_policy(tmp_path: Path) -> None:
    reader = Reader()
    done = run(tmp_path, JudgePairScorer(PolicyJudge(reader)), **{"loop.given": 1, "loop.demonstrations": 2})
    first = next(iter(records(12)))
    assert all(f"1. {first.responses[0].text}" in notes for notes in reader.notes[:4])
    assert all(notes.count("best to worst:") == 1 for notes in reader.notes[:4])
    assert all(notes.count("best to worst:") == 3 for notes in reader.notes[4:])
    kept = [list(load_records(tmp_path / "stages" / f"ranked-{n}.jsonl")) for n in (1, 2, 3)]
    shown = [r for r in kept[0] if len(r.extras[AGREED]) >= 2][-2:]
    for record in shown:
        assert f"1. {record.responses[record.extras[AGREED][0]].text}" in reader.notes[4]
    assert [stage["name"] for stage in done.stages] == ["cycle-1", "cycle-2", "cycle-3"]
    assert done.measures["cycle 1"]["demonstrations"] == 1 and done.measures["cycle 2"]["demonstrations"] == 3


@pytest.mark.parametrize("objective", ["pro", "hinge + 0.5*sft"])
def test_a_loop_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, objective: str) -> None:
    whole = run(tmp_path / "a", objective=objective)
    run(tmp_path / "b", objective=objective)
    shutil.rmtree(next((tmp_path / "b" / "stages").glob("03-*")))
    (tmp_path / "b" / "stages" / "ranked-3.jsonl").unlink()
    again = run(tmp_path / "b", objective=objective, resume_from_checkpoint=True)
    assert torch.equal(weights(whole), weights(again)) and again.measures == whole.measures


def test_the_policy_learns_what_the_judge_likes(tmp_path: Path) -> None:
    options = {"loop.cycles": 5, "loop.prompts": 12, "max_steps": 6, "learning_rate": 2e-2}
    rewards = [measured["reward"] for measured in run(tmp_path, **options).measures.values()]
    assert rewards[-1] > rewards[0] + 1, "on a scale from 1 to 10"


def test_an_adaptive_cycle_leaves_out_what_was_agreed_on(tmp_path: Path) -> None:
    done = run(tmp_path, **{"loop.adaptive": True, "loop.cycles": 1, "loop.agreement": 3})
    ranked = list(load_records(tmp_path / "stages" / "ranked-1.jsonl"))
    open_ = [record for record in ranked if len(record.extras[AGREED]) < 3]
    assert 0 < len(open_) < len(ranked) and done.stages[0]["examples"] == len(open_)


def test_a_scorer_in_the_place_of_the_judge_is_told_nothing(tmp_path: Path) -> None:
    done = run(tmp_path / "a", FunctionScorer(letters), **{"loop.cycles": 2})
    assert done.measures["cycle 2"]["demonstrations"] == 0
    with pytest.raises(ConfigError, match="told nothing"):
        run(tmp_path / "b", FunctionScorer(letters), **{"loop.given": 1})


def test_rankings_that_can_not_be_read_are_counted_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ranked nothing"):
        run(tmp_path, JudgePairScorer(PolicyJudge(Reader(readable=False))))


def test_one_judge_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one judge"):
        run(tmp_path, [FunctionScorer(letters), FunctionScorer(letters)])


def test_answers_that_tie_in_one_ranking_are_not_agreed_on() -> None:
    assert agreement([3, 2, 1], [0.3, 0.2, 0.1]) == [0, 1, 2]
    assert agreement([3, 3, 1], [0.1, 0.2, 0.05]) in ([0, 2], [1, 2])
    assert len(agreement([1, 1, 1], [0.1, 0.2, 0.3])) == 1
    assert agreement([], []) == []


def test_equal_answers_count_once_and_the_policy_ranks_by_mean_log_probability() -> None:
    written = [
        Completion("a", True, (5, 1), (-0.5, -0.5)),
        Completion("bb", True, (6, 6, 1), (-0.1, -0.1, -0.1)),
        Completion("a", True, (5, 1), (-0.5, -0.5)),
        Completion("c", True, (7, 1), (-2.0, -2.0)),
    ]
    record = next(iter(records(1)))
    made = ranked_record(Rollout(record, tuple(written), np.array([2.0, 3.0, 2.0, 1.0])), None, "judge")
    assert made is not None and [r.text for r in made.responses] == ["a", "bb", "c"]
    assert made.judgments[0].values == (2.0, 3.0, 1.0) and made.extras[AGREED] == [1, 0, 2]
    assert ranked_record(Rollout(record, tuple(written), np.ones(4)), None, "judge") is None


def test_the_newest_demonstrations_stay_and_given_ones_always() -> None:
    pool = Demonstrations([Demonstration("g", ("x", "y"))], 2)
    assert Demonstrations().text() is None
    pool.add(Demonstration(str(i), ("a", "b")) for i in range(5))
    assert [one.prompt for one in pool] == ["g", "3", "4"] and "Prompt: 4\n1. a\n2. b" in str(pool.text())


def test_a_named_judge_is_a_reward_that_compares(tmp_path: Path) -> None:
    from accordance.app.scorers import resolve_rewards

    (found,) = resolve_rewards("inspect:mockllm/model")
    assert isinstance(found, JudgePairScorer) and isinstance(found.judge, Judge)
    assert isinstance(resolve_rewards(PolicyJudge(Reader()))[0], JudgePairScorer)


def test_rankings_of_the_records_are_kept_apart_by_attribute(tmp_path: Path) -> None:
    def named(record: Record) -> Record:
        return replace(record, judgments=tuple(replace(j, attribute="help") for j in record.judgments))

    run(tmp_path, some=Records.of(map(named, records(12))), **{"loop.cycles": 1})
    ranked = list(load_records(tmp_path / "stages" / "ranked-1.jsonl"))
    assert all(record.judgments[0].attribute == "help" for record in ranked)
