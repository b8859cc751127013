"""Our own rows: what `save_records` writes, one record per row with the columns of `FEATURES`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from accordance.core.record import KINDS, Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, parsed

_NEEDED = "prompt responses judgments"


def _ours(sample: Sequence[Mapping[str, Any]]) -> bool:
    return all(not isinstance(row.get("responses"), str) for row in sample)


@format("accordance", _NEEDED, matches=_ours)
def accordance(row: Row) -> Record:
    """Records as `save_records` writes them, exact."""
    extras = row.raw.get("extras") or {}
    if isinstance(extras, str):
        extras = parsed(extras)
    if not isinstance(extras, Mapping):
        row.wrong("extras", extras, "an object, or JSON text of one")
    responses = tuple(_response(row, item) for item in row.listed("responses"))
    return Record(
        tuple(_message(row, item, "prompt") for item in row.listed("prompt")),
        responses,
        tuple(_judgment(row, item, len(responses)) for item in row.listed("judgments")),
        _given(row, "id", str(row.index)),
        _given(row, "origin", str(row.place)),
        dict(extras),
    )


def _given(row: Row, column: str, otherwise: str) -> str:
    value = row.raw.get(column)
    return otherwise if value is None else row.clean(str(value))


def _message(row: Row, item: Any, column: str) -> Message:
    if not isinstance(item, Mapping) or not all(isinstance(item.get(key), str) for key in ("role", "content")):
        row.wrong(column, item, 'a message {"role": "...", "content": "..."}')
    return Message(row.clean(item["role"]), row.clean(item["content"]))


def _response(row: Row, item: Any) -> Response:
    if not isinstance(item, Mapping) or not isinstance(item.get("messages"), Sequence):
        row.wrong("responses", item, 'a response {"messages": [...], "source": null, "steps": []}')
    turns = tuple(_message(row, turn, "responses") for turn in item["messages"])
    return Response(turns, item.get("source"), tuple(item.get("steps") or ()))


def _judgment(row: Row, item: Any, responses: int) -> Judgment:
    if not isinstance(item, Mapping) or item.get("kind") not in KINDS:
        row.wrong("judgments", item, f"a judgment whose kind is one of {', '.join(KINDS)}")
    unknown = sorted(set(item) - set(Judgment.__dataclass_fields__))
    if unknown:
        row.wrong("judgments", unknown, f"only the fields {', '.join(Judgment.__dataclass_fields__)}")
    judged = tuple(item.get("responses") or ())
    if any(not isinstance(i, int) or not 0 <= i < responses for i in judged):
        row.wrong("judgments", list(judged), f"indices of the {responses} responses, from 0")
    values = tuple(row.as_number(value, "judgments") for value in item.get("values") or ())
    wanted = None if item["kind"] in ("steps", "critique", "demonstration", "incomparable") else len(judged)
    if wanted is not None and len(values) != wanted:
        row.wrong("judgments", list(values), f"one value per judged response, here {wanted}")
    return Judgment(**{**item, "responses": judged, "values": values})


def as_json(record: Record) -> str:
    """One line of our own JSONL."""
    row = record.to_row()
    row["extras"] = json.loads(row["extras"]) if row["extras"] else {}
    return json.dumps(row, ensure_ascii=False)
