"""What rides on quality: factors that win because better answers have them. Honest labels teach a model such factors.

The detector of alignment tampering (S135) for comparisons: a factor goes with quality, is preferred, and is no longer
preferred once quality is held fixed. `accordance.diagnostics` looks at rewards and policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accordance.analysis.cells import quoted
from accordance.analysis.regression import Effects, each
from accordance.core.errors import ConfigError
from accordance.core.report import Report
from accordance.core.stats import Interval, bootstrap

if TYPE_CHECKING:
    from accordance.analysis.explain import Explanation

#: Resamples of the quality gaps.
_SAMPLES = 300


@dataclass(frozen=True)
class Riding:
    """How each factor hangs together with quality.

    Attributes:
        names: the factors.
        gap: quality of the response with more of it less that of the other, in standard deviations, with its interval.
        alone: its weight, controls held fixed.
        held: its weight with quality held fixed, too.
        flagged: factors that are preferred (or not), go with quality, and lose weight once it is held fixed: half
            of it, or their significance or sign; largest loss first.
        measured: the factor that quality is; None where it is whatever else is rewarded.
    """

    names: tuple[str, ...]
    gap: tuple[Interval, ...]
    alone: tuple[Interval, ...]
    held: tuple[Interval, ...]
    flagged: tuple[str, ...]
    measured: str | None


def riding(found: Explanation, quality: str | None = None, *, level: float = 0.05, seed: int = 0) -> Riding:
    """Which factors ride on quality.

    Args:
        found: the explanation.
        quality: a factor that says how good a response is, such as a judge's rating; None takes the log-odds that all
            other factors add up to, so that what is found only says that factors go together.
        level: of the false discovery rate.
        seed: of the bootstrap.

    Raises:
        ConfigError: there is no such factor, or it is a control.
    """
    made, table = found.made, found.table
    names = tuple(n for n in found.single.names if n != quality and n not in found.controls)
    if quality in found.controls:
        raise ConfigError("quality is held fixed already", where="quality", found=quality)
    z = made.values / found.together.scale
    if quality is None:
        held: Effects = found.together
        every = z @ found.together.weight
        worth = {n: every - z[:, k] * found.together.weight[k] for k, n in enumerate(made.names)}
    else:
        column = made.column(quality)
        worth = dict.fromkeys(names, column)
        controls, (clusters, unit) = (*found.controls, quality), table.clusters
        held = each(made, table.label, clusters, unit, controls=controls, weight=table.weight, seed=seed)
    code = table.clusters[0]
    gaps, losses = [], {}
    for name in names:
        gaps.append(gap := _gap(made.column(name), worth[name], code, table.weight, seed))
        i, j = found.single.names.index(name), held.names.index(name)
        before, after = found.single.weight[i], held.weight[j]
        goes = (gap.low if before > 0 else -gap.high) > 0
        lost = held.q[j] > level or after * before <= 0 or abs(after) < abs(before) / 2
        loss = abs(before) - after * np.sign(before)
        if found.single.q[i] <= level and goes and lost and loss > 0:
            losses[name] = loss
    return Riding(
        names, tuple(gaps), tuple(found.single.interval(n) for n in names), tuple(held.interval(n) for n in names),
        tuple(sorted(losses, key=lambda n: -losses[n])), quality,
    )  # fmt: skip


def tell_riding(report: Report, found: Riding) -> None:
    """Write it into a report, with a warning where quality was measured."""
    learned = "A model trained on these labels learns them all the same."
    report.section(
        "What rides on quality",
        f"Factors that are preferred because better answers have them: quality is {quoted(found.measured)}. {learned}"
        if found.measured
        else "Factors that are preferred because better answers have them. Nothing here says how good an answer is (a "
        "judge's ratings, say), so that quality is what all other factors add up to, and this says which factors go "
        f"together. {learned}",
    )
    report.data("riding", list(found.flagged))
    place = {n: k for k, n in enumerate(found.names)}
    shown = found.flagged or tuple(sorted(found.names, key=lambda n: -abs(found.gap[place[n]].estimate))[:8])
    report.table(
        "Riding on quality" if found.flagged else "Nothing rides on quality; the closest",
        ["factor", "quality gap", "weight", "weight, quality held"],
        [[n, found.gap[place[n]], found.alone[place[n]], found.held[place[n]]] for n in shown],
        "Quality gap: how much better the response with more of it is, in standard deviations.",
    )
    if found.flagged and found.measured:
        names = ", ".join(map(quoted, found.flagged[:5]))
        report.warn(
            f"{names}: preferred because better answers have it, not for itself; a model trained on these labels will "
            "show more of it (see What rides on quality)"
        )


def _gap(x: np.ndarray, quality: np.ndarray, code: np.ndarray, weight: np.ndarray, seed: int) -> Interval:
    """Mean quality gap towards the side with more of a factor, over comparisons that differ in it."""
    some = x != 0
    unit = float(np.sqrt(np.average(quality**2, weights=weight))) or 1.0
    towards = np.sign(x[some]) * quality[some] / unit
    return bootstrap(towards, clusters=code[some].tolist(), weights=weight[some], seed=seed, samples=_SAMPLES)
