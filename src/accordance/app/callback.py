"""Shows loss and accuracy beside the progress bar."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

_SHOWN = (("loss", "loss"), ("rewards/accuracies", "accuracy"), ("rewards/margins", "margin"))


class ShowMetrics(TrainerCallback):
    """Passes what is logged to the progress display.

    Args:
        note: the callback of `Terminal.progress`.
    """

    def __init__(self, note: Any) -> None:
        self.remark = getattr(note, "remark", None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the newest numbers."""
        parts = [f"{label} {float(logs[key]):.3f}" for key, label in _SHOWN if logs and key in logs]
        if parts and self.remark is not None:
            self.remark("train", "  ".join(parts))
