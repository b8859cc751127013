"""Easy-to-hard: selection, shaped rewards, and the loop on the tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.scorer import StepScorer
from accordance.core.selection import SolutionScorer, best_of, find_answer, solution_score, split_steps, vote
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.process_rewards import ProcessReward, process_rewards, stop_penalty
from tests.tiny import policy
from tests.training.test_trainer import QUICK, weights


def test_votes_and_scores_by_hand() -> None:
    answers = ["a", "b", "b", None]
    assert vote(answers) == "b" and vote(answers, [0.9, 0.3, 0.2, 5.0]) == "a" and vote([None]) is None
    assert best_of([0.1, 0.9, 0.9]) == 1
    assert solution_score([0.5, 0.8]) == pytest.approx(0.4) and solution_score([0.5, 0.8], "min") == 0.5
    assert split_steps("one\n\ntwo\nstill two\n \nthree") == ("one", "two\nstill two", "three")
    assert find_answer("The answer is 12.\nAnswer: 13") == "13" and find_answer("I do not know") is None
    for call in (lambda: solution_score([]), lambda: vote(["a"], [1, 2]), lambda: best_of([])):
        with pytest.raises(DataError):
            call()


@pytest.mark.parametrize(("scheme", "worst"), [("min", 0.3), ("prod", 0.9 * 0.3 * 0.6)])
def test_process_rewards_telescope(scheme: Any, worst: float) -> None:
    assert sum(process_rewards([0.9, 0.3, 0.6], scheme)) == pytest.approx(worst - 0.5 + 0.25)
    assert sum(process_rewards([0.9, 0.8], scheme)) == pytest.approx(0.25), "good steps cost nothing"


def test_a_step_pays_for_what_it_lowers_and_no_later_step_makes_up_for_it() -> None:
    found = process_rewards([0.4, 0.9, 0.1, 0.2], bonus=0.0)
    assert found == pytest.approx([-0.1, 0.0, -0.3, 0.0])
    assert sum(process_rewards([0.9] * 50)) == pytest.approx(sum(process_rewards([0.9])))


@pytest.mark.parametrize(
    ("text", "penalty"),
    [
        ("1 + 1\n\nAnswer: 2", 0.0),
        ("Answer: 2\n\nso much for that", 0.5),
        ("1 + 1\n\nthat is the answer", 0.75),
        ("1 + 1", 1.0),
    ],
)
def test_a_solution_should_end_with_its_answer(text: str, penalty: float) -> None:
    assert stop_penalty(text) == penalty


class Lengths:
    """Thinks steps without an x are right."""

    name = "no x"

    def score_steps(self, prompts: Any, solutions: Any, **_: Any) -> list[list[float]]:
        return [[0.1 if "x" in step else 0.9 for step in steps] for steps in solutions]


def test_easy_answers_are_checked_and_hard_ones_are_unknown() -> None:
    assert isinstance(Lengths(), StepScorer)
    reward = ProcessReward(Lengths())
    texts = ["a\n\nAnswer: 2", "a\n\nAnswer: 3", "x\n\nAnswer: 2", "a\n\nAnswer: 3"]
    found = reward.score([()] * 4, texts, answer=["2", 2, "2", None])
    assert found == pytest.approx([1.25, 0.25, 1 - 0.4 + 0.25, 0.5])
    early = replace(reward, early=5).score([()], texts[:1], answer=[None])
    assert early[0] == pytest.approx(0.5 - (0.5 - 0.0117), abs=1e-3), "a step that ends at once is no step"


def problems(**extras: Any) -> Records:
    made = []
    for i in range(8):
        demo = (Response.of(f"{i} it is\n\nAnswer: {i}"),)
        own = {"answer": str(i)} | ({"hard": True} if i % 2 else {}) | extras
        made.append(Record(user(f"which {i}"), demo, (Judgment("demonstration", (0,)),), id=str(i), extras=own))
    return Records.of(made)


def run(folder: Path, some: Records, reward: Any = None, **options: Any) -> TrainingRun:
    own = {"output_dir": str(folder), "loop": "easy_to_hard", "objective": "grpo", "reward": "steps"}
    sizes = {"num_generations": 2, "max_completion_length": 6, "max_steps": 2}
    config = TrainingConfig.of(QUICK | own | sizes | options)
    return run_loop(policy(0), some, config, reward=reward or SolutionScorer(Lengths()))


def test_the_loop_imitates_then_reinforces_and_measures_hard_problems(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watched(Lengths):
        def score_steps(self, prompts: Any, solutions: Any, **columns: Any) -> list[list[float]]:
            seen.append(columns)
            return super().score_steps(prompts, solutions)

    done = run(tmp_path, problems(), SolutionScorer(Watched()), **{"loop.imitate": True})
    assert [s["name"] for s in done.stages] == ["imitate", "reinforce"]
    assert done.stages[0]["examples"] == 4 and done.stages[1]["examples"] == 8
    wanted = {"reward", "pass@1", "majority", "best_of_n", "weighted_vote"}
    assert set(done.measures["hard after"]) == set(done.measures["hard before"]) == wanted
    assert not any("answer" in columns for columns in seen), "the evaluator sees no answers"


def test_measuring_on_some_of_the_hard_problems_leaves_training_as_it_is(tmp_path: Path) -> None:
    counts: list[int] = []

    class Counted(Lengths):
        def score_steps(self, prompts: Any, solutions: Any, **columns: Any) -> list[list[float]]:
            counts[-1] += len(solutions)
            return super().score_steps(prompts, solutions)

    runs = []
    for most in ({}, {"loop.measured": 1}):
        counts.append(0)
        runs.append(run(tmp_path / str(len(runs)), problems(), SolutionScorer(Counted()), **most))
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert counts[0] - counts[1] == 2 * 3 * 2 * 2, "before and after, 3 problems, 2 answers, reward and vote"


def test_hard_answers_never_reach_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    score = ProcessReward.score

    def watched(self: Any, prompts: Any, completions: Any, **columns: Any) -> Any:
        seen.extend(zip(prompts, columns["answer"]))
        return score(self, prompts, completions, **columns)

    monkeypatch.setattr(ProcessReward, "score", watched)
    run(tmp_path, problems())
    for prompt, answer in seen:
        number = int(prompt[-1].content.split()[1])
        assert answer == (None if number % 2 else str(number))


def test_what_can_not_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scores steps"):
        run(tmp_path / "a", problems(), reward=type("Plain", (), {"name": "p", "score": len})())
    with pytest.raises(DataError, match="easy and hard"):
        run(tmp_path / "b", problems(hard=True))
