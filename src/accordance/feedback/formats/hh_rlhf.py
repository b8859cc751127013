"""HH-RLHF (arXiv:2204.05862): two transcripts that part at the assistant's last turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accordance.core.record import Message, Record
from accordance.feedback.formats.preference import pair
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable
from accordance.feedback.turns import response, transcript


def _transcripts(sample: Sequence[Mapping[str, Any]]) -> bool:
    texts = [row.get(side) for row in sample for side in ("chosen", "rejected")]
    texts = [text for text in texts if isinstance(text, str) and text.strip()]
    return bool(texts) and all(text.lstrip().startswith(("Human:", "Assistant:")) for text in texts)


@format("hh_rlhf", "chosen rejected", matches=_transcripts, rivals="prompt")
def hh_rlhf(row: Row) -> Record:
    """Transcripts with ``Human:`` and ``Assistant:`` turns; the dialogue before the last turn is the prompt."""
    sides = {side: _turns(row, side) for side in ("chosen", "rejected")}
    if sides["chosen"][:-1] != sides["rejected"][:-1]:
        raise Unusable("no common prompt")
    prompt = tuple(sides["chosen"][:-1])
    if not any(turn.content for turn in prompt):
        raise Unusable("empty prompt")
    chosen, rejected = (response(row, turns[-1:], side) for side, turns in sides.items())
    return pair(row, prompt, chosen, rejected)


def _turns(row: Row, side: str) -> list[Message]:
    text = row.text(side)
    turns = transcript(text)
    if turns is None:
        row.wrong(side, text[:80], "a transcript that begins with '\\n\\nHuman:'", "pass format='preference'")
    if turns[-1].role != "assistant":
        raise Unusable(f"{side!r} doesn't end with an answer")
    return turns
