"""UltraFeedback (arXiv:2310.01377): several completions of an instruction, each rated by aspect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from accordance.core.record import Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable


@format("ultrafeedback", "instruction completions")
def ultrafeedback(row: Row) -> Record:
    """`completions` with `annotations`: one rating judgment per aspect, one critique per completion."""
    instruction = row.text("instruction")
    kept: list[Mapping[str, Any]] = []
    for item in row.listed("completions"):
        if not isinstance(item, Mapping) or "response" not in item:
            row.wrong("completions", item, 'a completion {"response": "...", "annotations": {...}}')
        if isinstance(item["response"], str) and item["response"].strip():
            kept.append(item)
        else:
            row.note("empty completion left out")
    if not kept:
        raise Unusable("no completion that says anything")
    responses = [Response.of(row.clean(item["response"]), source=item.get("model")) for item in kept]
    judgments: list[Judgment] = []
    for aspect in sorted({name for item in kept for name in item.get("annotations") or {}}):
        judgments += _ratings(row, [_rating(row, item, aspect) for item in kept], aspect)
    judgments += _ratings(row, [_float(row, item.get("overall_score")) for item in kept], "overall_score")
    for index, item in enumerate(kept):
        if item.get("critique"):
            judgments.append(Judgment("critique", (index,), text=row.clean(str(item["critique"]))))
    read = {"response", "model", "annotations", "overall_score", "critique"}
    rest = [{k: v for k, v in item.items() if k not in read and v is not None} for item in kept]
    extras = {"completions": rest} if any(rest) else {}
    return row.record((Message("user", instruction),), responses, judgments, extras=extras)


def _ratings(row: Row, values: list[float | None], aspect: str) -> list[Judgment]:
    rated = [(index, value) for index, value in enumerate(values) if value is not None]
    if not rated:
        return []
    if len(rated) < len(values):
        row.note(f"a completion without a rating of {aspect!r}")
    return [Judgment("rating", tuple(i for i, _ in rated), tuple(v for _, v in rated), attribute=aspect)]


def _rating(row: Row, item: Mapping[str, Any], aspect: str) -> float | None:
    annotation = (item.get("annotations") or {}).get(aspect)
    while isinstance(annotation, list):
        annotation = annotation[0] if annotation else None
    return _float(row, annotation.get("Rating") if isinstance(annotation, Mapping) else annotation)


def _float(row: Row, value: Any) -> float | None:
    """A rating; what stands for "not rated" is None."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "n/a", "none", "nan")):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    return row.as_number(value, "completions")
