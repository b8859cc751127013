"""Real processes: Ctrl-C and going on, and several processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.app.conftest import QUICK

ACCORD = [sys.executable, "-m", "accordance.app"]
MANY = [word for word in QUICK if not word.startswith("--max-steps")]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def test_ctrl_c_leaves_a_whole_checkpoint_and_resume_goes_on(model: str, feedback: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = ["align", "--model", model, "--records", feedback, "--output-dir", str(out), "--save-steps=5", *MANY]
    with open(tmp_path / "out", "w") as stdout, open(tmp_path / "err", "w") as stderr:
        child = subprocess.Popen(
            [*ACCORD, *args, "--max-steps=100000", "--json"], stdout=stdout, stderr=stderr, env=environment()
        )
        try:
            deadline = time.monotonic() + 120
            while not list(out.glob("checkpoint-*/complete")) and time.monotonic() < deadline:
                assert child.poll() is None, (tmp_path / "err").read_text()
                time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            assert child.wait(60) == 130, (tmp_path / "err").read_text()
        finally:
            child.kill()
    found = json.loads((tmp_path / "out").read_text())
    assert found["interrupted"] and Path(found["checkpoint"]).is_dir()
    assert found["checkpoint"].endswith(f"checkpoint-{found['steps']}"), "not a step is lost"
    assert not (out / "report.json").exists()

    again = [*found["resume"].split()[1:], f"--max-steps={found['steps'] + 2}", "--json"]
    done = subprocess.run([*ACCORD, *again], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["training"]["steps"] == found["steps"] + 2
    assert "going on with another option" in done.stderr and "max_steps" in done.stderr
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_two_processes_write_one_run_with_the_numbers_of_one(model: str, feedback: str, tmp_path: Path) -> None:
    def run(name: str, *more: str) -> dict:
        args = ["align", "--model", model, "--records", feedback, "--output-dir", str(tmp_path / name)]
        command = [*ACCORD, *args, "--json", "--set", "use_cpu=true", *more]
        rest = [word for word in QUICK if not word.startswith("--per-device")]
        done = subprocess.run([*command, *rest], capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 0, done.stderr
        run.stderr = done.stderr  # type: ignore[attr-defined]
        return json.loads(done.stdout)

    one = run("one", "--per-device-train-batch-size=4")
    two = run("two", "--per-device-train-batch-size=2", "--num-processes=2", "--parallel=fsdp2")
    assert "plain DDP" in run.stderr  # type: ignore[attr-defined]
    for key in ("preference_accuracy", "chosen_logp_change", "rejected_logp_change"):
        assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4)
