"""Two processes under DDP take the steps that one takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from accordance.core.scorer import FunctionScorer
from accordance.training import TrainingConfig, TrainingRun, train
from accordance.training.online import RolloutTrainer
from accordance.training.rollouts import RolloutSource
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK, logged, run, weights

SCRIPT = """
import json, os, sys, torch
from accordance.core.scorer import FunctionScorer
from accordance.training import TrainingConfig, train
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_processes import each_prompt_by_itself
each_prompt_by_itself()
found = []
for options in json.loads(sys.argv[1]):
    reward = {"reward": FunctionScorer(letters)} if "reward" in options else {}
    done = train(policy(), records(16), TrainingConfig.of(options), **reward)
    weights = torch.cat([p.detach().flatten() for p in done.policy.model.parameters()])
    found.append({"weights": weights, "history": done.history})
    assert torch.distributed.get_world_size() == 2
if torch.distributed.get_rank() == 0:
    torch.save(found, sys.argv[2])
# Leave together and in order: gloo's threads abort a process that ends while they still run.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


def each_prompt_by_itself(put: Callable[[object, str, object], object] = setattr) -> None:
    """Sample every prompt alone, with a seed of its own: then it does not matter who samples which with whom."""
    draw = RolloutSource.draw

    def apart(self: RolloutSource, prompts: Any, seed: int) -> list[Any]:
        return [r for record, ids in prompts for r in draw(self, [(record, ids)], 31 * sum(ids) + len(ids))]

    put(RolloutSource, "draw", apart)


def on_two(folder: Path, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Weights and history of one run after another on two processes."""
    script, out, root = folder / "script.py", folder / "out.pt", Path(__file__).resolve().parents[2]
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        + [json.dumps(configs), str(out)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=False)


def same(two: dict[str, Any], single: TrainingRun, *names: str) -> None:
    """Equal weights at the end, and equal logs on the way."""
    torch.testing.assert_close(two["weights"], weights(single), rtol=1e-4, atol=2e-5)
    for name in ("loss", "num_tokens", *names):
        ours = [line[name] for line in two["history"] if name in line]
        assert ours == pytest.approx(logged(single, name), rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "dpo"},
        {"objective": "sft"},
        {"objective": "kto"},
        {"objective": "bco"},
        {"use_peft": True, "lora_r": 4},
    ],
)
def test_two_processes_give_the_trajectory_of_one(tmp_path: Path, options: dict) -> None:
    shape = {"num_train_epochs": 2, **options}
    single = run(tmp_path / "one", per_device_train_batch_size=8, **shape)
    config = QUICK | shape | {"output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 4}
    same(*on_two(tmp_path, [config]), single, "rewards/margins")


#: Advantages of each list, of the batch, of a critic with demonstrations beside; pairs with past policies.
ONLINE: list[tuple[dict[str, Any], list[str]]] = [
    ({"objective": "grpo", "beta": 0.1, "num_iterations": 2, "ref_model_sync_steps": 4}, ["kl"]),
    ({"objective": "reinforce_plus_plus", "steps_per_generation": 2}, []),
    ({"objective": "ppo", "num_iterations": 2, "ptx_coef": 0.5}, ["kl", "value/loss", "ptx/loss"]),
    ({"objective": "inpo", "eta": 0.1, "tau": 0.02, "reduction": "mean"}, []),
    ({"objective": "lcpo(dpo)", "lcpo.memory": 10.0}, []),
]


def test_two_processes_learn_from_the_same_rollouts_what_one_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prompt is sampled with a seed of its own here, as two processes draw other numbers than one."""
    shared = QUICK | {"reward": "letters", "num_generations": 4, "max_completion_length": 8, "max_steps": 4}
    configs = [shared | options for options, _ in ONLINE]
    folders = [
        {"output_dir": str(tmp_path / f"two-{i}"), "per_device_train_batch_size": 2}
        for i in range(len(configs))
    ]
    found = on_two(tmp_path, [config | folder for config, folder in zip(configs, folders)])
    each_prompt_by_itself(monkeypatch.setattr)
    for i, (config, two, (_, names)) in enumerate(zip(configs, found, ONLINE)):
        one = TrainingConfig.of(
            config | {"output_dir": str(tmp_path / str(i)), "per_device_train_batch_size": 4}
        )
        single = train(policy(), records(16), one, reward=FunctionScorer(letters))
        assert single.steps == 4
        same(two, single, "reward", "completions/mean_length", *names)


def test_two_processes_sample_other_prompts_with_other_seeds(tmp_path: Path) -> None:
    """Nothing is sampled twice: rank and round are in the seed, and the prompts are dealt out."""
    seen = []
    for rank in (0, 1):
        trainer: Any = SimpleNamespace(
            args=SimpleNamespace(process_index=rank, world_size=2, seed=7, data_seed=None),
            prompts=[SimpleNamespace(group=SimpleNamespace(prompt=[i])) for i in range(8)],
            records=list(range(8)),
            options=SimpleNamespace(steps_per_generation=1),
            _per_step=8,
        )
        trainer._prompt_at = lambda place, own=trainer: RolloutTrainer._prompt_at(own, place)

        def draw(asked: list[tuple[int, list[int]]], seed: int) -> list[Any]:
            seen.append(([record for record, _ in asked], seed))
            raise InterruptedError

        trainer.source = SimpleNamespace(draw=draw)
        with pytest.raises(InterruptedError):
            RolloutTrainer._draw(trainer, 0)
    (first, seed), (second, other) = seen
    assert sorted(first + second) == list(range(8)) and seed != other
