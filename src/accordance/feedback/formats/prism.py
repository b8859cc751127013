"""PRISM (arXiv:2404.16019): people of many countries rate up to four models in the turns of a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from accordance.core.record import Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable


@format(
    "prism",
    "conversation_id user_id turn user_prompt model_response score",
    join=lambda row: row.raw.get("conversation_id"),
)
def prism(rows: list[Row]) -> Iterator[Record]:
    """Utterances: neighbouring rows of one conversation; one record per turn, its responses rated 1 to 100.

    The chosen response of a turn (`if_chosen`) is part of the next turn's prompt.
    """
    turns: dict[float, list[Row]] = {}
    for row in rows:
        turns.setdefault(row.number("turn"), []).append(row)
    shown = {turn: [_said(row) for row in turns[turn]] for turn in sorted(turns)}
    first = rows[0]
    yield from _records(first, first.optional("conversation_id"), first.optional("user_id"), shown)


@format("prism_conversations", "conversation_id user_id conversation_history")
def prism_conversations(row: Row) -> Iterator[Record]:
    """Whole conversations with a `conversation_history` of turns; one record per turn, as for utterances."""
    shown: dict[float, list[dict[str, Any]]] = {}
    asked: dict[float, str] = {}
    for turn in row.listed("conversation_history"):
        if not isinstance(turn, Mapping) or not {"turn", "role", "content"} <= set(turn):
            row.wrong("conversation_history", turn, 'a list of {"turn": ..., "role": ..., "content": ...}')
        number = row.as_number(turn["turn"], "conversation_history")
        if turn["role"] == "user":
            asked[number] = str(turn["content"])
        else:
            score = turn.get("score")
            said = {
                "prompt": asked.get(number, ""),
                "text": str(turn["content"]),
                "model": turn.get("model_name"),
                "score": None if score is None else row.as_number(score, "conversation_history"),
                "chosen": bool(turn.get("if_chosen")),
            }
            shown.setdefault(number, []).append(said)
    yield from _records(row, row.optional("conversation_id"), row.optional("user_id"), shown)


def _said(row: Row) -> dict[str, Any]:
    for column in ("utterance_id", "interaction_id", "within_turn_id", "model_provider"):
        row.optional(column)
    return {
        "prompt": row.text("user_prompt"),
        "text": row.text("model_response", empty=True),
        "model": row.optional("model_name"),
        "score": row.number("score") if row.has("score") else None,
        "chosen": row.has("if_chosen") and row.flag("if_chosen"),
    }


def _records(
    row: Row, name: str | None, annotator: str | None, turns: dict[float, list[dict[str, Any]]]
) -> Iterator[Record]:
    before: tuple[Message, ...] = ()
    if not turns:
        raise Unusable("a conversation without responses")
    for number in sorted(turns):
        said = [each for each in turns[number] if each["text"].strip()]
        if len(said) < len(turns[number]):
            row.note("empty response left out")
        if not said or not said[0]["prompt"].strip():
            raise Unusable("a turn without a prompt or without a response")
        prompt = (*before, Message("user", row.clean(said[0]["prompt"])))
        responses = [Response.of(row.clean(each["text"]), source=each["model"]) for each in said]
        rated = [(i, each["score"]) for i, each in enumerate(said) if each["score"] is not None]
        places, values = tuple(i for i, _ in rated), tuple(score for _, score in rated)
        judgments = [Judgment("rating", places, values, annotator=annotator)] if rated else []
        chosen = next((i for i, each in enumerate(said) if each["chosen"]), None)
        extras = {"conversation_id": name, "turn": int(number), "chosen": chosen}
        known = {key: value for key, value in extras.items() if value is not None}
        yield row.record(
            prompt, responses, judgments, id=f"{name}-{int(number)}" if name else None, extras=known
        )
        if chosen is None:
            return
        before = (*prompt, Message("assistant", responses[chosen].text))
