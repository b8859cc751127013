"""Figures in the house style: few kinds, quiet axes, colours that everyone can tell apart.

Each helper returns a matplotlib `Figure` without touching pyplot's global state; `to_svg` makes it SVG whose
text is text and whose inks follow the page (light or dark).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from accordance.core.stats import Interval

#: Told apart with any kind of colour vision, and on light and dark ground.
PALETTE = ("#3f7fd1", "#e08a1e", "#2a9d7f", "#c0579c", "#8a8f98", "#6a5acd")
INK, MUTED, GRID = "#1b1f25", "#6b7381", "#d9dde4"
_INKS = {INK: "var(--ink, #1b1f25)", MUTED: "var(--muted, #6b7381)", GRID: "var(--line, #d9dde4)"}

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "text.parse_math": False,  # a group called "$5" is a name, not a formula
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

#: Most points that a scatter plot draws.
_POINTS = 1500

Values = Sequence[float] | np.ndarray


def new(width: float = 5.2, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty figure (inches) with one pair of axes. Draw in it under `matplotlib.rc_context(STYLE)`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def histogram(
    groups: Mapping[str, Values],
    *,
    xlabel: str,
    ylabel: str = "count",
    bins: int = 30,
    mark: float | None = None,
) -> Figure:
    """One outlined histogram per group on shared bins; `mark` draws a vertical line."""
    figure, axes = new()
    with matplotlib.rc_context(STYLE):
        values = {
            name: np.asarray(v, dtype=float)[np.isfinite(np.asarray(v, dtype=float))]
            for name, v in groups.items()
        }
        everything = np.concatenate([*values.values(), np.array([] if mark is None else [mark])])
        if len(everything):
            low, high = np.quantile(everything, [0.005, 0.995]) if len(everything) > 200 else _range(everything)
            low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
            edges = np.linspace(low, high, min(bins, max(6, int(2 * len(everything) ** 0.5))) + 1).tolist()
            for colour, (name, data) in zip(_colours(len(values)), values.items()):
                inside = np.clip(data, low, high)  # what lies beyond is counted in the outermost bins
                axes.hist(inside, edges, color=colour, alpha=0.35, label=name)
                axes.hist(inside, edges, color=colour, histtype="step", linewidth=1.4)
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(axis="x", visible=False)
        _legend(axes, len(values))
    return figure


def forest(
    rows: Sequence[tuple[str, Interval]],
    *,
    xlabel: str,
    reference: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A dot and its interval per row, the number at the right; `reference` draws a vertical line.

    Args:
        rows: (label, interval), from the top; bounds that are NaN leave the dot alone.
        xlabel: what is measured.
        reference: where there is no effect, such as 0.5 for a win rate.
        limits: of the horizontal axis.
    """
    figure, axes = new(height=0.9 + 0.34 * max(len(rows), 1))
    with matplotlib.rc_context(STYLE):
        places = np.arange(len(rows))[::-1]
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, (_, interval) in zip(places, rows):
            if np.isfinite(interval.low) and np.isfinite(interval.high):
                axes.plot(
                    [interval.low, interval.high],
                    [place, place],
                    color=PALETTE[0],
                    linewidth=3,
                    alpha=0.45,
                    solid_capstyle="round",
                )
            axes.plot([interval.estimate], [place], "o", color=PALETTE[0], markersize=6)
            axes.annotate(
                _told(interval.estimate),
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                color=INK,
            )
        axes.set_yticks(places, [_short(label) for label, _ in rows], color=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        if limits:
            axes.set_xlim(*limits)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    return figure


def scatter(
    x: Values, y: Values, *, xlabel: str, ylabel: str, zero: bool = False, diagonal: bool = False
) -> Figure:
    """Points; `zero` draws both axes through the origin, `diagonal` the line of no change.

    Of very many points an even sample is drawn, and the figure says so: a page has to stay light.
    """
    figure, axes = new(height=3.4)
    with matplotlib.rc_context(STYLE):
        if zero:
            axes.axhline(0, color=MUTED, linewidth=1)
            axes.axvline(0, color=MUTED, linewidth=1)
        if len(x) > _POINTS:
            axes.set_title(f"{_POINTS:,} of {len(x):,} points", loc="right", fontsize=8.5, color=MUTED)
            drawn = np.random.default_rng(0).choice(len(x), _POINTS, replace=False)
            x, y = np.asarray(x)[drawn], np.asarray(y)[drawn]
        axes.plot(x, y, "o", color=PALETTE[0], markersize=4, alpha=0.55, markeredgewidth=0)
        if diagonal and len(x):
            both = _range(np.concatenate([np.asarray(x, float), np.asarray(y, float)]))
            axes.plot(both, both, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def lines(
    series: Mapping[str, tuple[Values, Values] | tuple[Values, Values, Values, Values]],
    *,
    xlabel: str,
    ylabel: str,
    reference: float | None = None,
) -> Figure:
    """Lines (x, y), each with a band where given as (x, y, low, high); `reference` draws a horizontal line."""
    figure, axes = new()
    with matplotlib.rc_context(STYLE):
        if reference is not None:
            axes.axhline(reference, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for number, (colour, (name, line)) in enumerate(zip(_colours(len(series)), series.items())):
            axes.plot(
                line[0],
                line[1],
                color=colour,
                linestyle=("-", "--", ":")[number // len(PALETTE) % 3],
                label=name,
                marker="o" if len(line[0]) < 12 else None,
                markersize=4,
            )
            if len(line) == 4:
                axes.fill_between(line[0], line[2], line[3], color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _legend(axes, len(series))
    return figure


def bars(values: Mapping[str, float], *, xlabel: str) -> Figure:
    """Horizontal bars from the top, the number at the end of each."""
    figure, axes = new(height=0.9 + 0.34 * max(len(values), 1))
    with matplotlib.rc_context(STYLE):
        places = np.arange(len(values))[::-1]
        drawn = axes.barh(places, list(values.values()), color=PALETTE[0], height=0.62)
        axes.bar_label(drawn, fmt="{:,.4g}", padding=4, color=INK)
        axes.set_yticks(places, [_short(label) for label in values], color=INK)
        axes.margins(x=0.15)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as SVG: text as text in the page's font, inks as the page's colours, always the same bytes."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "accordance"}):
        stream = io.StringIO()
        with warnings.catch_warnings():  # what our font lacks, the reader's browser has
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    drawing = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", stream.getvalue())  # not XML
    for ink, variable in _INKS.items():
        drawing = re.sub(rf"(fill|stroke): {ink}\b", rf"\1: {variable}", drawing)
    return re.sub(r"('DejaVu Sans'|DejaVu Sans)(, [^;\"]*)?", "inherit", drawing)


def _legend(axes: Axes, many: int) -> None:
    if many > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handlelength=1.2)


def _colours(many: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(many)]


def _told(value: float) -> str:
    """A number at the end of a row: two digits behind the point, none from a hundred on."""
    return f"{value:,.2f}".replace("-", "−") if abs(value) < 100 else f"{value:,.0f}".replace("-", "−")


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _short(label: str, limit: int = 28) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"
