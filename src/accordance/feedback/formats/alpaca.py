"""Alpaca: an instruction, perhaps with an input, and the output; also with a chosen and a rejected one."""

from __future__ import annotations

from accordance.core.record import Judgment, Message, Record
from accordance.feedback.formats.preference import pair
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row
from accordance.feedback.turns import answer


def alpaca_prompt(row: Row) -> tuple[Message, ...]:
    """The `system` text, earlier turns in `history`, and `instruction` with `input` as one user turn."""
    turns = [Message("system", system)] if (system := row.optional("system")) else []
    if row.has("history"):
        for exchange in row.listed("history"):
            if isinstance(exchange, str) or len(exchange) != 2:
                row.wrong("history", exchange, "a list of [what was asked, what was answered]")
            turns += [Message("user", str(exchange[0])), Message("assistant", str(exchange[1]))]
    parts = [row.text("instruction"), row.optional("input") or ""]
    return (*turns, Message("user", "\n\n".join(part for part in parts if part.strip())))


@format("alpaca", "instruction output", "instruction chosen rejected", rivals="kto_tag")
def alpaca(row: Row) -> Record:
    """An `instruction` (and `input`) with an `output` to imitate, or a `chosen` and a `rejected` one."""
    prompt = alpaca_prompt(row)
    if row.has("chosen") or "output" not in row.columns:
        return pair(row, prompt, answer(row, "chosen"), answer(row, "rejected"))
    return row.record(prompt, [answer(row, "output")], [Judgment("demonstration", (0,))])
