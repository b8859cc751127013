"""Inverse constitutional AI (arXiv:2406.06560): annotated pairs of texts, as csv or as one JSON document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from accordance.core.record import TEXT, Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable
from accordance.feedback.turns import as_messages, response

_SHAPE = re.compile(r"\s*Instruction:\s?(?P<prompt>.*?)\n\nOutput:\s?(?P<answer>.*)", re.DOTALL)
_VALUES = {
    "text_a": (1.0, 0.0),
    "text_b": (0.0, 1.0),
    "tie": (0.0, 0.0),
    "both": (0.0, 0.0),
    "neither": (0.0, 0.0),
}


@format("icai", "text_a text_b preferred_text")
def icai(row: Row) -> Record:
    """`text_a`, `text_b` and `preferred_text`, which names one of them.

    Texts written as ``Instruction: ... Output: ...`` with the same instruction give prompt and responses.
    """
    texts = [row.text("text_a"), row.text("text_b")]
    preferred = row.text("preferred_text").strip().lower()
    if preferred not in _VALUES:
        row.wrong("preferred_text", preferred, f"one of {', '.join(_VALUES)}")
    sources = [row.optional(f"model_{side}") for side in "ab"]
    shapes = [_SHAPE.fullmatch(text) for text in texts]
    if row.has("prompt"):
        prompt, roles = (Message("user", row.text("prompt")),), "assistant"
    elif all(shapes) and len({shape["prompt"] for shape in shapes if shape}) == 1:
        prompt, roles = (Message("user", shapes[0]["prompt"]),), "assistant"  # type: ignore[index]
        texts = [shape["answer"] for shape in shapes if shape]
    else:
        prompt, roles = (), TEXT
        row.note("no prompt in the pair: the whole texts are compared")
    responses = [
        response(row, [Message(roles, text)], f"text_{side}", source)
        for text, side, source in zip(texts, "ab", sources)
    ]
    judgment = Judgment("comparison", (0, 1), _VALUES[preferred], annotator=row.optional("annotator"))
    return row.record(prompt, responses, [judgment])


@format("annotated_pairs", "comparisons annotators", "comparisons metadata")
def annotated_pairs(row: Row) -> Iterator[Record]:
    """One JSON document with `comparisons`, each with two responses and `annotations` by annotator."""
    annotators = row["annotators"] if "annotators" in row.columns else {}
    if not isinstance(annotators, Mapping):
        row.wrong("annotators", annotators, "an object from annotator id to its description")
    row.optional("metadata")
    made = 0
    for item in row.listed("comparisons"):
        if not isinstance(item, Mapping):
            row.wrong("comparisons", item, '{"response_a": ..., "response_b": ..., "annotations": ...}')
        try:
            yield _comparison(row, item, annotators)
            made += 1
        except Unusable as problem:
            row.note(f"comparison left out: {problem.reason}")
    if not made:
        raise Unusable("no comparison that can be used")


def _comparison(row: Row, item: Mapping[str, Any], annotators: Mapping[str, Any]) -> Record:
    sides = [item.get("response_a") or item.get("text_a"), item.get("response_b") or item.get("text_b")]
    responses: list[Response] = []
    for side, name in zip(sides, "ab"):
        text, model = (side.get("text"), side.get("model")) if isinstance(side, Mapping) else (side, None)
        turns = as_messages(row, text, f"response_{name}", role="assistant")
        responses.append(response(row, turns, f"response_{name}", model))
    prompt = as_messages(row, item["prompt"], "prompt", role="user") if item.get("prompt") else ()
    judgments = []
    for who, said in (item.get("annotations") or {}).items():
        choice = str(said.get("pref") if isinstance(said, Mapping) else said).lower()
        if choice in ("none", "invalid", "not applicable", "not_applicable"):
            continue
        side = choice[-1:] if choice in ("a", "b", "text_a", "text_b", "response_a", "response_b") else choice
        if side not in ("a", "b", "tie", "both", "neither"):
            row.wrong("comparisons", choice, "a preference: a, b, tie, both or neither")
        described = annotators.get(who)
        label = described.get("name") if isinstance(described, Mapping) else None
        values = _VALUES[f"text_{side}" if side in ("a", "b") else side]
        judgments.append(Judgment("comparison", (0, 1), values, annotator=str(label or who)))
    extras = {"metadata": item["metadata"]} if item.get("metadata") else {}
    return row.record(
        prompt, responses, judgments, id=str(item["id"]) if item.get("id") else None, extras=extras
    )
