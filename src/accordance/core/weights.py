"""How much each judgment counts: one number per judgment, kept in the record's extras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accordance.core.errors import DataError
from accordance.core.record import Judgment, Record

#: The key in `Record.extras`: one number per judgment of the record, in their order; all 1 where it is missing.
WEIGHTS = "weights"


def weights_of(record: Record) -> tuple[float, ...]:
    """How much each judgment of the record counts.

    Raises:
        DataError: they are not one finite number of at least 0 per judgment.
    """
    given = record.extras.get(WEIGHTS)
    if given is None:
        return (1.0,) * len(record.judgments)
    sound = isinstance(given, list | tuple) and len(given) == len(record.judgments)
    if not sound or not all(isinstance(w, int | float) and 0 <= w < float("inf") for w in given):
        raise DataError(
            "these are no weights of judgments",
            where=record.origin or record.id,
            found=given,
            expected=f"one number of at least 0 for each of the {len(record.judgments)} judgments",
        )
    return tuple(map(float, given))


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
