"""Several processes: the command starts itself again under torch's own launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from accordance.app.align import check_output
from accordance.app.recipe import Recipe


def relaunch(processes: int, recipe: Recipe) -> int:
    """Carry out a recipe in several processes on this machine.

    Args:
        processes: how many.
        recipe: what to carry out.

    Returns:
        The exit code: that of the processes.
    """
    check_output(recipe)
    flags = [word for word in ("--json", "--verbose") if word in sys.argv]
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(yaml.safe_dump(recipe.options() | _flags(recipe)), encoding="utf-8")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        mine = ["-m", "accordance.app", "align", "--recipe", str(file), *flags]
        child = subprocess.Popen([*launcher, f"--nproc-per-node={processes}", *mine], env=environment)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C reaches the child itself
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGINT, before)


def _flags(recipe: Recipe) -> dict[str, object]:
    names = ("resume_from_checkpoint", "overwrite_output_dir")
    return {name: getattr(recipe.config, name) for name in names if getattr(recipe.config, name)}
