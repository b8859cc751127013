"""Scorers made of Scorers: rewards on a scale that means the same everywhere, made for how a policy will be used.

In go rewards of responses and of samples of a reference; out come rewards. To add a transform, write a function from
numbers to numbers of the same shape.
"""

from accordance.rewards.infalign import (
    PROCEDURES,
    Procedure,
    Tilted,
    calibrated,
    for_procedure,
    optimal_transform,
    tilted,
)

__all__ = [
    "PROCEDURES",
    "Procedure",
    "Tilted",
    "calibrated",
    "for_procedure",
    "optimal_transform",
    "tilted",
]
