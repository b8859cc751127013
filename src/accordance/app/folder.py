"""The folder of a run: does it hold another one, can it be written to, what is cleared when a run is replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from accordance.core.errors import AccordanceError, ConfigError, TrainingError
from accordance.training import last_complete_checkpoint

RECIPE = "recipe.yaml"
#: What shows that a folder holds a run, or a model that should not be written over.
_SIGNS = (RECIPE, "report.json", "checkpoint-*", "model*.safetensors", "adapter_model.safetensors")
#: What a run writes; replaced with it.
_WRITTEN = (
    *_SIGNS,
    "report.html",
    "samples.parquet",
    "preflight.json",
    "preflight.html",
    "set_aside.jsonl",
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "adapter_config.json",
    "training_args.bin",
    "users.json",
    "users.safetensors",
)


def run_in(folder: str | Path) -> list[str]:
    """The files that show that the folder holds a run; none where it holds none."""
    return sorted(path.name for sign in _SIGNS for path in Path(folder).glob(sign))


def check_folder(folder: str | Path, *, resume: bool, overwrite: bool, model: str | None = None) -> None:
    """Refuse a folder that a run must not write to; touches nothing.

    Args:
        folder: of the run.
        resume: go on with the run in it.
        overwrite: replace the run in it.
        model: path of the starting checkpoint, which a run must not write over.

    Raises:
        ConfigError: it holds another run, or the model that the run starts from, or both options are given.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise ConfigError(
            "go on with the run, or replace it: not both", found="resume_from_checkpoint, overwrite_output_dir"
        )
    if model is not None and Path(model).exists() and Path(model).resolve() == folder.resolve():
        raise ConfigError(
            "the run would write over the model that it starts from",
            where=str(folder),
            remedy="choose another --output-dir",
        )
    found = run_in(folder)
    if found and not (resume or overwrite):
        raise ConfigError(
            "the output folder holds another run (or a model)",
            where=str(folder),
            found=", ".join(found[:6]),
            expected="an empty or new folder",
            remedy="resume_from_checkpoint=True (--resume) goes on with it, overwrite_output_dir=True (--overwrite) "
            "replaces it, another output_dir (--output-dir) leaves it alone",
        )


def check_writable(folder: str | Path) -> None:
    """Make the folder and write to it, now rather than after hours of training.

    Raises:
        TrainingError: it can't be made or written to.
    """
    folder = Path(folder)
    probe = folder / f".accord-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise TrainingError(
            "the output folder can't be written to",
            where=str(folder),
            found=error.strerror or str(error),
            expected="a folder that can be made and written to, with space left",
            remedy="choose another --output-dir, mend its permissions, or free some space",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder is out of reach, the error above says so
            probe.unlink(missing_ok=True)


def space_warning(folder: str | Path, weights: int, trained: int, checkpoints: int) -> str | None:
    """A warning where the disk has less room than the run will want; None where there is enough.

    Args:
        folder: of the run; must exist.
        weights: bytes of the model (or adapter) that is saved.
        trained: bytes of the trained weights; AdamW keeps two fp32 numbers for each.
        checkpoints: how many are kept; one more is there while it is written.
    """
    needed = weights + (checkpoints + 1) * (weights + 2 * trained)
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return (
        f"{folder}: {free / 1e6:,.1f} MB are free, and the run will want about {needed / 1e6:,.1f} MB "
        f"(the model, and {checkpoints + 1} checkpoints with the optimiser's state); free some space, or lower "
        "save_total_limit, or set save_strategy=no"
    )


@contextlib.contextmanager
def disk_errors(folder: str | Path) -> Iterator[None]:
    """Turn what libraries make of a full disk (safetensors' and torch's own errors, too) into one clear error.

    Raises:
        TrainingError: something could not be written because the disk is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, AccordanceError) or not _disk_is_full(error, folder):
            raise
        whole = last_complete_checkpoint(folder)
        raise TrainingError(
            "the disk is full: the run can't be written on",
            where=str(folder),
            found=f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free; {str(error).splitlines()[0]}",
            expected="space for checkpoints and the model",
            remedy="free some space, then go on with --resume"
            + (f" from {whole.name}, which is whole" if whole else " (no checkpoint was written to its end)")
            + "; or another --output-dir",
        ) from error


@contextlib.contextmanager
def nothing_left_of_a_failed_start(folder: str | Path, lead: bool = True) -> Iterator[None]:
    """Where a run ends in an error before it has a checkpoint, leave the folder open for the next try.

    Args:
        folder: of the run.
        lead: whether this process writes.
    """
    try:
        yield
    except BaseException:
        if lead and run_in(folder) == [RECIPE]:
            Path(folder, RECIPE).unlink()
        raise


def _disk_is_full(error: BaseException | None, folder: str | Path) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            return True
        if "inline_container" in str(error) or "iostream error" in str(error):  # torch.save names no reason
            return shutil.disk_usage(folder).free < 1 << 20
        error = error.__cause__ or error.__context__
    return False


def clear_run(folder: str | Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for pattern in _WRITTEN:
        for path in Path(folder).glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
