"""Table cells of reports: shares as percentages, p-values without exponents."""

from __future__ import annotations

from typing import Any

from accordance.core.stats import Interval


def share(value: float | Interval) -> dict[str, Any]:
    """A number in [0, 1], with its interval where it has one, shown as a percentage."""
    if isinstance(value, Interval):
        return {"estimate": value.estimate, "low": value.low, "high": value.high, "unit": "share"}
    return {"estimate": float(value), "unit": "share"}


def chance(value: float) -> dict[str, Any]:
    """A p-value or q-value."""
    return {"estimate": float(value), "unit": "p"}


def won(shift: Interval) -> dict[str, Any]:
    """A win-rate shift (see `Effects.shift`) as a win rate: how often the response with more of it is preferred."""
    return share(Interval((1 + shift.estimate) / 2, (1 + shift.low) / 2, (1 + shift.high) / 2, shift.n))


def quoted(name: str) -> str:
    """A factor's name in quotation marks; those within become single ones."""
    return "“" + name.replace("“", "‘").replace("”", "’") + "”"
