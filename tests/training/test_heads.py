"""MAH-DPO in a run: heads for members, balanced orders, checkpoints that come back, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError
from accordance.models import heads_of, load_policy
from accordance.objectives import get_objective
from accordance.training import TrainingConfig, TrainingRun, last_complete_checkpoint, train
from accordance.training.members import give_heads, member_examples
from accordance.training.order import SeededSampler
from tests.tiny import policy
from tests.training.test_members import judged
from tests.training.test_trainer import QUICK, logged, weights


def run(folder: Path, **options: Any) -> TrainingRun:
    config = TrainingConfig.of(QUICK | {"output_dir": str(folder), "heads": "attribute"} | options)
    return train(policy(0), judged(), config)


def test_heads_are_told_by_the_recipe_alone(tmp_path: Path) -> None:
    done = run(tmp_path, num_train_epochs=6)
    assert heads_of(done.policy.model).names == ("harmless", "helpful")
    for name in ("harmless", "helpful"):  # who contradict each other, and both get their way
        assert logged(done, f"rewards/accuracies/{name}")[-1] == 1.0


def test_examples_of_a_member_move_its_head_alone() -> None:
    made = policy()
    data, names = member_examples(get_objective("dpo"), judged(), made.encoder, "attribute", None, {})
    give_heads(made, names, 1e-3, 0, data)
    mine = [example.group for example in data.items if example.columns["member"] == 0]
    made.engine(mine).logp.sum().backward()
    first, second = (float(head.weight.grad.abs().max()) for head in heads_of(made.model).heads)
    assert first > 0 and second == 0


def test_every_batch_holds_its_share_of_every_member() -> None:
    members = [0] * 30 + [1] * 10 + [2] * 20
    sampler = SeededSampler(60, 3, members)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(60))
        for start in range(0, 60, 12):
            found = [members[index] for index in order[start : start + 12]]
            assert [found.count(m) for m in range(3)] == pytest.approx([6, 2, 4], abs=1)
    assert list(sampler) != list(SeededSampler(60, 3, members))  # another epoch, another order
    plain = SeededSampler(60, 3)
    assert list(plain) == list(SeededSampler(60, 3, [0] * 60))


def test_a_run_that_is_resumed_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    whole = run(tmp_path / "whole", **saved)
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    again = run(tmp_path / "again", **saved, resume_from_checkpoint=str(checkpoint))
    assert again.steps == whole.steps == 8 and last_complete_checkpoint(tmp_path / "again")
    assert torch.equal(weights(again), weights(whole))
    loaded = load_policy(tmp_path / "whole")
    assert torch.equal(heads_of(loaded.model).heads[1].weight, heads_of(whole.policy.model).heads[1].weight)


@pytest.mark.parametrize("balancer", ["raco", "maxmin"])
@pytest.mark.parametrize("objective", ["dpo", "simpo", "kto"])
def test_any_plain_objective_and_balancer_trains_heads(tmp_path: Path, objective: str, balancer: str) -> None:
    done = run(tmp_path, objective=objective, balancer=balancer, max_steps=2)
    assert torch.isfinite(weights(done)).all() and done.steps == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"balance_over": "group"}, "told apart by balance_over=group"),
        ({"use_peft": True}, "an adapter leaves the output heads"),
        ({"heads": None, "head_noise": 0.1}, "head_noise has no effect without heads"),
        ({"parallel": "zero3"}, "whole on every process"),
        ({"attribute": "helpful"}, "no effect with attribute"),
        ({"objective": "dpo + 0.1*sft"}, "it is a sum"),
        ({"heads": "person"}, "heads: Input should be"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, **options)


def test_a_reference_without_these_heads_is_refused(tmp_path: Path) -> None:
    policy(0).save(tmp_path / "plain")
    with pytest.raises(ConfigError, match="not the heads that the policy has"):
        run(tmp_path / "run", reference=str(tmp_path / "plain"))
