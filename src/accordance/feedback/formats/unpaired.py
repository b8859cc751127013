"""TRL's unpaired preference type: a completion and whether it was liked."""

from __future__ import annotations

from accordance.core.record import Judgment, Record
from accordance.feedback.formats.preference import prompt_and
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row


@format("unpaired", "prompt completion label")
def unpaired(row: Row) -> Record:
    """A `prompt`, a `completion` and a `label`: true for a thumb up, false for a thumb down."""
    prompt, (completion,) = prompt_and(row, "completion")
    return row.record(prompt, [completion], [Judgment("thumb", (0,), (float(row.flag("label")),))])
