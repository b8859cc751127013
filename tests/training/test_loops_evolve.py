"""Evolving prompts: who writes them, what is left out, what each round learns from, stopped loops going on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion
from accordance.core.record import Record, Records, chat
from accordance.core.requests import Request
from accordance.core.scorer import FunctionScorer
from accordance.feedback import load_records
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.loops.evolve import evolver_named
from accordance.training.loops.names import Names
from accordance.training.prompts import PolicyEvolver, PromptPool, choose, informativeness
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK, weights


def longer(prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
    """An evolver: the prompt and another word."""
    return [[f"{prompt} more{number}" for number in range(n)] for prompt in prompts]


def useless(prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
    """An evolver: the prompt as it was, nothing, and far too much."""
    return [[prompt, " ", "x" * 5000] for prompt in prompts]


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    given: dict[str, Any] = {
        "loop": "evolve",
        "loop.rounds": 2,
        "loop.evolver": f"{__file__}:longer",
        "reward": "letters",
        "num_generations": 4,
        "max_completion_length": 8,
        "max_steps": 2,
    }
    config = TrainingConfig.of(QUICK | given | {"output_dir": str(folder)} | options)
    return run_loop(policy(0), some or records(12), config, reward=FunctionScorer(letters))


def made(folder: Path, number: int) -> list[Record]:
    return list(load_records(folder / "stages" / f"prompts-{number}.jsonl"))


def test_a_round_learns_from_new_prompts_and_a_share_of_older_ones(tmp_path: Path) -> None:
    done = run(tmp_path, **{"loop.replay": 0.25, "loop.parents": 0.5})
    first, second = made(tmp_path, 1), made(tmp_path, 2)
    assert len(first) == len(second) == 12
    evolved = [record for record in first if "/" in record.id]
    assert len(evolved) == 9 and all(" more" in record.prompt_text for record in evolved)
    by_id = {record.id: record for record in records(12)}
    for record in evolved:
        parent = by_id[record.id.split("/")[0]]
        assert (
            record.prompt_text.startswith(parent.prompt_text) and record.origin == f"evolved from {parent.id}"
        )
    generations = [record.id.count("/") for record in second]
    assert generations.count(2) + generations.count(1) >= 9 and max(generations) == 2
    assert done.measures["prompts 1"]["evolved"] == 24 and done.measures["prompts 1"]["information"] > 0
    assert [stage["name"] for stage in done.stages] == ["round-1", "round-2"]


@pytest.mark.parametrize("objective", ["dpo", "rloo"])
def test_a_loop_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, objective: str) -> None:
    whole = run(tmp_path / "a", objective=objective)
    run(tmp_path / "b", objective=objective)
    shutil.rmtree(next((tmp_path / "b" / "stages").glob("02-*")))
    for file in (tmp_path / "b" / "stages").glob("p*-2.jsonl"):
        file.unlink()
    again = run(tmp_path / "b", objective=objective, resume_from_checkpoint=True)
    assert torch.equal(weights(whole), weights(again)) and again.measures == whole.measures
    assert made(tmp_path / "a", 2) == made(tmp_path / "b", 2)


def test_online_objectives_learn_from_samples_and_raise_the_reward(tmp_path: Path) -> None:
    done = run(tmp_path, objective="rloo", learning_rate=5e-2, max_steps=8, **{"loop.rounds": 4})
    assert not list((tmp_path / "stages").glob("pairs-*"))
    rewards = [measured["reward"] for measured in done.measures.values()]
    assert rewards[-1] > rewards[0] + 0.1


def test_an_evolver_that_writes_nothing_new_is_an_error_that_counts_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no new prompt") as error:
        run(tmp_path, **{"loop.evolver": f"{__file__}:useless"})
    for reason in ("known already", "empty", "too long"):
        assert reason in str(error.value)


@pytest.mark.parametrize(
    ("evolver", "says"),
    [(f"{__file__}:nobody", "has no 'nobody'"), (f"{__file__}:QUICK", "writes no prompts")],
)
def test_who_writes_no_prompts_is_refused(tmp_path: Path, evolver: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, **{"loop.evolver": evolver})


def test_a_model_behind_an_api_may_write() -> None:
    found = evolver_named("inspect:mockllm/model", None)  # type: ignore[arg-type]
    assert isinstance(found, PolicyEvolver) and found.policy.name == "mockllm/model"


# The shared parts.


class Writer:
    """Writes what it was told to, in the form asked for or not."""

    name = "writer"

    def __init__(self, form: str) -> None:
        self.form, self.told = form, list[str]()

    def generate(self, prompts: Sequence[Any], **_: Any) -> list[list[Completion]]:
        read = [Request.read(messages) for messages in prompts]
        assert all(r is not None and r.task == "evolve" for r in read)
        self.told += [r.instructions for r in read if r is not None]
        return [[Completion(self.form.format(r.parts["prompt"]))] for r in read if r is not None]


def test_a_model_writes_in_several_ways_and_what_can_not_be_read_is_counted() -> None:
    writer = Writer("Sure.\nPROMPT: {0}, in\ntwo lines")
    evolver = PolicyEvolver(writer, ways=("Longer.", "Shorter."))
    assert evolver(["a", "b"], 2, 0) == [["a, in\ntwo lines"] * 2, ["b, in\ntwo lines"] * 2]
    assert (
        sum("Longer." in told for told in writer.told) == 2 == sum("Shorter." in told for told in writer.told)
    )
    for form in ("no mark {0}", "PROMPT: {0}\nPROMPT: again", "PROMPT: "):
        strict = PolicyEvolver(Writer(form))
        assert strict(["a"], 2, 0) == [[]] and strict.unreadable == 2


def test_only_the_last_question_of_a_conversation_changes(tmp_path: Path) -> None:
    turns = chat(("system", "be brief"), ("user", "hi"), ("assistant", "yes"), ("user", "why"))
    some = Records.of(
        Record((*turns[:-1], type(turns[0])("user", f"why {i}")), id=str(i), extras={"tools": [], "gold": i})
        for i in range(4)
    )
    run(tmp_path, some, **{"loop.rounds": 1, "loop.replay": 0.0})
    for record in made(tmp_path, 1):
        assert record.prompt[:3] == turns[:3] and " more" in record.prompt[3].content
        assert set(record.extras) == {"tools"}, "what is true of a prompt need not be true of another"


def test_informativeness_by_its_definitions() -> None:
    scores = np.array([[0.0, 0.5, 1.0, 0.9]])
    assert informativeness(scores, "min") == pytest.approx(1.0)
    assert informativeness(scores, "avg") == pytest.approx(0.4)
    assert informativeness(scores, "duel") == pytest.approx(0.1)
    with pytest.raises(DataError, match="two or more"):
        informativeness(np.ones((3, 1)))


def test_prompts_are_drawn_in_proportion_and_uniformly_where_none_tells_anything() -> None:
    information = np.array([0.0, 1.0, 3.0, 0.0])
    counts = np.bincount([int(choose(information, 1, seed=s)[0]) for s in range(2000)], minlength=4)
    assert counts[0] == counts[3] == 0 and counts[2] / 2000 == pytest.approx(0.75, abs=0.03)
    blind = np.bincount([int(choose(np.zeros(4), 1, seed=s)[0]) for s in range(2000)], minlength=4)
    assert blind.min() > 400
    assert choose(information, 9, "top").tolist() == [0, 1, 2, 3]


def test_a_pool_takes_each_prompt_once_and_mixes_new_with_old() -> None:
    pool = PromptPool(["a", "b", "a", "c"], key=str)
    new = pool.add(1, ["b2", "b", "b2", "", "b3"], lambda text: None if text else "empty")
    assert [pool.items[i] for i in new] == ["b2", "b3"] and pool.left_out == {"known already": 3, "empty": 1}
    mixed = pool.mixed(new, 4, 0.5, seed=0)
    assert set(new) <= set(mixed) and len(mixed) == 4 and len(set(mixed) - set(new)) == 2
    assert sorted(pool.mixed(new, 4, 0.0, seed=0)) == new


def test_an_evolver_may_be_anything_that_whoever_started_the_loop_knows_by_name() -> None:
    def shout(prompts: object, n: int, seed: int) -> list[list[str]]:
        return [["!"] * n for _ in list(prompts)]  # type: ignore[call-overload]

    asked: list[str] = []

    def find(name: str) -> object:
        asked.append(name)
        return shout

    session: Any = SimpleNamespace(names=Names({"loud:one": shout}, find_policy=find), policy=None)
    assert evolver_named("loud:one", session) is shout and asked == []
    assert evolver_named("lab", session) is shout and asked == ["lab"]
