"""TRL's stepwise type: a response in steps, each judged."""

from __future__ import annotations

from accordance.core.record import TEXT, Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable
from accordance.feedback.turns import messages


@format("stepwise", "prompt completions labels")
def stepwise(row: Row) -> Record:
    """A `prompt`, the steps of its response in `completions`, and one label per step.

    The steps are joined by line ends; where all but the last end in white space they are joined as they are.
    """
    prompt = messages(row, "prompt")
    steps, labels = row.listed("completions"), row.listed("labels")
    if not all(isinstance(step, str) for step in steps):
        row.wrong("completions", steps, "a list of strings")
    if not any(step.strip() for step in steps):
        raise Unusable("empty 'completions'")
    if len(steps) != len(labels):
        row.wrong("labels", labels, f"one label per step, here {len(steps)}")
    values = tuple(
        float(row.as_flag(each, "labels")) if isinstance(each, (bool, str)) else row.as_number(each, "labels")
        for each in labels
    )
    steps = [row.clean(step) for step in steps]
    between = "" if all(step[-1:].isspace() for step in steps[:-1]) else "\n"
    role = TEXT if prompt[0].role == TEXT else "assistant"
    whole = Response((Message(role, between.join(steps)),), steps=tuple(steps))
    return row.record(prompt, [whole], [Judgment("steps", (0,), values)])
