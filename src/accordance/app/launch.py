"""Several processes on this machine: the command starts itself again, once for each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import yaml

from accordance.app.plan import check_output
from accordance.app.recipe import Recipe


def relaunch(processes: int, recipe: Recipe) -> int:
    """Carry out a recipe in several processes, with the environment that `torchrun` gives them.

    Ctrl-C is passed on to each. Where one fails, the others are ended.

    Args:
        processes: how many.
        recipe: what to carry out.

    Returns:
        The exit code of the first process that failed, or 0.
    """
    check_output(recipe)
    flags = [word for word in ("--json", "--verbose") if word in sys.argv]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(yaml.safe_dump(recipe.options() | _flags(recipe)), encoding="utf-8")
        command = [sys.executable, "-m", "accordance.app", "align", "--recipe", str(file), *flags]
        shared = _environment(processes, verbose="--verbose" in flags)
        children = [
            subprocess.Popen(
                command,
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                start_new_session=True,  # the terminal's Ctrl-C reaches them through us, once
            )
            for rank in range(processes)
        ]

        def pass_on(number: int, frame: FrameType | None) -> None:
            for child in children:
                if child.poll() is None:
                    child.send_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, pass_on)
        try:
            return _wait(children)
        finally:
            signal.signal(signal.SIGINT, before)
            for child in children:
                if child.poll() is None:
                    child.kill()


def _wait(children: list[subprocess.Popen[bytes]], grace: float = 10.0) -> int:
    """Wait for all; after a failure the others have `grace` seconds to end by themselves."""
    failed, deadline = 0, float("inf")
    while any(child.poll() is None for child in children):
        codes = [child.returncode for child in children if child.returncode]
        if codes and not failed:
            failed, deadline = codes[0], time.monotonic() + grace
        if time.monotonic() > deadline:
            return failed
        time.sleep(0.05)
    return failed or next((child.returncode for child in children if child.returncode), 0)


def _environment(processes: int, *, verbose: bool) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    own |= {} if verbose else {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return {**own, **os.environ, **world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _flags(recipe: Recipe) -> dict[str, object]:
    names = ("resume_from_checkpoint", "overwrite_output_dir")
    return {name: getattr(recipe.config, name) for name in names if getattr(recipe.config, name)}
