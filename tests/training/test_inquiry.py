"""Inquiry: beliefs, the worth of questions, and the loop on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Message, Record, Records, user
from accordance.core.scorer import FunctionScorer, Scorer
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.inquiry import Inquiry, IntentSchema, UserSimulator, said_text
from tests.tiny import policy
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK

FORM = IntentSchema({"size": ("small", "large"), "colour": ("red", "green", "blue", "grey"), "a": ("1", "2")})


def test_bits_of_a_form_and_of_answers() -> None:
    belief = FORM.belief()
    assert belief.entropy == pytest.approx(1 + 2 + 1)
    vague = belief.updated({"colour": ("red", "blue")})
    assert belief.gain({"colour": ("red", "blue")}) == pytest.approx(1.0)
    assert (
        vague.gain({"colour": ("red",)}) == pytest.approx(1.0) and vague.gain({"colour": ("red", "blue")}) == 0
    )
    with pytest.raises(DataError, match="contradicts"):
        vague.updated({"colour": ("grey",)})
    with pytest.raises(DataError, match="not in the form"):
        belief.updated({"taste": ("sweet",)})


def test_questions_and_answers_are_read_as_whole_words() -> None:
    assert FORM.asked("Which colour, and what SIZE?") == ("size", "colour")
    assert FORM.asked("Is that all?") == () and FORM.asked("and a?") == ("a",)
    said = {"colour": ("blue", "red"), "size": ("large",)}
    assert FORM.read(said_text(said)) == said and FORM.read(said_text({})) == {}


def test_users_answer_fully_vaguely_or_not_at_all() -> None:
    intent = {"size": "small", "colour": "red", "a": "1"}
    draw = np.random.default_rng(0)
    assert UserSimulator(FORM).answer(intent, ("size", "colour"), draw) == {
        "size": ("small",),
        "colour": ("red",),
    }
    assert UserSimulator(FORM, unsure=1.0).answer(intent, ("size",), draw) == {}
    said = UserSimulator(FORM, vague=1.0).answer(intent, ("colour",), draw)["colour"]
    assert "red" in said and len(said) == 2


def test_a_question_is_worth_what_the_dialogue_did_not_know() -> None:
    reward, intent = Inquiry(FORM, extra_cost=0.25), {"size": "small", "colour": "red", "a": "2"}
    opening = user("draw me a thing")
    later = reward.goes_on(opening, "which size?", intent)
    assert later[1:] == (Message("assistant", "which size?"), Message("user", "size: small"))
    asked = ["which size?", "which colour?", "size and colour?", "hm"]
    assert isinstance(reward, Scorer)
    assert reward.score([opening] * 4, asked, intent=[intent] * 4) == pytest.approx([1, 2, 2.75, 0])
    assert reward.score([later] * 4, asked, intent=[intent] * 4) == pytest.approx([0, 2, 1.75, 0])
    assert reward.score([opening], ["size?"]) == [None]


def openings(n: int = 6) -> Records:
    """One opening, and another intent behind each."""
    intents = [{"size": s, "colour": c, "a": "1"} for s in ("small", "large") for c in ("red", "green", "blue")]
    return Records.of(
        Record(user("draw me a thing"), id=str(i), extras={"intent": intents[i]}) for i in range(n)
    )


def run(folder: Path, reward: Any, **options: Any) -> TrainingRun:
    own = {"output_dir": str(folder), "loop": "inquiry", "objective": "grpo", "reward": "inquiry"}
    sizes = {"num_generations": 4, "max_completion_length": 4, "loop.rounds": 2, "loop.turns": 2}
    return run_loop(policy(0), openings(), TrainingConfig.of(QUICK | own | sizes | options), reward=reward)


def test_the_loop_holds_dialogues_and_learns_in_their_situations(tmp_path: Path) -> None:
    """The tiny model writes single bytes: it can learn to ask for ``a``, and nothing else."""
    done = run(tmp_path, Inquiry(FORM), max_steps=15, learning_rate=3e-2)
    assert [s["name"] for s in done.stages] == ["round-1", "round-2"]
    assert all(done.measures[f"round {i}"]["dialogues"] == 6 for i in range(3)), "alike prompts, other intents"
    assert done.stages[0]["examples"] >= 12
    bits = [done.measures[f"round {i}"]["bits"] for i in range(3)]
    assert bits[2] > bits[0] + 0.3
    again = run(tmp_path, Inquiry(FORM), max_steps=15, learning_rate=3e-2, resume_from_checkpoint=True)
    assert again.measures["round 1"] == done.measures["round 1"]


def test_what_can_not_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learns from an Inquiry"):
        run(tmp_path, FunctionScorer(letters))
    with pytest.raises(ConfigError, match="different values"):
        IntentSchema({"size": ("a", "a")})
