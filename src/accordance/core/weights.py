"""How much each judgment counts: one number per judgment, kept in the record's extras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute

from accordance.core.errors import DataError
from accordance.core.record import Judgment, Record

#: The key in `Record.extras`: one number per judgment of the record, in their order; all 1 where it is missing.
WEIGHTS = "weights"
#: Arrow makes its functions when it is imported, which type checkers don't see.
_pc: Any = pyarrow.compute


def weights_of(record: Record) -> tuple[float, ...]:
    """How much each judgment of the record counts.

    Raises:
        DataError: they are not one finite number of at least 0 per judgment.
    """
    return _sound(record.extras.get(WEIGHTS), len(record.judgments), record.origin or record.id)


def weights_in(batch: Any, many: np.ndarray) -> np.ndarray:
    """How much each judgment of a batch of rows counts, without a Python object for a row that has no weights.

    Args:
        batch: an Arrow table with the columns of a record.
        many: how many judgments each of its rows has, shape [r].

    Returns:
        A number for each judgment, in their order, shape [j].

    Raises:
        DataError: see `weights_of`.
    """
    told, start = np.ones(int(many.sum())), np.append(0, np.cumsum(many))
    marked = _pc.fill_null(_pc.match_substring(batch["extras"], f'"{WEIGHTS}"'), False)
    for row in np.flatnonzero(np.asarray(marked)).tolist():
        origin, name, extras = (batch[column][row].as_py() for column in ("origin", "id", "extras"))
        told[start[row] : start[row + 1]] = _sound(
            json.loads(extras).get(WEIGHTS), int(many[row]), origin or name
        )
    return told


def weight_of(record: Record, judgment: Judgment) -> float:
    """How much one judgment of the record counts; of equal judgments, the first is meant."""
    return weights_of(record)[record.judgments.index(judgment)] if WEIGHTS in record.extras else 1.0


def weighted(record: Record, weights: Sequence[float]) -> Record:
    """The record with these weights, one per judgment; weights that are all 1 are not written."""
    rest = {key: value for key, value in record.extras.items() if key != WEIGHTS}
    if any(weight != 1 for weight in weights):
        rest[WEIGHTS] = [float(weight) for weight in weights]
    return replace(record, extras=rest)


def keeping(record: Record, numbers: Sequence[int]) -> Record:
    """The record with only these of its judgments, and their weights."""
    kept = replace(record, judgments=tuple(record.judgments[i] for i in numbers))
    if WEIGHTS not in record.extras:
        return kept
    weights = weights_of(record)
    return weighted(kept, [weights[i] for i in numbers])


def _sound(given: Any, many: int, where: str | None) -> tuple[float, ...]:
    if given is None:
        return (1.0,) * many
    sound = isinstance(given, list | tuple) and len(given) == many
    if not sound or not all(isinstance(w, int | float) and 0 <= w < float("inf") for w in given):
        raise DataError(
            "these are no weights of judgments",
            where=where,
            found=given,
            expected=f"one number of at least 0 for each of the {many} judgments",
        )
    return tuple(map(float, given))
