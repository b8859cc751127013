"""One number per record: how easy it is to tell which response is better. What steps order and select by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from accordance.core.errors import ConfigError, unknown
from accordance.core.record import Record, Records
from accordance.curation.pipeline import Tools
from accordance.curation.steps_balance import extremes
from accordance.curation.steps_people import response_scores


def gap(record: Record) -> float:
    """The largest difference of values in one judgment, times how strongly it was said; NaN without one."""
    sizes = [
        (max(j.values) - min(j.values)) * (1.0 if j.strength is None else j.strength)
        for j in record.judgments
        if extremes(j) is not None
    ]
    return max(sizes, default=float("nan"))


def agreement(record: Record) -> float:
    """Share of the comparisons that name the commonest best response (ties are one more name); NaN without any."""
    best: Counter[int | None] = Counter()
    for judgment in record.judgments:
        if judgment.kind == "comparison" and judgment.values:
            ends = extremes(judgment)
            best[None if ends is None else ends[0]] += 1
    return max(best.values()) / best.total() if best else float("nan")


def brevity(record: Record) -> float:
    """Minus the words of the longest response: short ones are easy; NaN without responses."""
    return -max((len(r.text.split()) for r in record.responses), default=float("nan"))


#: What a record is measured by; larger is easier. Beside these ``scorer`` and ``extras.NAME``.
MEASURES: dict[str, Callable[[Record], float]] = {"gap": gap, "agreement": agreement, "length": brevity}


def measure(records: Records, by: str, scorer: Any = None, tools: Tools | None = None) -> np.ndarray:
    """One number per record, larger is easier, NaN where it can't be said; shape [n].

    Args:
        records: a table.
        by: a name of `MEASURES`; ``scorer`` for the margin that a scorer gives the chosen response over the
            rejected one (negative where it disagrees with the judgment); or ``extras.NAME``, a number in the
            extras of which small is easy.
        scorer: for ``by="scorer"``.
        tools: resolves a scorer's name.

    Raises:
        ConfigError: nothing is known by this name, or a scorer is missing or would have no effect.
    """
    tools = tools or Tools()
    if (by == "scorer") != (scorer is not None):
        raise ConfigError("by='scorer' and scorer= need each other", where="measure", found=f"by={by!r}")
    if by == "scorer":
        return _margins(records, response_scores(records, tools.scorer(scorer, "measure"), tools))
    if by.startswith("extras."):
        return np.array([-_number(record.extras.get(by.removeprefix("extras."))) for record in records])
    if by not in MEASURES:
        raise unknown("measure", by, [*MEASURES, "scorer", "extras.NAME"], where="by")
    return np.array([MEASURES[by](record) for record in records], dtype=np.float64)


def _margins(records: Records, scores: list[list[float | None]]) -> np.ndarray:
    found = []
    for record, given in zip(records, scores):
        ends = next((e for e in map(extremes, record.judgments) if e is not None), None)
        best, worst = (None, None) if ends is None else (given[ends[0]], given[ends[1]])
        found.append(np.nan if best is None or worst is None else best - worst)
    return np.array(found, dtype=np.float64)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
