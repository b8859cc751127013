"""HelpSteer3 (arXiv:2505.11475): two responses to a conversation, preferred with a strength of -3 to 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accordance.core.record import Judgment, Record
from accordance.feedback.formats.helpsteer2 import stronger
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row
from accordance.feedback.turns import answer, messages


@format("helpsteer3", "context response1 response2 overall_preference")
def helpsteer3(row: Row) -> Record:
    """A `context`, two responses and `overall_preference`: -3 the first is much better, 3 the second is.

    What single annotators said of a response becomes a critique of it; their scores (of which the overall one
    is made) stay in the extras, so that no preference counts twice.
    """
    strength = row.number("overall_preference")
    if not -3 <= strength <= 3:
        row.wrong("overall_preference", strength, "a number from -3 to 3")
    judgments = [stronger(strength)]
    single: list[Mapping[str, Any]] = []
    for said in row.listed("individual_preference") if row.has("individual_preference") else []:
        if not isinstance(said, Mapping):
            row.wrong("individual_preference", said, 'a list of {"score": ..., "reasoning": ...}')
        for index, column in enumerate(("feedback1", "feedback2")):
            if said.get(column):
                judgments.append(Judgment("critique", (index,), text=row.clean(str(said[column]))))
        single.append({k: v for k, v in said.items() if k not in ("feedback1", "feedback2") and v is not None})
    prompt = messages(row, "context", role="user")
    responses = [answer(row, "response1"), answer(row, "response2")]
    extras = {"individual_preference": single} if any(single) else {}
    return row.record(prompt, responses, judgments, extras=extras)
