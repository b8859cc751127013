"""PKU-SafeRLHF (arXiv:2406.15513): which of two responses is better, and which is safer."""

from __future__ import annotations

from accordance.core.record import Judgment, Message, Record
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row
from accordance.feedback.turns import answer

_COLUMNS = {"better_response_id": "helpfulness", "safer_response_id": "harmlessness"}


@format(
    "pku_saferlhf",
    "prompt response_0 response_1 better_response_id",
    "prompt response_0 response_1 safer_response_id",
)
def pku_saferlhf(row: Row) -> Record:
    """Two responses: `better_response_id` compares helpfulness, `safer_response_id` harmlessness.

    `is_response_0_safe` and `is_response_1_safe` are thumbs on harmlessness.
    """
    responses = [answer(row, f"response_{i}", row.optional(f"response_{i}_source")) for i in range(2)]
    judgments = []
    for column, attribute in _COLUMNS.items():
        if column not in row.columns:
            continue
        better = row.number(column)
        if better in (0, 1):
            judgments.append(Judgment("comparison", (0, 1), (1.0 - better, better), attribute=attribute))
        elif better == -1:
            judgments.append(Judgment("comparison", (0, 1), (0.0, 0.0), attribute=attribute))
        else:
            row.wrong(column, better, "0 or 1 (which response), or -1 for neither")
    for index in range(2):
        column = f"is_response_{index}_safe"
        if row.has(column):
            judgments.append(Judgment("thumb", (index,), (float(row.flag(column)),), attribute="harmlessness"))
    return row.record((Message("user", row.text("prompt")),), responses, judgments)
