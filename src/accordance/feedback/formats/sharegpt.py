"""ShareGPT: conversations of from-value turns; also with a chosen and a rejected answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accordance.core.record import Judgment, Message, Record, Response
from accordance.feedback.formats.preference import pair
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable, parsed
from accordance.feedback.turns import answer, messages, response, split_common


def _from_value(sample: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `conversations`, or else `chosen`, holds from-value turns (or role-content ones)."""
    for row in sample:
        turns = row.get("conversations") or row.get("chosen")
        turns = parsed(turns) if isinstance(turns, str) else turns
        turn = turns[0] if isinstance(turns, Sequence) and turns else turns
        if isinstance(turn, Mapping):
            return {"from", "value"} <= set(turn) or (
                "conversations" in row and {"role", "content"} <= set(turn)
            )
    return False


def conversation(row: Row) -> tuple[Message, ...]:
    """The turns, with the `system` text of the row before them."""
    turns = messages(row, "conversations" if row.has("conversations") else "messages", role="user")
    system = row.optional("system")
    return (Message("system", system), *turns) if system and turns[0].role != "system" else turns


def last_answer(row: Row) -> tuple[tuple[Message, ...], Response]:
    """(prompt, response): the assistant's last turn answers everything before it."""
    turns = conversation(row)
    if turns[-1].role != "assistant":
        raise Unusable("the conversation doesn't end with an answer")
    if len(turns) < 2:
        raise Unusable("no prompt before the answer")
    return turns[:-1], response(row, turns[-1:], "conversations")


@format(
    "sharegpt",
    "conversations",
    "conversations chosen rejected",
    "chosen rejected",
    matches=_from_value,
    rivals="kto_tag",
)
def sharegpt(row: Row) -> Record:
    """`conversations` of from-value turns, the last answer to imitate; or a `chosen` and a `rejected` one."""
    if "chosen" not in row.columns:
        prompt, last = last_answer(row)
        return row.record(prompt, [last], [Judgment("demonstration", (0,))])
    if "conversations" in row.columns:
        return pair(row, conversation(row), answer(row, "chosen"), answer(row, "rejected"))
    prompt, first, second = split_common(row, messages(row, "chosen"), messages(row, "rejected"))
    return pair(row, prompt, response(row, first, "chosen"), response(row, second, "rejected"))
