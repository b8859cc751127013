"""Weak-to-strong: the experiment over any learner, soft labels, and the loops over language models."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import PairLogps
from accordance.core.policy import Completion
from accordance.core.record import Judgment, Records
from accordance.core.scorer import FunctionScorer
from accordance.objectives import dpo, get_objective, soft
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.debate import Debate, PolicySpeaker, show_records
from accordance.training.preference_learner import SOFT, TRUTH, labelled, truth, two_sided
from accordance.training.weak_to_strong import (
    Logistic,
    Splits,
    WeakToStrong,
    accuracy,
    balanced_accuracy,
    expected_maximum,
    recovered_gap,
    share_reaching,
    weighted_f1,
)
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK, weights


def pairs(n: int = 6, **extras: torch.Tensor) -> PairLogps:
    g = torch.Generator().manual_seed(0)
    logp, ref = -torch.rand(2, 2, n, generator=g, dtype=torch.float64)
    length = torch.full((n,), 3)
    return PairLogps(*logp, length, length, *ref, extras=extras)


def test_soft_labels_mix_both_directions_of_the_loss() -> None:
    some = pairs(soft_label=torch.tensor([1.0, 0.9, 0.5, 0.5, 0.2, 0.0]))
    plain, swapped = dpo()(some), dpo()(some.swapped())
    p = some.extras["soft_label"].double()
    torch.testing.assert_close(soft(dpo())(some), p * plain + (1 - p) * swapped)
    with pytest.raises(DataError, match="carries none"):
        soft(dpo())(pairs())


def test_the_confidence_term_takes_the_policys_own_side_after_its_warm_up() -> None:
    some = pairs(soft_label=torch.full((6,), 0.5))
    plain, swapped = dpo()(some), dpo()(some.swapped())
    own = (plain < swapped).double()
    loss = soft(dpo(), confidence=1.0, warmup=6)
    torch.testing.assert_close(loss(some), (plain + swapped) / 2)
    torch.testing.assert_close(loss(some), own * plain + (1 - own) * swapped)


def test_metrics_equal_scikit_learns_and_the_threshold_of_toxicity_is_inclusive() -> None:
    g = np.random.default_rng(0)
    y, p = (g.random(200) < 0.8).astype(float), g.random(200)
    assert balanced_accuracy(y, p) == pytest.approx(balanced_accuracy_score(y, p > 0.5))
    assert weighted_f1(y, p) == pytest.approx(f1_score(y, p > 0.5, average="weighted"))
    scores = np.array([[0.1, 0.5], [0.2, 0.4999]])
    assert share_reaching(scores) == 0.5
    assert expected_maximum(scores) == pytest.approx(0.49995)


def test_the_recovered_gap_has_the_right_sign_whichever_way_is_better() -> None:
    assert recovered_gap(0.6, 0.7, 0.8) == pytest.approx(0.5)
    assert recovered_gap(0.4, 0.3, 0.2, lower_is_better=True) == pytest.approx(0.5)
    assert math.isnan(recovered_gap(0.4, 0.3, 0.2)), "a ceiling that is worse leaves no gap"


def test_scikit_learns_classifiers_take_part_as_they_are() -> None:
    g = np.random.default_rng(0)
    margin = g.normal(size=900)
    items = np.stack([margin + g.normal(size=900), margin + 0.2 * g.normal(size=900)], 1)
    data = Splits.of(items, (margin > 0).astype(float), (300, 300, 300))

    def make(seed: int) -> Any:
        return LogisticRegression(C=1e6)

    found = WeakToStrong(make, make, weak_view=lambda X: X[:, :1], strong_view=lambda X: X[:, 1:]).run(data)
    scores = found.scores(accuracy)
    assert scores["weak"] < 0.8 and scores["student"] > 0.9
    gap = found.recovered(accuracy)
    assert found.report().values["accuracy/recovered_gap"] == pytest.approx(gap)
    own = WeakToStrong(lambda seed: Logistic(), make, weak_view=lambda X: X[:, :1]).run(data)
    assert own.scores(accuracy)["weak"] == pytest.approx(scores["weak"], abs=0.02)


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        WeakToStrong(lambda s: Logistic(), lambda s: Logistic(), threshold=0.2)
    with pytest.raises(DataError, match="fewer items"):
        Splits.of(np.zeros((3, 1)), np.zeros(3), (2, 2, 2))


# Language models


def test_items_hide_their_labels_and_soft_labels_say_which_side() -> None:
    items = two_sided(records(20), seed=1)
    firsts = truth(items)
    assert 0 < firsts.mean() < 1
    for record, first in zip(items, firsts):
        assert record.judgments == () and record.responses[0].text.startswith("yes" if first else "no")
    taught = labelled(items, np.where(firsts > 0.5, 0.9, 0.3))
    for record, first in zip(taught, firsts):
        assert TRUTH not in record.extras
        assert record.extras[SOFT] == (0.9 if first else 0.7)
        assert record.judgments[0].values == ((1.0, 0.0) if first else (0.0, 1.0))


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    policy(3).save(folder / "weak")
    config = TrainingConfig.of(
        QUICK
        | {"output_dir": str(folder / "run"), "loop": "weak_to_strong", "loop.weak": str(folder / "weak")}
        | options
    )
    reward = FunctionScorer(letters) if "reward" in options else None
    return run_loop(policy(0), some or records(48), config, reward=reward)


def test_a_weak_policys_labels_teach_the_strong_one(tmp_path: Path) -> None:
    done = run(tmp_path, beta=0.5, max_steps=6)
    found = done.measures["weak_to_strong"]
    assert found["accuracy/weak"] > 0.8 and found["accuracy/student"] > 0.8
    assert found["label_accuracy"] > 0.8 and [s["name"] for s in done.stages] == ["student"]
    assert {"recovered_gap/accuracy", "accuracy/ceiling"} <= set(found)
    again = run(tmp_path, beta=0.5, max_steps=6, resume_from_checkpoint=True)
    assert torch.equal(weights(done), weights(again))


def test_without_a_ceiling_nothing_is_said_of_the_gap_and_the_student_is_the_same(tmp_path: Path) -> None:
    """The ceiling starts where the student starts, and leaves no trace in it; with an adapter, too."""
    adapter = {"use_peft": True, "lora_r": 2, "max_steps": 2}
    done = [run(tmp_path / str(c), **adapter, **{"loop.ceiling": c}) for c in (True, False)]
    assert torch.equal(*map(weights, done))
    assert "recovered_gap/accuracy" not in done[1].measures["weak_to_strong"]


def test_an_ensemble_with_debates_and_a_middle_policy(tmp_path: Path) -> None:
    policy(4).save(tmp_path / "middle")
    own = {"loop.ensemble": 2, "loop.advice": "debate", "loop.turns": 1, "loop.threshold": 0.501}
    own |= {"loop.statement_length": 4}
    done = run(tmp_path, max_steps=1, **own, **{"loop.middle": str(tmp_path / "middle")})
    found = done.measures["weak_to_strong"]
    assert 0 < found["kept"] <= found["labelled"]
    assert len(list((tmp_path / "run" / "stages").glob("advice-*.jsonl"))) == 6


def test_a_teacher_of_texts(tmp_path: Path) -> None:
    own = {"objective": "sft", "loop.teacher": "texts", "reward": "letters", "max_completion_length": 8}
    done = run(tmp_path, max_steps=3, num_generations=3, **own, **{"loop.candidates": 2})
    found = done.measures["weak_to_strong"]
    assert {"reward/weak", "reward/student", "worst/ceiling", "recovered_gap/reward"} <= set(found)
    assert (tmp_path / "run" / "stages" / "texts.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loop.candidates": 2}, "candidates has no effect"),
        ({"loop.turns": 2}, "turns has no effect"),
        ({"loop.teacher": "texts"}, "nobody is named"),
        ({"loop.teacher": "texts", "reward": "letters"}, "learned by imitation"),
        ({"objective": "sft"}, "no reward of single answers"),
    ],
)
def test_a_loop_refuses_what_would_have_no_effect(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, **options)


class Echo:
    """A text model that says how it was asked to end."""

    name = "echo"

    def generate(self, prompts: Any, **_: Any) -> list[list[Completion]]:
        return [[Completion(str(prompt).splitlines()[-1])] for prompt in prompts]


def test_debaters_argue_for_both_sides_and_hear_each_other() -> None:
    items = two_sided(records(6))
    debate = Debate(PolicySpeaker(Echo()), show_records, turns=2)
    for transcript in debate.transcripts(items, 0):
        assert sorted(s.side for s in transcript) == [0, 0, 1, 1]
        assert all(f"the {'first' if s.side else 'second'} answer is" in s.said for s in transcript)
    alone = replace(debate, kind="consultancy")
    assert all(len({s.side for s in t}) == 1 and len(t) == 2 for t in alone.transcripts(items, 0))
    assert len({t[0].side for t in alone.transcripts(items, 0)}) == 2
    shown = debate(items, 0)[0]
    assert (
        shown.prompt_text.startswith(items[0].prompt_text) and items[0].responses[0].text in shown.prompt_text
    )
    assert Judgment not in map(type, shown.judgments)


def test_the_objective_soft_is_reachable_by_name() -> None:
    made = get_objective("soft(dpo)", **{"soft.confidence": 0.5, "beta": 0.3})
    assert made.columns == ("soft_label",) and list(made.state) == ["seen"]
