"""TRL's prompt-completion type: a prompt and the completion to imitate."""

from __future__ import annotations

from accordance.core.record import Judgment, Record
from accordance.feedback.formats.preference import prompt_and
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row


@format("prompt_completion", "prompt completion", rivals="chosen rejected label labels")
def prompt_completion(row: Row) -> Record:
    """A `prompt` and the `completion` to imitate."""
    prompt, (completion,) = prompt_and(row, "completion")
    return row.record(prompt, [completion], [Judgment("demonstration", (0,))])
