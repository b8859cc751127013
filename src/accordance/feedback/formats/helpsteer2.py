"""HelpSteer2 (arXiv:2406.08673): responses rated on five attributes, and pairs with a strength."""

from __future__ import annotations

import re

from accordance.core.record import Judgment, Message, Record
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable
from accordance.feedback.turns import answer, messages

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_MARK = re.compile(r"<extra_id_1>(User|Assistant)\n")


def _prompt(row: Row) -> tuple[Message, ...]:
    """The prompt; earlier turns stand in one string between marks."""
    turns = messages(row, "prompt", role="user")
    parts = _MARK.split(turns[0].content)
    if len(turns) > 1 or len(parts) == 1:
        return turns
    roles = ["user", *(name.lower() for name in parts[1::2])]
    return tuple(Message(role, text.strip("\n")) for role, text in zip(roles, parts[0::2]))


@format("helpsteer2", "prompt response " + " ".join(ATTRIBUTES), join=lambda row: str(row.raw.get("prompt")))
def helpsteer2(rows: list[Row]) -> Record:
    """Responses to one `prompt` in neighbouring rows, each rated on five attributes from 0 to 4."""
    first = rows[0]
    responses = [answer(row, "response") for row in rows]
    judgments = [
        Judgment("rating", tuple(range(len(rows))), tuple(row.number(name) for row in rows), attribute=name)
        for name in ATTRIBUTES
    ]
    return first.record(_prompt(first), responses, judgments)


@format("helpsteer2_preference", "prompt response_1 response_2 preference_strength")
def helpsteer2_preference(row: Row) -> Record:
    """Two responses and a `preference_strength` from -3 (the first is much better) to 3 (the second is)."""
    strength = row.number("preference_strength")
    if not -3 <= strength <= 3:
        if abs(strength) == 100:
            raise Unusable("the annotators agreed on no preference")
        row.wrong("preference_strength", strength, "a number from -3 to 3")
    reason = row.optional("preference_elaboration") or row.optional("preference_statement")
    judgment = stronger(strength, text=reason)
    return row.record(_prompt(row), [answer(row, "response_1"), answer(row, "response_2")], [judgment])


def stronger(strength: float, *, text: str | None = None) -> Judgment:
    """The comparison that a signed strength says: below zero for the first response, above for the second."""
    values = (1.0, 0.0) if strength < 0 else (0.0, 1.0) if strength > 0 else (0.0, 0.0)
    return Judgment("comparison", (0, 1), values, text=text, strength=abs(strength) if strength else None)
