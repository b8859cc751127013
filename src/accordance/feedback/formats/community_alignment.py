"""Community Alignment (arXiv:2507.09650): people choose one of four responses, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator

from accordance.core.record import Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable

_TURNS = ("first", "second", "third", "fourth")


@format(
    "community_alignment",
    "first_turn_prompt first_turn_response_a first_turn_response_b first_turn_preferred_response",
)
def community_alignment(row: Row) -> Iterator[Record]:
    """Up to four turns, each with responses a to d and the preferred one: one record per turn.

    The group is the annotator's country, else the language. The preferred response leads to the next turn.
    """
    annotator = row.optional("annotator_id")
    country, language = row.optional("annotator_country"), row.optional("assigned_lang")
    name = row.optional("conversation_id")
    told = {"annotator_country": country, "assigned_lang": language, "conversation_id": name}
    read = [_turn(row, turn) for turn in _TURNS]
    extras = {key: value for key, value in told.items() if value is not None}
    before: tuple[Message, ...] = ()
    for number, each in enumerate(read, 1):
        if each is None:
            if number == 1:
                raise Unusable("no preferred response in the first turn")
            return
        asked, shown, best, reason = each
        before = (*before, Message("user", asked))
        values = tuple(float(index == best) for index in range(len(shown)))
        judgment = Judgment(
            "comparison", tuple(range(len(shown))), values, reason, annotator, country or language
        )
        responses = [Response.of(text) for text in shown]
        yield row.record(
            before,
            responses,
            [judgment],
            id=f"{name}-{number}" if name else None,
            extras={**extras, "turn": number},
        )
        before = (*before, Message("assistant", shown[best]))


def _turn(row: Row, turn: str) -> tuple[str, list[str], int, str | None] | None:
    """(prompt, responses, index of the preferred one, reason) of a turn; None where it wasn't taken."""
    preferred, asked = row.optional(f"{turn}_turn_preferred_response"), row.optional(f"{turn}_turn_prompt")
    given = {side: row.optional(f"{turn}_turn_response_{side}") for side in "abcd"}
    reason = row.optional(f"{turn}_turn_feedback")
    shown = {side: text for side, text in given.items() if text and text.strip()}
    if not preferred or not asked or not asked.strip():
        return None
    side = preferred.strip().lower()[-1:]
    if side not in "abcd":
        row.wrong(f"{turn}_turn_preferred_response", preferred, "response_a, _b, _c or _d")
    if side not in shown:
        raise Unusable("the preferred response is empty")
    return asked, list(shown.values()), list(shown).index(side), reason
