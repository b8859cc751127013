"""LMArena (Chatbot Arena): two models answer, a visitor says which one won."""

from __future__ import annotations

from accordance.core.record import Judgment, Message, Record
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable, parsed
from accordance.feedback.turns import messages, response, split_common

_VALUES = {
    "model_a": (1.0, 0.0),
    "model_b": (0.0, 1.0),
    "tie": (0.0, 0.0),
    "tie (bothbad)": (0.0, 0.0),
    "both_bad": (0.0, 0.0),
    "bothbad": (0.0, 0.0),
}
_FLAGS = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}


@format(
    "lmarena",
    "model_a model_b winner conversation_a conversation_b",
    "model_a model_b winner prompt response_a response_b",
    "prompt response_a response_b winner_model_a winner_model_b winner_tie",
)
def lmarena(row: Row) -> Record:
    """Conversations (or answers) of `model_a` and `model_b`, and the `winner`; ties are tie judgments."""
    winner = _winner(row)
    sources = row.optional("model_a"), row.optional("model_b")
    if "conversation_a" in row.columns:
        first, second = messages(row, "conversation_a"), messages(row, "conversation_b")
        prompt, *sides = split_common(row, first, second)
    else:
        prompt, sides = _turns(row)
    responses = [response(row, turns, side, name) for turns, side, name in zip(sides, ("a", "b"), sources)]
    judge, language = row.optional("judge"), row.optional("language")
    judgment = Judgment(
        "comparison",
        (0, 1),
        _VALUES[winner],
        text="both are bad" if "bad" in winner else None,
        annotator=judge,
    )
    extras = {"language": language} if language else {}
    return row.record(
        prompt, responses, [judgment], id=row.optional("question_id") or row.optional("id"), extras=extras
    )


def _winner(row: Row) -> str:
    if "winner" not in row.columns:
        won = [name for column, name in _FLAGS.items() if row.flag(column)]
        if len(won) != 1:
            row.wrong("winner_model_a", won, "1 in exactly one of winner_model_a, winner_model_b, winner_tie")
        return won[0]
    value = row.text("winner")
    name = value.strip().lower()
    if name not in _VALUES:
        row.wrong("winner", value, f"one of {', '.join(_VALUES)}")
    return name


def _turns(row: Row) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """Prompt and the two sides where each column is a string, a list of strings (one per turn), or messages."""
    asked = _strings(row, "prompt")
    first, second = _strings(row, "response_a"), _strings(row, "response_b")
    if asked is None or first is None or second is None:
        prompt = messages(row, "prompt", role="user")
        return prompt, [messages(row, side, role="assistant") for side in ("response_a", "response_b")]
    sides = []
    for side, column in ((first, "response_a"), (second, "response_b")):
        if len(side) != len(asked):
            row.wrong(column, side, f"as many answers as prompts, here {len(asked)}")
        later = [m for q, a in zip(asked[1:], side[1:]) for m in (Message("user", q), Message("assistant", a))]
        sides.append((Message("assistant", side[0]), *later))
    return (Message("user", asked[0]),), sides


def _strings(row: Row, column: str) -> list[str] | None:
    """The turns of a column that holds a string or a list of strings (nulls are empty); None for messages."""
    value = row[column]
    value = parsed(value) if isinstance(value, str) else value
    if isinstance(value, str):
        value = [value]
    if value is None:
        raise Unusable(f"null {column!r}", "text or messages")
    if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
        return None
    if not value or not any((item or "").strip() for item in value):
        raise Unusable(f"empty {column!r}", "text that is more than blanks")
    return [row.clean(item or "") for item in value]
