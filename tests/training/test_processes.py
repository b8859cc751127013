"""Two processes under DDP take the steps that one takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.test_trainer import QUICK, logged, run, weights

SCRIPT = """
import json, os, sys, torch
from accordance.training import TrainingConfig, train
from tests.tiny import policy, records
done = train(policy(), records(16), TrainingConfig.of(json.loads(sys.argv[1])))
if torch.distributed.get_rank() == 0:
    assert torch.distributed.get_world_size() == 2
    weights = torch.cat([p.detach().flatten() for p in done.policy.model.parameters()])
    torch.save({"weights": weights, "history": done.history}, sys.argv[2])
# Leave together and in order: gloo's threads abort a process that ends while they still run.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


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
    import json

    shape = {"num_train_epochs": 2, **options}
    single = run(tmp_path / "one", per_device_train_batch_size=8, **shape)
    script, out, root = tmp_path / "script.py", tmp_path / "out.pt", Path(__file__).resolve().parents[2]
    script.write_text(SCRIPT)
    config = QUICK | shape | {"output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 4}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        + [json.dumps(config), str(out)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(out, weights_only=False)
    torch.testing.assert_close(two["weights"], weights(single), rtol=1e-4, atol=2e-5)
    for name in ("loss", "rewards/margins", "num_tokens"):
        ours = [line[name] for line in two["history"] if name in line]
        assert ours == pytest.approx(logged(single, name), rel=1e-3, abs=1e-5), name
