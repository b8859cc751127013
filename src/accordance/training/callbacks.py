"""What a run does beside its steps: it stops when told to, and tells how far it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

#: Called with (stage, done, total): what a run is doing and how far it is.
Progress = Callable[[str, int, int], object]


class StopOnSignal(TrainerCallback):
    """Ctrl-C ends the step, writes a checkpoint and stops; a second one stops at once."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: Any = None

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the trainer to save and stop; all processes at the same step, whichever was told first."""
        if args.world_size > 1:
            told = torch.tensor(float(self.stopped), device=args.device)
            torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
            self.stopped = bool(told)
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True


class ProgressCallback(TrainerCallback):
    """Tells a run's progress to whoever shows it."""

    def __init__(self, note: Progress) -> None:
        self.note = note

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One more step is done."""
        self.note("train", state.global_step, state.max_steps)
