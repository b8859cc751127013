"""TRL's language modelling type: whole texts or conversations to imitate."""

from __future__ import annotations

from accordance.core.record import Judgment, Record
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row
from accordance.feedback.turns import messages, response


@format("language_modelling", "text", "messages", rivals="chosen rejected completion completions kto_tag")
def language_modelling(row: Row) -> Record:
    """A whole `text` or `messages` to imitate: the prompt is empty, all of it is the response."""
    column = "messages" if row.has("messages") else "text"
    whole = response(row, messages(row, column), column)
    return row.record((), [whole], [Judgment("demonstration", (0,))])
