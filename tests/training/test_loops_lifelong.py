"""Lifelong alignment: tasks in order, updates consolidated, what was forgotten measured, stopped loops going on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Records
from accordance.models.weights import LowRank, consolidated, put_state, trained_state, update_of, updated
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.loops.lifelong import tasks_of, transfer
from accordance.training.run import add_adapter
from tests.tiny import policy, records
from tests.training.test_trainer import QUICK, weights


def tasks(count: int = 20) -> Records:
    """Records of two tasks: in `calm` the one answer is better, in `loud` the other."""
    made = []
    for number, record in enumerate(records(2 * count)):
        task = "calm" if number < count else "loud"
        judged = Judgment("comparison", (0, 1), (1.0, 0.0) if task == "calm" else (0.0, 1.0))
        made.append(replace(record, judgments=(judged,), extras={"task": task}))
    return Records.of(made)


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    given: dict[str, Any] = {
        "loop": "lifelong",
        "objective": "focal(dpo)",
        "max_steps": 2,
        "loop.held_out": 0.3,
    }
    config = TrainingConfig.of(QUICK | given | {"output_dir": str(folder)} | options)
    return run_loop(policy(0), tasks() if some is None else some, config)


ADAPTER = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}


def test_the_report_holds_the_score_of_every_task_after_each_and_the_backward_transfer(tmp_path: Path) -> None:
    done = run(tmp_path, **{"max_steps": 6})
    assert [stage["name"] for stage in done.stages] == ["calm-sft", "calm", "loud-sft", "loud"]
    table = [done.measures[f"after {task}"] for task in ("calm", "loud")]
    assert table[0]["calm"] > 0.8 > table[1]["calm"], "the second task wants the opposite of the first"
    assert table[1]["loud"] > table[0]["loud"]
    told = done.measures["sequence"]
    assert told["backward_transfer"] == pytest.approx(table[1]["calm"] - table[0]["calm"])
    assert done.measures["consolidation of calm-sft"]["old_share"] == 0
    assert 0 < done.measures["consolidation of loud"]["old_share"] < 1
    assert 0 < done.measures["consolidation of loud"]["noise_share"] <= 0.1


@pytest.mark.parametrize("more", [{}, ADAPTER, {**ADAPTER, "loop.adapter_as": "factors"}])
def test_a_loop_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    whole = run(tmp_path / "a", **more)
    run(tmp_path / "b", **more)
    for stage in sorted((tmp_path / "b" / "stages").glob("0[34]-*")):
        shutil.rmtree(stage)
    again = run(tmp_path / "b", **more, resume_from_checkpoint=True)
    assert torch.equal(weights(whole), weights(again))
    assert again.measures == whole.measures


def test_without_shrinking_and_denoising_it_is_plain_training_one_task_after_the_other(tmp_path: Path) -> None:
    options = {"loop.sft": False, "loop.replay": 0.0, "loop.keep": 1.0}
    plain = run(tmp_path / "a", **options, **{"loop.energy": 1.0})
    nearly = run(tmp_path / "b", **options, **{"loop.energy": 1 - 1e-12})
    torch.testing.assert_close(weights(plain), weights(nearly), rtol=0, atol=1e-5)
    shrunk = run(tmp_path / "c", **options | {"loop.keep": 0.0}, **{"loop.energy": 1.0})
    assert (weights(plain) - weights(shrunk)).abs().max() > 1e-3


def test_a_share_of_earlier_tasks_is_seen_again(tmp_path: Path) -> None:
    with_replay = run(tmp_path / "a", **{"loop.sft": False, "loop.replay": 0.5})
    without = run(tmp_path / "b", **{"loop.sft": False, "loop.replay": 0.0})
    first, second = (stage["examples"] for stage in with_replay.stages)
    assert second - without.stages[1]["examples"] == round(first * 0.5) > 0


def test_tasks_are_told_apart_by_attribute_group_and_file() -> None:
    judged = (
        Judgment("comparison", (0, 1), (1.0, 0.0), attribute="polite", group="a"),
        Judgment("comparison", (0, 1), (0.0, 1.0), attribute="short", group="b"),
    )
    some = Records.of(replace(record, judgments=judged) for record in records(4))
    parts = tasks_of(some, "attribute", ["short", "polite"])
    assert list(parts) == ["short", "polite"]
    assert all(r.judgments == (Judgment("comparison", (0, 1), (0.0, 1.0), group="b"),) for r in parts["short"])
    assert list(tasks_of(some, "group")) == ["a", "b"]
    both = Records.of(replace(r, origin=f"{'one' if i < 2 else 'two'}.jsonl:{i}") for i, r in enumerate(some))
    assert {name: len(part) for name, part in tasks_of(both, "file").items()} == {
        "one.jsonl": 2,
        "two.jsonl": 2,
    }


@pytest.mark.parametrize(
    ("by", "order", "attribute", "kind", "says"),
    [
        ("extras.tusk", None, None, DataError, "no extras.tusk"),
        ("colour", None, None, ConfigError, "extras.NAME"),
        ("attribute", None, "polite", ConfigError, "no effect"),
        ("extras.task", ["calm", "loud", "slow"], None, ConfigError, "two or more of: calm, loud"),
        ("extras.task", ["calm"], None, ConfigError, "follow each other"),
    ],
)
def test_what_are_no_tasks_is_refused(
    by: str, order: list[str] | None, attribute: str | None, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        tasks_of(tasks(2), by, order, attribute)


def test_backward_transfer_is_what_earlier_tasks_lost_since_they_were_learned() -> None:
    table = [{"a": 0.9, "b": 0.5, "c": 0.5}, {"a": 0.7, "b": 0.8, "c": 0.5}, {"a": 0.6, "b": 0.9, "c": 1.0}]
    told = transfer(table)
    assert told["backward_transfer"] == pytest.approx((-0.3 + 0.1) / 2)
    assert told["mean_final"] == pytest.approx(2.5 / 3) and told["last"] == 1.0


# The algebra.


def dense_rule(change: np.ndarray, earlier: list[np.ndarray], energy: float, keep: float) -> np.ndarray:
    """The rule written out on whole matrices."""
    u, s, vt = np.linalg.svd(change, full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(s**2), energy * (s**2).sum())) + 1
    clean = (u[:, :rank] * s[:rank]) @ vt[:rank]
    history = np.stack([h.ravel() for h in earlier])
    _, sizes, rows = np.linalg.svd(history, full_matrices=False)
    basis = rows[sizes > 1e-6 * sizes[0]]
    old = (basis.T @ (basis @ clean.ravel())).reshape(clean.shape)
    return clean - old + keep * old


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 7)])
def test_factored_consolidation_is_the_rule_on_whole_matrices(shape: tuple[int, int]) -> None:
    g = np.random.default_rng(0)
    earlier = [g.normal(size=shape) for _ in range(2)]
    earlier.append(earlier[0] + 1e-9 * g.normal(size=shape))  # no direction of its own
    change = g.normal(size=shape) + 2 * earlier[0]
    found = consolidated(
        LowRank.of(torch.tensor(change)), [LowRank.of(torch.tensor(h)) for h in earlier], 0.8, 0.3
    )
    np.testing.assert_allclose(found.written.dense.numpy(), dense_rule(change, earlier, 0.8, 0.3), atol=1e-8)


def test_an_adapter_is_consolidated_as_the_product_of_its_factors() -> None:
    made = policy(0)
    add_adapter(made, TrainingConfig.of(ADAPTER))
    before, g = trained_state(made.model), torch.Generator().manual_seed(0)
    after = {name: value + torch.randn(value.shape, generator=g) for name, value in before.items()}
    change = update_of(before, after)
    assert len(change) == len(before) / 2 and all("lora_BA" in name for name in change)
    put_state(made.model, updated(before, change))
    again = update_of(before, trained_state(made.model))
    for name, update in change.items():
        torch.testing.assert_close(again[name].dense, update.dense, rtol=1e-4, atol=1e-5)


def test_directions_that_a_truncation_emptied_can_still_be_trained() -> None:
    before = {"x.lora_A.w": torch.randn(4, 6), "x.lora_B.w": torch.zeros(5, 4)}
    after = {"x.lora_A.w": torch.randn(4, 6), "x.lora_B.w": torch.randn(5, 4)}
    cut = {name: update.cut(1) for name, update in update_of(before, after).items()}
    state = updated(before, cut)
    torch.testing.assert_close(
        (state["x.lora_B.w"] @ state["x.lora_A.w"]).double(), cut["x.lora_BA.w"].dense, rtol=1e-4, atol=1e-5
    )
    alive = (state["x.lora_A.w"].norm(dim=1) > 0) | (state["x.lora_B.w"].norm(dim=0) > 0)
    assert alive.all() and int((state["x.lora_B.w"].norm(dim=0) > 0).sum()) == 1
