"""The trainer: losses mean what they say, however the step is cut, resumed or spread over processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from accordance.core.errors import ConfigError, DataError, TrainingError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.training import TrainingConfig, TrainingRun, last_complete_checkpoint, train
from tests.tiny import policy, records

QUICK = {
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
}


def run(folder: Path, some: Records | None = None, *, seed: int = 0, **options: Any) -> TrainingRun:
    config = TrainingConfig.of(QUICK | {"output_dir": str(folder)} | options)
    return train(policy(seed), some or records(16), config)


def weights(done: TrainingRun) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in done.policy.model.parameters()])


def logged(done: TrainingRun, name: str) -> list[float]:
    return [line[name] for line in done.history if name in line]


@pytest.mark.parametrize("objective", ["dpo", "sft", "simpo", "kto", "pro"])
def test_accumulation_does_not_change_the_trajectory(tmp_path: Path, objective: str) -> None:
    def shape(name: str, batch: int, steps: int) -> TrainingRun:
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        return run(tmp_path / name, objective=objective, num_train_epochs=2, **sizes)

    once, split = (
        shape("8x1", 8, 1),
        shape("1x8", 2 if objective == "kto" else 1, 4 if objective == "kto" else 8),
    )
    assert once.steps == split.steps > 2
    if objective == "kto":  # its KL term is a statistic of the batch, as published: close, not equal
        assert logged(once, "loss")[0] == pytest.approx(logged(split, "loss")[0], rel=1e-3)
    else:
        torch.testing.assert_close(weights(once), weights(split), rtol=1e-4, atol=2e-5)
        assert logged(once, "loss") == pytest.approx(logged(split, "loss"), rel=1e-4)


def test_a_last_step_of_fewer_batches_is_a_mean_over_what_it_has(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", records(10), per_device_train_batch_size=4, gradient_accumulation_steps=1)
    split = run(tmp_path / "b", records(10), per_device_train_batch_size=1, gradient_accumulation_steps=4)
    torch.testing.assert_close(weights(whole), weights(split), rtol=1e-4, atol=2e-5)


def test_a_budget_of_positions_cuts_the_forward_pass_not_the_loss(tmp_path: Path) -> None:
    whole, cut = run(tmp_path / "a"), run(tmp_path / "b", max_tokens=64)
    torch.testing.assert_close(weights(whole), weights(cut), rtol=1e-4, atol=2e-5)


def test_the_plain_layout_trains_the_same_model(tmp_path: Path) -> None:
    from accordance.models import LocalPolicy
    from tests.tiny import llama, tokenizer

    shared = run(tmp_path / "a")
    with torch.random.fork_rng():
        plain = LocalPolicy(llama(), tokenizer(), shared=False)
        config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path / "b")})
        other = train(plain, records(16), config)
    torch.testing.assert_close(weights(shared), weights(other), rtol=1e-4, atol=2e-5)


def test_losses_are_those_of_trl_on_the_same_batches(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from accordance.training.order import SeededSampler
    from tests.tiny import tokenizer

    some = records(16)
    ours = run(tmp_path / "ours", some, per_device_train_batch_size=4, seed=0, num_train_epochs=1)
    order = list(SeededSampler(16, 42))
    rows = [
        {
            "prompt": [{"role": "user", "content": r.prompt[0].content}],
            "chosen": [{"role": "assistant", "content": r.responses[0].text}],
            "rejected": [{"role": "assistant", "content": r.responses[1].text}],
        }
        for r in (some[i] for i in order)
    ]

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    policy().save(tmp_path / "start")
    config = DPOConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=4, num_train_epochs=1, learning_rate=1e-2,
        lr_scheduler_type="constant", warmup_steps=0, logging_steps=1, save_strategy="no", use_cpu=True, bf16=False,
        report_to="none", gradient_checkpointing=False, disable_tqdm=True, beta=0.1,
    )  # fmt: skip
    trl = InOrder(
        model=str(tmp_path / "start"),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    trl.train()
    theirs = [line for line in trl.state.log_history if "loss" in line]
    assert logged(ours, "loss") == pytest.approx([line["loss"] for line in theirs], rel=1e-3, abs=1e-4)
    for name in ("rewards/margins", "rewards/chosen", "logps/chosen", "logps/rejected"):
        assert logged(ours, name) == pytest.approx([line[name] for line in theirs], rel=2e-3, abs=2e-3), name


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "dpo"},
        {"objective": "dpo + 0.2*sft"},
        {"objective": "dpo", "use_peft": True, "lora_r": 4},
        {"objective": "kto"},
        {"objective": "bco"},
        {"objective": "orpo"},
        {"objective": "pro"},
        {"objective": "f_dpo"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_what_people_preferred_becomes_likelier(tmp_path: Path, options: dict[str, Any]) -> None:
    some = records(24)
    before = policy().logprobs(some)
    done = run(tmp_path, some, num_train_epochs=12, **options)
    after = done.policy.logprobs(some)
    gap = ((after.logprob - before.logprob) / before.tokens).to_numpy().reshape(-1, 2)
    assert (gap[:, 0] > gap[:, 1]).mean() > 0.9


def test_sft_imitates_demonstrations_and_counts_tokens(tmp_path: Path) -> None:
    shown = Records.of(
        Record(user(f"q{i}"), (Response.of("yes" * (1 + i % 3)),), (Judgment("demonstration", (0,)),))
        for i in range(12)
    )
    done = run(tmp_path, shown, objective="sft", num_train_epochs=25)
    losses = logged(done, "loss")
    assert done.examples.source == "demonstrations" and losses[-1] < losses[0] / 2
    first = policy().logprobs(shown)
    assert losses[0] == pytest.approx(
        -first.logprob.iloc[_first_batch(12, 8)].sum() / first.tokens.iloc[_first_batch(12, 8)].sum(), rel=1e-4
    )


def _first_batch(size: int, batch: int) -> list[int]:
    from accordance.training.order import SeededSampler

    return list(SeededSampler(size, 42))[:batch]


def test_an_adapter_leaves_the_base_alone_and_is_saved_as_peft_writes_it(tmp_path: Path) -> None:
    from accordance import load_policy

    base = policy()
    base.save(tmp_path / "base")
    loaded = load_policy(tmp_path / "base")
    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path / "run"), "use_peft": True, "lora_r": 4})
    done = train(loaded, records(16), config)
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    assert "adapter" in done.reference
    some = records(4)
    with done.policy.adapter_off():
        off = done.policy.logprobs(some).logprob
    assert off.tolist() == pytest.approx(base.logprobs(some).logprob.tolist(), rel=1e-4)
    again = load_policy(tmp_path / "run").logprobs(some).logprob
    assert again.tolist() == pytest.approx(done.policy.logprobs(some).logprob.tolist(), rel=1e-4)


def test_the_second_run_on_the_same_data_needs_no_reference_pass(tmp_path: Path) -> None:
    first = run(tmp_path / "a", cache_dir=str(tmp_path / "cache"))
    second = run(tmp_path / "b", cache_dir=str(tmp_path / "cache"))
    assert "32 of 32" in first.reference and "(cache: 0 of 32" in second.reference
    assert torch.equal(weights(first), weights(second))


def test_only_what_the_first_steps_draw_is_asked_of_the_reference(tmp_path: Path) -> None:
    done = run(tmp_path, max_steps=2, per_device_train_batch_size=2)
    assert "8 of 8 responses" in done.reference


def test_a_reference_model_of_its_own(tmp_path: Path) -> None:
    policy(seed=7).save(tmp_path / "other")
    done = run(tmp_path / "run", reference=str(tmp_path / "other"))
    assert done.reference.startswith(str(tmp_path / "other"))
    assert logged(done, "loss")[0] != pytest.approx(0.6931, abs=1e-3)


def test_a_stale_reference_is_noticed_before_the_first_step(tmp_path: Path) -> None:
    from accordance.training import examples_for
    from accordance.training.trainer import PreferenceTrainer

    trained, stranger = policy(), policy(seed=9)
    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path)})
    objective = config.build_objective()
    data = examples_for(objective, records(8), trained.encoder)
    from accordance.models import Reference

    trainer = PreferenceTrainer(
        trained, objective, config.arguments(), data, reference=Reference(stranger.engine)
    )
    with pytest.raises(TrainingError, match="differs from its reference"):
        trainer.train()


def test_dropout_is_off_unless_asked_for(tmp_path: Path) -> None:
    from accordance.models import LocalPolicy
    from tests.tiny import llama, tokenizer

    wet = LocalPolicy(llama(attention_dropout=0.5), tokenizer())
    train(wet, records(8), TrainingConfig.of(QUICK | {"output_dir": str(tmp_path / "a")}))
    wet = LocalPolicy(llama(attention_dropout=0.5), tokenizer())
    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path / "b"), "disable_dropout": False})
    with pytest.raises(TrainingError, match="dropout on"):
        train(wet, records(8), config)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_row(tmp_path: Path) -> None:
    broken = policy()
    with torch.no_grad():
        broken.model.model.embed_tokens.weight[broken.tokenizer.convert_tokens_to_ids("y")] = float("nan")
    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path), "check": False, "objective": "simpo"})
    with pytest.raises(TrainingError, match="not finite[\\s\\S]*log-probabilities: False"):
        train(broken, records(8), config)


def test_what_can_not_be_trained_on_is_accounted_for(tmp_path: Path) -> None:
    def pair(prompt: str, a: str, b: str, values: tuple[float, float], origin: str) -> Record:
        return Record(
            user(prompt),
            (Response.of(a), Response.of(b)),
            (Judgment("comparison", (0, 1), values),),
            origin=origin,
        )

    odd = [
        pair("tie", "a", "b", (1, 1), "f:1"),
        pair("same", "a", "a", (1, 0), "f:2"),
        pair("long " * 30, "a", "b", (1, 0), "f:3"),
        pair("cut", "a" * 80, "b", (1, 0), "f:4"),
    ]
    done = run(tmp_path, Records.of([*odd, *records(8)]), max_length=60)
    assert done.examples.dropped == {
        "tie": ["f:1"],
        "identical responses": ["f:2"],
        "prompt as long as max_length or longer": ["f:3"],
    }
    assert done.examples.notes["response cut at max_length"] == 1 and len(done.examples) == 9


def test_nothing_to_learn_from_says_what_there_was() -> None:
    ties = Records.of(
        [Record(user("q"), (Response.of("a"), Response.of("b")), (Judgment("comparison", (0, 1), (1, 1)),))]
    )
    with pytest.raises(DataError, match="nothing is left that dpo can learn from[\\s\\S]*tie"):
        train(policy(), ties, TrainingConfig.of({"use_cpu": True, "output_dir": "/nonexistent"}))
    empty = Records.of([Record(user("q"), (Response.of("a"),))])
    with pytest.raises(DataError, match="comparisons of two or more"):
        train(policy(), empty, TrainingConfig.of({"use_cpu": True, "output_dir": "/nonexistent"}))


def test_held_out_metrics_use_the_ecosystems_names(tmp_path: Path) -> None:
    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path), "eval_strategy": "epoch"})
    done = train(policy(), records(16), config, held_out=records(6, 1))
    line = next(line for line in done.history if "eval_loss" in line)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen"):
        assert f"eval_{name}" in line
    for name in ("entropy", "num_tokens", "grad_norm", "learning_rate"):
        assert logged(done, name)


# Interruptions. The script below trains slowly enough that it can be stopped on the way.

SCRIPT = """
import sys, json, time
from pathlib import Path
from transformers import TrainerCallback
from accordance.training import TrainingConfig, train
from tests.tiny import policy, records
class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        Path(sys.argv[1], "step").write_text(str(state.global_step))
        time.sleep(float(sys.argv[3]))
options = json.loads(sys.argv[2])
done = train(policy(), records(16), TrainingConfig.of(options), callbacks=(Slow(),))
print(json.dumps({"steps": done.steps, "interrupted": done.interrupted}))
"""


def start(folder: Path, options: dict[str, Any], pause: float) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(options), str(pause)]
    return subprocess.Popen(
        command,
        cwd=root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        file = folder / "step"
        if file.exists() and int(file.read_text() or 0) >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the run never got there")


OPTIONS = QUICK | {
    "per_device_train_batch_size": 2,
    "num_train_epochs": 2,
    "save_strategy": "steps",
    "save_steps": 3,
    "objective": "bco",
    "lr_scheduler_type": "linear",
}


def test_a_killed_and_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    unbroken = run(
        tmp_path / "whole",
        **{k: v for k, v in OPTIONS.items() if k not in QUICK or k in ("lr_scheduler_type", "save_strategy")},
    )
    folder = tmp_path / "broken"
    process = start(folder, OPTIONS | {"output_dir": str(folder)}, 0.3)
    wait_for_step(folder, 7, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    at = last_complete_checkpoint(folder)
    assert at is not None and at.name in ("checkpoint-6", "checkpoint-9")
    options = {
        k: v for k, v in OPTIONS.items() if k not in QUICK or k in ("lr_scheduler_type", "save_strategy")
    }
    resumed = run(folder, **options, resume_from_checkpoint=True)
    assert resumed.steps == unbroken.steps
    assert torch.equal(weights(unbroken), weights(resumed))
    assert logged(unbroken, "loss")[-3:] == logged(resumed, "loss")[-3:]


def test_a_half_written_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    for step, whole in ((3, True), (6, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / "complete").touch()
    at = last_complete_checkpoint(tmp_path)
    assert at is not None and at.name == "checkpoint-3"


def test_ctrl_c_leaves_a_checkpoint_and_the_run_can_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, OPTIONS | {"output_dir": str(tmp_path), "save_steps": 100}, 0.3)
    wait_for_step(tmp_path, 4, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["interrupted"], err
    assert last_complete_checkpoint(tmp_path) is not None
    options = {
        k: v for k, v in OPTIONS.items() if k not in QUICK or k in ("lr_scheduler_type", "save_strategy")
    }
    resumed = run(tmp_path, **options | {"save_steps": 100}, resume_from_checkpoint=True)
    assert resumed.steps > json.loads(out.splitlines()[-1])["steps"]


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    class Full(TrainerCallback):
        def on_save(self, *args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device", "model.safetensors")

    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path), "save_strategy": "steps", "save_steps": 1})
    with pytest.raises(TrainingError, match="No space left on device[\\s\\S]*--resume"):
        train(policy(), records(8), config, callbacks=(Full(),))


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such checkpoint"):
        run(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


def test_judgments_on_several_attributes_are_not_mixed_in_silence(tmp_path: Path) -> None:
    def record(i: int, *names: str | None) -> Record:
        judged = (
            Judgment("comparison", (0, 1), (1, 0) if j % 2 else (0, 1), attribute=n)
            for j, n in enumerate(names)
        )
        return Record(user(f"q{i}"), (Response.of("a"), Response.of("b")), tuple(judged))

    two = Records.of(record(i, "helpful", "harmless") for i in range(8))
    with pytest.raises(DataError, match="several attributes[\\s\\S]*helpful \\(8\\), harmless \\(8\\)"):
        run(tmp_path / "a", two)
    assert len(run(tmp_path / "b", two, attribute="harmless").examples) == 8
    overall = Records.of(record(i, "helpful", None) for i in range(8))
    assert len(run(tmp_path / "c", overall).examples) == 8
    with pytest.raises(DataError, match="nobody judged 'style'"):
        run(tmp_path / "d", two, attribute="style")


def test_a_data_seed_of_zero_has_an_effect(tmp_path: Path) -> None:
    assert logged(run(tmp_path / "a", data_seed=0), "logps/chosen") != logged(
        run(tmp_path / "b"), "logps/chosen"
    )
