"""How performance grows with data: an exponential plateau fitted to a few sizes, and where more stops paying."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from accordance.core.errors import ConfigError, DataError

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Curve:
    """A fitted curve ``a - b f(n)``.

    Attributes:
        kind: ``plateau`` with f(n) = exp(-c n), or ``power`` with f(n) = -n^c and c > 0, which has no plateau.
        a: the plateau (for ``power`` the value at n = 0).
        b: what data can gain.
        c: the rate.
        r2: share of the variance of the given points that it explains.
    """

    kind: str
    a: float
    b: float
    c: float
    r2: float

    def at(self, n: Values | float) -> np.ndarray:
        """Performance expected with n rows."""
        size = np.asarray(n, dtype=np.float64)
        return self.a - self.b * _SHAPES[self.kind](size, self.c)

    def enough(self, share: float = 0.95) -> float:
        """Rows that bring this share of what data can gain: ``ln(1 / (1 - share)) / c``.

        Raises:
            ConfigError: a share outside (0, 1), or a curve without a plateau.
        """
        if not 0 < share < 1 or self.kind != "plateau":
            raise ConfigError(
                "a share of the gain lies between 0 and 1, of a plateau", found=f"{share}, {self.kind}"
            )
        return math.log(1 / (1 - share)) / self.c


_SHAPES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "plateau": lambda n, c: np.exp(-c * n),
    "power": lambda n, c: -(n**c),
}


def fit_curve(n: Values, performance: Values, kind: str = "plateau") -> Curve:
    """Fit how performance grows with the number of rows, by least squares.

    For each rate the other two numbers are a linear regression, so only the rate is searched for.

    Args:
        n: sizes, shape [k]; at least four different ones.
        performance: measured at each, shape [k].
        kind: ``plateau``: a - b exp(-c n) (arXiv:2411.10545); ``power``: a + b n^c, to compare it with.

    Raises:
        DataError: too few sizes, or numbers that are not finite.
    """
    size, y = np.asarray(n, dtype=np.float64), np.asarray(performance, dtype=np.float64)
    if len(np.unique(size)) < 4 or len(size) != len(y) or not np.isfinite(np.append(size, y)).all():
        raise DataError(
            "a curve needs performance at four or more sizes",
            found=f"{len(np.unique(size))} sizes, {len(y)} values",
        )
    shape = _SHAPES[kind]

    def solve(log_rate: float) -> tuple[float, np.ndarray]:
        design = np.stack([np.ones_like(size), -shape(size, math.exp(log_rate))], axis=1)
        weights = np.linalg.lstsq(design, y, rcond=None)[0]
        return float(((design @ weights - y) ** 2).sum()), weights

    low, high = (
        (math.log(1e-2 / size.max()), math.log(10 / size[size > 0].min()))
        if kind == "plateau"
        else (math.log(1e-3), 0.0)
    )
    grid = np.linspace(low, high, 60)
    best = int(np.argmin([solve(g)[0] for g in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found: Any = minimize_scalar(lambda g: solve(g)[0], bounds=ends, method="bounded")
    rate = float(found.x)
    left, (a, b) = solve(rate)
    total = float(((y - y.mean()) ** 2).sum())
    return Curve(kind, float(a), float(b), math.exp(rate), 1 - left / total if total else math.nan)
