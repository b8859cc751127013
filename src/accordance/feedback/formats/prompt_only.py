"""TRL's prompt-only type: prompts to write responses to."""

from __future__ import annotations

from accordance.core.record import Record
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row
from accordance.feedback.turns import messages

_RIVALS = "chosen rejected completion completions label labels response responses winner kto_tag score rating"


@format("prompt_only", "prompt", rivals=_RIVALS)
def prompt_only(row: Row) -> Record:
    """A `prompt` alone; other columns are kept as extras."""
    return row.record(messages(row, "prompt"))
