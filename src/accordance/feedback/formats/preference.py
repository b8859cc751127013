"""TRL's preference type: a chosen and a rejected response, with the prompt in its own column or implicit."""

from __future__ import annotations

from accordance.core.record import TEXT, Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable
from accordance.feedback.turns import messages, response, split_common, split_text

#: What the account says of pairs in which nothing tells the two responses apart.
IDENTICAL = "chosen and rejected are the same"


@format("preference", "prompt chosen rejected", "chosen rejected")
def preference(row: Row) -> Record:
    """A `chosen` and a `rejected` response; without a `prompt` it is what they have in common."""
    if "prompt" in row.columns:
        prompt, (chosen, rejected) = prompt_and(row, "chosen", "rejected")
    else:
        prompt, chosen, rejected = implicit(row)
    return pair(row, prompt, chosen, rejected)


def pair(
    row: Row, prompt: tuple[Message, ...], chosen: Response, rejected: Response, **judged: object
) -> Record:
    """The record of a chosen and a rejected response; identical ones are kept and noted."""
    if chosen.messages == rejected.messages:
        row.note(IDENTICAL)
    judgment = Judgment("comparison", (0, 1), (1.0, 0.0))
    return row.record(prompt, [chosen, rejected], [judgment])


def prompt_and(row: Row, *columns: str) -> tuple[tuple[Message, ...], list[Response]]:
    """The prompt and the responses in `columns`.

    Where one side is a conversation and the other a string, the string becomes a turn of it. Completions
    that repeat the prompt are freed of it, with a note.
    """
    prompt = messages(row, "prompt")
    completions = [messages(row, column) for column in columns]
    if any(turns[0].role != TEXT for turns in (prompt, *completions)):
        prompt = _spoken(prompt, "user")
        completions = [_spoken(turns, "assistant") for turns in completions]
        if all(len(turns) > len(prompt) and turns[: len(prompt)] == prompt for turns in completions):
            completions = [turns[len(prompt) :] for turns in completions]
            row.note("the responses repeated the prompt; it was taken off them")
        elif len(prompt) == 1 and all(turns[0].role in ("system", "user") for turns in completions):
            prompt, completions = _whole(row, completions)
    return prompt, [response(row, turns, column) for turns, column in zip(completions, columns)]


def _whole(row: Row, whole: list[tuple[Message, ...]]) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """Completions that are whole conversations of their own: their common beginning is the prompt."""
    row.note("the responses are whole conversations; their common beginning replaced the prompt column")
    if len(whole) == 1:
        if len(whole[0]) < 2:
            raise Unusable("the completion has no answer in it")
        return whole[0][:-1], [whole[0][-1:]]
    prompt, *rest = split_common(row, whole[0], whole[1])
    return prompt, rest


def _spoken(turns: tuple[Message, ...], role: str) -> tuple[Message, ...]:
    return tuple(Message(role, turn.content) if turn.role == TEXT else turn for turn in turns)


def implicit(row: Row) -> tuple[tuple[Message, ...], Response, Response]:
    """Prompt, chosen and rejected where the two carry the prompt in them."""
    chosen, rejected = messages(row, "chosen"), messages(row, "rejected")
    plain = [turns[0].role == TEXT for turns in (chosen, rejected)]
    if all(plain):
        prompt, first, second = split_text(chosen[0].content, rejected[0].content)
        sides = ((Message(TEXT, prompt),), (Message(TEXT, first),), (Message(TEXT, second),))
    elif any(plain):
        row.wrong("rejected", row["rejected"], "both chosen and rejected strings, or both messages")
    else:
        sides = split_common(row, chosen, rejected)
    return sides[0], response(row, sides[1], "chosen"), response(row, sides[2], "rejected")
