"""A small convex program on the simplex: minimise b.p + s sqrt(p'Hp). Min-norm and CAGrad are cases of it.

Only pairs of coordinates move, each to the exact minimum along its line, so that with two objectives one step is
the closed form. The pair is the one that violates optimality most.
"""

from __future__ import annotations

import math

import numpy as np

#: The norm has a corner where p'Hp = 0; this share of H's mean diagonal rounds it off.
_RIDGE = 1e-14


def minimise_on_simplex(
    b: np.ndarray, H: np.ndarray, s: float, *, tolerance: float = 1e-10, steps: int = 10_000
) -> np.ndarray:
    """argmin over the simplex of b.p + s sqrt(p'Hp).

    Args:
        b: linear term, shape [m].
        H: positive semi-definite, shape [m, m].
        s: weight of the norm, at least 0.
        tolerance: on the gain that any exchange of two coordinates still promises, relative to the scale of b
            and s sqrt(H).
        steps: exchanges at most.

    Returns:
        p, shape [m]; at least 0, sums to 1.
    """
    size = len(b)
    diagonal = float(np.trace(H)) / size
    H = H + _RIDGE * diagonal * np.eye(size)
    scale = float(np.abs(b).max()) + s * math.sqrt(diagonal)
    p = np.full(size, 1.0 / size)
    for _ in range(steps):
        Hp = H @ p
        norm = math.sqrt(max(float(p @ Hp), 0.0))
        slope = b + (s / norm) * Hp if norm > 0 else b
        to = int(slope.argmin())
        taken = int(np.where(p > 0, slope, -np.inf).argmax())
        if to == taken or slope[taken] - slope[to] <= tolerance * scale:
            break
        # Moving t from `taken` to `to`: delta t + s sqrt(q2 t^2 + 2 half t + norm^2), t in [0, p_taken].
        delta = float(b[to] - b[taken])
        q2 = float(H[to, to] + H[taken, taken] - 2 * H[to, taken])
        half = float(Hp[to] - Hp[taken])
        moved = min(max(_line_minimum(delta, s, q2, half, norm), 0.0), p[taken])
        if moved == 0.0:
            break
        p[to] += moved
        p[taken] -= moved
    return p / p.sum()


def _line_minimum(delta: float, s: float, q2: float, half: float, norm: float) -> float:
    """Where delta t + s sqrt(q2 t^2 + 2 half t + norm^2) is least; infinite where it falls for ever."""
    if q2 <= 0 or s * s * q2 <= delta * delta:
        return math.inf if delta <= 0 else -math.inf
    rest = max(norm * norm - half * half / q2, 0.0)
    return -half / q2 - delta * math.sqrt(rest) / math.sqrt(q2 * (s * s * q2 - delta * delta))


__all__ = ["minimise_on_simplex"]
