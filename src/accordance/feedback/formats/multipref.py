"""MultiPref (arXiv:2410.19133): two completions compared by four people each, overall and by aspect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accordance.core.record import Judgment, Record
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row
from accordance.feedback.turns import answer, messages

_CHOICES = {
    "a-is-clearly-better": ((1.0, 0.0), 2.0),
    "a-is-slightly-better": ((1.0, 0.0), 1.0),
    "tie": ((0.0, 0.0), None),
    "b-is-slightly-better": ((0.0, 1.0), 1.0),
    "b-is-clearly-better": ((0.0, 1.0), 2.0),
}
_ASPECTS = {
    "overall_pref": None,
    "helpful_pref": "helpfulness",
    "truthful_pref": "truthfulness",
    "harmless_pref": "harmlessness",
}
_GROUPS = {"normal_worker_annotations": "normal", "expert_worker_annotations": "expert"}


@format(
    "multipref",
    "completion_a completion_b normal_worker_annotations",
    "completion_a completion_b expert_worker_annotations",
)
def multipref(row: Row) -> Record:
    """`completion_a` and `completion_b`, compared by normal and expert annotators on four questions."""
    prompt = messages(row, "text" if "text" in row.columns else "prompt", role="user")
    responses = [answer(row, f"completion_{side}", row.optional(f"model_{side}")) for side in "ab"]
    judgments: list[Judgment] = []
    for column, group in _GROUPS.items():
        for said in row.listed(column) if row.has(column) else []:
            if not isinstance(said, Mapping):
                row.wrong(column, said, 'a list of {"evaluator": ..., "overall_pref": ...}')
            judgments += _said(row, said, group, column)
    return row.record(prompt, responses, judgments, id=row.optional("comparison_id"))


def _said(row: Row, said: Mapping[str, Any], group: str, column: str) -> list[Judgment]:
    judgments = []
    for question, attribute in _ASPECTS.items():
        choice = said.get(question)
        if choice is None:
            continue
        if str(choice).lower() not in _CHOICES:
            row.wrong(column, choice, f"{question}: one of {', '.join(_CHOICES)}")
        values, strength = _CHOICES[str(choice).lower()]
        who = said.get("evaluator")
        judgments.append(
            Judgment(
                "comparison",
                (0, 1),
                values,
                annotator=None if who is None else str(who),
                group=group,
                attribute=attribute,
                strength=strength,
            )
        )
    return judgments
