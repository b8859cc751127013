"""Messages out of what the formats hold: strings, role-content lists, from-value lists, transcripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from accordance.core.record import TEXT, Message, Response
from accordance.feedback.row import Row, Unusable, parsed

#: The names that sharegpt and its descendants give to who speaks.
SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
_EXPECTED = 'a string or a list of messages [{"role": ..., "content": ...}]'


def messages(row: Row, column: str, *, role: str = TEXT) -> tuple[Message, ...]:
    """What a column says, as messages.

    Args:
        row: the row.
        column: its column.
        role: who speaks where the column holds a plain string.

    Raises:
        Unusable: it is null or empty.
        DataError: it is neither a string nor a list of messages.
    """
    return as_messages(row, row[column], column, role=role)


def as_messages(row: Row, value: Any, column: str, *, role: str = TEXT) -> tuple[Message, ...]:
    """The same for a value found in `column`."""
    if value is None:
        raise Unusable(f"null {column!r}", "text or messages")
    if isinstance(value, str) and row.place.cells:
        value = parsed(value)
    if isinstance(value, str):
        if not value.strip():
            raise Unusable(f"empty {column!r}", "text that is more than blanks")
        return (Message(role, row.clean(value)),)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        row.wrong(column, value, _EXPECTED)
    if not value:
        raise Unusable(f"empty {column!r}", "text that is more than blanks")
    return tuple(_message(row, turn, column) for turn in value)


def _message(row: Row, turn: Any, column: str) -> Message:
    if not isinstance(turn, Mapping):
        row.wrong(column, turn, _EXPECTED)
    if "role" in turn and "content" in turn:
        known, role, content = {"role", "content"}, turn["role"], turn["content"]
    elif "from" in turn and "value" in turn:
        known, content = {"from", "value"}, turn["value"]
        role = SPEAKERS.get(str(turn["from"]).lower())
        if role is None:
            row.wrong(column, turn["from"], f"a speaker: one of {', '.join(sorted(SPEAKERS))}")
    else:
        row.wrong(column, dict(turn), _EXPECTED)
    if not isinstance(role, str) or not role:
        row.wrong(column, role, "a role such as 'user' or 'assistant'")
    for name in sorted(
        key for key, item in turn.items() if key not in known and item not in (None, [], "", {})
    ):
        row.note(f"message field {name!r} left out")
    return Message(role, _content(row, content, column))


def _content(row: Row, content: Any, column: str) -> str:
    """The text of a message; of a list of parts, the text parts joined."""
    if content is None:
        row.note("a message without content read as empty")
        return ""
    if isinstance(content, str):
        return row.clean(content)
    if not isinstance(content, Sequence):
        row.wrong(column, content, "a message whose content is a string")
    texts = []
    for part in content:
        if (
            isinstance(part, Mapping)
            and isinstance(part.get("text"), str)
            and part.get("type", "text") == "text"
        ):
            texts.append(row.clean(part["text"]))
        else:
            kind = part.get("type", "unknown") if isinstance(part, Mapping) else type(part).__name__
            row.note(f"message part of type {kind!r} left out of the text")
    return "\n".join(texts)


def response(row: Row, turns: Sequence[Message], column: str, source: str | None = None) -> Response:
    """A response of these turns.

    Raises:
        Unusable: it says nothing.
    """
    if not any(turn.content.strip() for turn in turns):
        raise Unusable(f"empty {column!r}", "text that is more than blanks")
    return Response(tuple(turns), source)


def answer(row: Row, column: str, source: str | None = None) -> Response:
    """The response in a column of chat data: a string is what the assistant says."""
    return response(row, messages(row, column, role="assistant"), column, source)


def split_common(
    row: Row, first: Sequence[Message], second: Sequence[Message]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """(prompt, rest of the first, rest of the second): the longest common beginning is the prompt.

    Each side keeps at least one message, and where both go on with their user the assistant's turn before is
    not cut off from what it answers.

    Raises:
        Unusable: nothing is common.
    """
    most = min(len(first), len(second))
    length = 0
    while length < most and first[length] == second[length]:
        length += 1
    if length == most:  # one continues the other, or they are the same: the last shared answer is judged
        length -= 1
        while length > 0 and first[length].role != "assistant":
            length -= 1
    if length <= 0:
        raise Unusable("no common prompt")
    return tuple(first[:length]), tuple(first[length:]), tuple(second[length:])


def split_text(first: str, second: str) -> tuple[str, str, str]:
    """(prompt, rest of the first, rest of the second) of two strings, cut between words.

    The longest common beginning, taken back to the last white space so that no word is torn apart; the white
    space begins the completions, so that prompt + completion is the text as it was. Where the common part has
    no white space it is cut between characters (never before a combining mark or inside a joined emoji).

    Raises:
        Unusable: nothing is common, or the two are the same.
    """
    if first == second:
        raise Unusable("chosen and rejected are the same and no prompt tells them apart")
    most = min(len(first), len(second))
    length = 0
    while length < most and first[length] == second[length]:
        length += 1
    if length == most:
        raise Unusable("one response is the beginning of the other: nothing is left of it")
    cut = length
    if not (first[cut].isspace() and second[cut].isspace()):
        spaces = [match.start() for match in re.finditer(r"\s+", first[:length])]
        if spaces:
            cut = spaces[-1]
        else:
            while cut > 0 and (_joins(first, cut) or _joins(second, cut)):
                cut -= 1
    if not first[:cut].strip():
        raise Unusable("no common prompt")
    return first[:cut], first[cut:], second[cut:]


def _joins(text: str, at: int) -> bool:
    """Whether the characters before and at `at` belong together."""
    return bool(unicodedata.combining(text[at])) or "‍" in text[at - 1 : at + 1] or text[at] == "️"


_TURN = re.compile(r"\n\n(Human|Assistant):")


def transcript(text: str) -> list[Message] | None:
    """The turns of a transcript with ``Human:`` and ``Assistant:`` lines; None where it is no transcript.

    Args:
        text: such as ``"\\n\\nHuman: hello\\n\\nAssistant: hi"`` (arXiv:2204.05862).
    """
    parts = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if parts[0].strip() or len(parts) < 3:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[parts[i]], parts[i + 1].strip()) for i in range(1, len(parts), 2)]
