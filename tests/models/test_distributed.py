"""The log-prob path under torch's own FSDP2 and under DDP: two gloo processes give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, torch, torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from tests.models.test_exact import BASE, GQA, GEMMA, SHARED, build, groups
from accordance.models import Engine
kind, name = sys.argv[1], sys.argv[2]
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
some = groups()
alone = build(SHARED[name]())
engine = Engine(alone)
expected = engine(some)
expected.logp.sum().backward()
want = {n: p.grad.clone() for n, p in alone.named_parameters()}

model = build(SHARED[name]())
engine = Engine(model)
if kind == "fsdp2":
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    wrapped = model
else:
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
mine = some[rank::world]
out = engine(mine, model=wrapped)
(out.logp.sum() * world).backward()  # gradients are averaged over processes
owner = expected.group % world == rank
torch.testing.assert_close(out.logp, expected.logp[owner], rtol=1e-4, atol=1e-4)
for n, p in model.named_parameters():
    grad = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
    torch.testing.assert_close(grad, want[n], rtol=1e-4, atol=1e-4)
if rank == 0:
    sharded = sum(isinstance(p, DTensor) for p in model.parameters())
    print(f"agreed, {sharded} sharded parameters")
# Leave together and in order: gloo's threads abort a process that ends while they still run.
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["fsdp2", "ddp"])
@pytest.mark.parametrize("name", ["llama tied", "gemma3"])
def test_two_processes_agree_with_one(kind: str, name: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    done = subprocess.run(
        [*command[:3], "--standalone", *command[3:5], str(script), kind, name],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "agreed" in done.stdout
    assert ("agreed, 0 sharded" in done.stdout) == (kind == "ddp")
