"""Structured answers: the parser, the composite reward, and the loop on the tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.core.scorer import FunctionScorer
from accordance.lab.cohort import expert_steps, log_hazard, make_cohort
from accordance.objectives import advantages
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.structured import (
    SURVIVAL,
    Field,
    prediction_metrics,
    reasoning_metrics,
    rouge_l,
    survival,
)
from tests.tiny import policy
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK

RIGHT = {"survival_status": "1:DECEASED", "survival_months": "20", "chain_of_thought": ["a b", "c d"]}
GOOD = SURVIVAL.write(RIGHT, RIGHT["chain_of_thought"])


def test_what_is_written_is_read_back_and_how_well_formed_it_is() -> None:
    parsed = SURVIVAL.parse(GOOD)
    assert parsed.strictness == "strict" and parsed.steps == ("a b", "c d")
    assert list(parsed.values.values()) == ["1:DECEASED", 20.0]
    assert SURVIVAL.parse("I think\n" + GOOD).strictness == "loose"
    assert SURVIVAL.parse(SURVIVAL.write(RIGHT)).strictness == "loose", "no reasoning block"
    assert SURVIVAL.parse(GOOD.replace("20", "many")).strictness == "none"
    assert SURVIVAL.parse(GOOD.replace("1:DECEASED", "2:GONE")).strictness == "none"
    assert SURVIVAL.parse("").values == {field.label: None for field in SURVIVAL.fields}


def test_the_reward_adds_up_what_is_right() -> None:
    def worth(text: str, **row: Any) -> float:
        return survival.one(text, RIGHT | row)

    assert worth(GOOD) == pytest.approx(1.0 + 0.5 + 0.5 + 0.5)
    assert worth(GOOD, survival_status="0:LIVING") == pytest.approx(1.5)
    assert worth(GOOD, survival_months="40") == pytest.approx(2.5 - 0.5 * 0.5)
    assert worth(GOOD, survival_months="> 10") == pytest.approx(2.5), "longer than a censored time is not wrong"
    assert worth(GOOD, survival_months="> 40") == pytest.approx(2.5 - 0.5 * 0.5)
    assert worth(GOOD, survival_months="5") == pytest.approx(2.0), "15 of at least 12 months off"
    assert worth(SURVIVAL.write(RIGHT)) == pytest.approx(1.0 + 0.5 + 0.25), "an empty block earns nothing"
    assert worth("no idea") == 0.0
    with pytest.raises(DataError, match="no true value"):
        worth(GOOD, survival_months="long")


def test_what_can_not_be_read_counts_as_wrong() -> None:
    found = prediction_metrics(SURVIVAL, [GOOD, "no idea"], [RIGHT, RIGHT])
    assert found["parse_failures"] == 0.5 and found["survival_status/accuracy"] == 0.5
    assert found["survival_months/mae"] == pytest.approx(10.0)
    assert survival.score([()] * 2, [GOOD, GOOD], survival_status=["1:DECEASED", None]) == [None, None]


def test_rouge_and_reasoning_metrics_by_hand() -> None:
    assert rouge_l("a b c d", "a c d e") == pytest.approx(2 * 3 / 8) and rouge_l("", "a") == 0.0
    found = reasoning_metrics(["a b", "b c"], "a b c")
    assert found["coherence"] == pytest.approx(0.5) and found["relevance"] == pytest.approx(2 / math.sqrt(6))
    assert math.isnan(reasoning_metrics([], "a")["relevance"])


def test_advantages_of_a_group_sum_to_zero_and_equal_rewards_teach_nothing() -> None:
    scores = torch.tensor([[2.5, 1.0, 0.0, 0.25], [1.0, 1.0, 1.0, 1.0]])
    found = advantages(scores, torch.ones(2, 4, dtype=torch.bool))
    torch.testing.assert_close(found.sum(-1), torch.zeros(2), atol=1e-5, rtol=0)
    assert (found[1] == 0).all()


def test_patients_die_sooner_the_more_their_risks_say() -> None:
    cohort = make_cohort(3000, censored=0.3)
    extras = [record.extras for record in cohort]
    assert np.mean([e["survival_months"].startswith(">") for e in extras]) == pytest.approx(0.3, abs=0.03)
    risk = np.array([float(e["chain_of_thought"][-1].split()[-1]) for e in extras])
    dead = np.array([e["survival_status"] == "1:DECEASED" for e in extras])
    assert dead[risk > 2].mean() > dead[risk < 0.5].mean() + 0.3
    both = frozenset(("smoker", "mutated"))
    assert log_hazard(both) == pytest.approx(1.4 + 1.4 - 2.8) and "risk is 0.0" in expert_steps(both)


def run(folder: Path, some: Records | None = None, reward: Any = survival, **options: Any) -> TrainingRun:
    own = {"output_dir": str(folder), "loop": "structured", "objective": "grpo", "reward": "survival"}
    sizes = {"num_generations": 2, "max_completion_length": 8, "max_steps": 2, "loop.test": 0.2}
    return run_loop(
        policy(0), some or make_cohort(20), TrainingConfig.of(QUICK | own | sizes | options), reward=reward
    )


@pytest.mark.parametrize("imitate", ["reasoning", "answers"])
def test_the_loop_imitates_then_reinforces(tmp_path: Path, imitate: str) -> None:
    done = run(tmp_path, **{"loop.imitate": imitate})
    assert [s["name"] for s in done.stages] == ["imitate", "reinforce"]
    assert done.measures["imitated"]["parse_failures"] == 1.0, "eight tokens are no answer"
    assert {"reward", "survival_status/f1", "survival_months/mae"} <= set(done.measures["reinforced"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reward": FunctionScorer(letters)}, "learns from a StructuredReward"),
        ({"loop.imitate": "none", "loop.reinforce": False}, "teaches nothing"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    reward = options.pop("reward", survival)
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, reward=reward, **options)


def test_a_field_of_classes_needs_them() -> None:
    with pytest.raises(ConfigError, match="field of classes"):
        Field("Status", "status")
