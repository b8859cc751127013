"""Balancers in the trainer: the plain sum where they should be, whole steps, adapters, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.balancing import get_balancer
from accordance.core.errors import ConfigError
from accordance.core.record import Records
from accordance.objectives import get_objective, parts_of
from accordance.training import TrainingConfig, TrainingRun, bundle_for, examples_for, train
from tests.tiny import policy, records
from tests.training.test_trainer import QUICK, logged, weights
from tests.training.test_trainer import run as plain_run

OPTIONS: dict[str, Any] = QUICK | {"objective": "simpo + 0.5*sft"}


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    return plain_run(folder, some, **OPTIONS | options)


def test_sum_is_the_plain_run_bit_for_bit_and_radius_0_is_the_same_step(tmp_path: Path) -> None:
    plain, summed = run(tmp_path / "a"), run(tmp_path / "b", balancer="sum")
    assert torch.equal(weights(plain), weights(summed)) and plain.steps >= 2
    neutral = run(tmp_path / "c", balancer="raco", balancer_radius=0)
    torch.testing.assert_close(weights(plain), weights(neutral), rtol=1e-4, atol=2e-5)
    for name in ("loss", "grad_norm", "rewards/margins"):
        assert logged(plain, name) == pytest.approx(logged(neutral, name), rel=1e-4)
    assert logged(neutral, "balance/simpo") == pytest.approx([1.0] * neutral.steps)
    assert logged(neutral, "balance/sft") == pytest.approx([0.5] * neutral.steps)


@pytest.mark.parametrize("name", ["raco", "maxmin"])
def test_accumulation_and_cut_forward_passes_do_not_change_the_trajectory(tmp_path: Path, name: str) -> None:
    whole = run(tmp_path / "a", balancer=name)
    split = run(
        tmp_path / "b",
        balancer=name,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_tokens=64,
    )
    assert whole.steps == split.steps
    torch.testing.assert_close(weights(whole), weights(split), rtol=1e-4, atol=5e-5)
    assert logged(whole, "loss") == pytest.approx(logged(split, "loss"), rel=1e-4)
    assert not torch.allclose(weights(whole), weights(run(tmp_path / "c")), rtol=1e-4, atol=5e-5)


def test_the_first_step_is_the_direction_of_the_members_gradients(tmp_path: Path) -> None:
    """By hand: each member's mean loss on the first batch, its gradient, RACO's direction, one step of SGD."""
    start = policy()
    config = TrainingConfig.of(OPTIONS | {"output_dir": str(tmp_path / "a")})
    objective = config.build_objective()
    data = examples_for(objective, records(8), start.encoder)
    pairs = start.engine(start.engine.pack([data[i].group for i in range(8)]))

    bundle = bundle_for(objective, pairs, None, {})
    parameters = list(start.model.parameters())
    flat = []
    for part, _ in parts_of(objective):
        found = torch.autograd.grad(part(bundle).mean(), parameters, retain_graph=True, allow_unused=True)
        flat.append(
            torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, found)])
        )
    direction = get_balancer("raco").combine(torch.stack(flat), torch.tensor([1.0, 0.5]))
    before = torch.cat([p.detach().flatten() for p in parameters])
    done = run(
        tmp_path / "b", records(8), balancer="raco", optim="sgd", max_grad_norm=0, max_steps=1, weight_decay=0.0
    )
    torch.testing.assert_close(weights(done), before - 1e-2 * direction, rtol=1e-4, atol=1e-6)


def test_an_adapter_alone_is_balanced(tmp_path: Path) -> None:
    done = run(tmp_path, balancer="raco", use_peft=True, lora_r=4)
    base = policy()
    with done.policy.adapter_off():
        off = done.policy.logprobs(records(4)).logprob
    assert off.tolist() == pytest.approx(base.logprobs(records(4)).logprob.tolist(), rel=1e-4)
    assert done.policy.logprobs(records(4)).logprob.tolist() != pytest.approx(off.tolist(), rel=1e-4)


def test_with_a_reference_and_held_out_loss_and_in_a_wrapped_member(tmp_path: Path) -> None:
    options = OPTIONS | {
        "output_dir": str(tmp_path),
        "objective": "dpo + 0.1*sft + robust",
        "balancer": "raco",
        "balancer_radius": 0.2,
        "eval_strategy": "epoch",
        "dpo.beta": 0.2,
    }
    done = train(policy(), records(16), TrainingConfig.of(options), held_out=records(6, 1))
    assert logged(done, "eval_loss") and len(logged(done, "balance/robust")) == done.steps


@pytest.mark.parametrize(
    "options, match",
    [
        ({"balancer": "rako"}, "did you mean 'raco'"),
        ({"balancer": "raco", "objective": "dpo"}, "no effect: dpo is one loss"),
        ({"balancer_radius": 0.2}, "no effect with balancer=sum"),
        ({"balancer": "raco", "balancer_temperature": 0.2}, "no effect with balancer=raco"),
        ({"balancer": "raco", "balancer_radius": 1.5}, "less than 1"),
        ({"balancer": "raco", "fp16": True}, "whole gradients"),
        ({"balancer": "raco", "parallel": "fsdp2"}, "whole gradients"),
    ],
)
def test_what_can_not_be_balanced_is_refused_before_training(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TrainingConfig.of(OPTIONS | options).build_objective()


def test_a_sum_inside_another_objective_is_one_loss() -> None:
    from dataclasses import replace

    whole = get_objective("simpo + 0.5*sft")
    assert [weight for _, weight in parts_of(whole)] == [1.0, 0.5]
    wrapped = replace(whole, function=lambda bundle: 2 * whole(bundle))
    assert parts_of(wrapped) == ((wrapped, 1.0),)
