"""LLaMA-Factory's thumbs: a conversation or an instruction with a `kto_tag`."""

from __future__ import annotations

from accordance.core.record import Judgment, Record
from accordance.feedback.formats.alpaca import alpaca_prompt
from accordance.feedback.formats.registry import format
from accordance.feedback.formats.sharegpt import last_answer
from accordance.feedback.row import Row
from accordance.feedback.turns import answer


@format("kto_tag", "messages kto_tag", "conversations kto_tag", "instruction output kto_tag")
def kto_tag(row: Row) -> Record:
    """A conversation (or `instruction` and `output`) whose answer got a thumb: `kto_tag` true or false."""
    judgment = Judgment("thumb", (0,), (float(row.flag("kto_tag")),))
    if "instruction" in row.columns:
        return row.record(alpaca_prompt(row), [answer(row, "output")], [judgment])
    prompt, last = last_answer(row)
    return row.record(prompt, [last], [judgment])
