"""Figures of analyses: factor weights with and without controls, who weighs what how, what length does."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from accordance.core.figures import INK, MUTED, PALETTE, STYLE, new
from accordance.core.stats import Interval

_LIKED, _DISLIKED = PALETTE[2], PALETTE[1]
_MAP = LinearSegmentedColormap.from_list("liking", [_DISLIKED, "#ffffff", _LIKED])


def weights(
    rows: Sequence[tuple[str, Interval, Interval | None, bool]], *, xlabel: str, main: str, other: str
) -> Figure:
    """Factor weights: a dot with its interval per factor, coloured by direction where it stands the test.

    Args:
        rows: (factor, interval, a second interval or None, whether it survives the test), from the top.
        xlabel: what is measured.
        main, other: what the filled dots and the small hollow ones are.
    """
    figure, axes = new(width=6.4, height=1.1 + 0.29 * max(len(rows), 1))
    with matplotlib.rc_context(STYLE):
        axes.axvline(0, color=MUTED, linewidth=1)
        places = np.arange(len(rows))[::-1]
        for place, (_, interval, second, stands) in zip(places, rows):
            colour = (_LIKED if interval.estimate > 0 else _DISLIKED) if stands else PALETTE[4]
            if np.isfinite(interval.low) and np.isfinite(interval.high):
                axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=4, alpha=0.4,
                          solid_capstyle="round")  # fmt: skip
            axes.plot([interval.estimate], [place], "o", color=colour, markersize=6.5)
            if second is not None:
                axes.plot([second.estimate], [place], "o", color=INK, markersize=4, fillstyle="none",
                          markeredgewidth=0.9)  # fmt: skip
            axes.annotate(f"{interval.estimate:+.2f}".replace("-", "−"), (1.01, place),
                          xycoords=("axes fraction", "data"), va="center", color=INK if stands else MUTED)  # fmt: skip
        axes.set_yticks(places, [name for name, *_ in rows])
        for tick, row in zip(axes.get_yticklabels(), rows):
            tick.set_color(INK if row[3] else MUTED)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        handles = [
            Line2D([], [], marker="o", color=_LIKED, linewidth=4, alpha=0.8, label="preferred"),
            Line2D([], [], marker="o", color=_DISLIKED, linewidth=4, alpha=0.8, label="not preferred"),
            Line2D([], [], marker="o", color=PALETTE[4], linewidth=4, alpha=0.8, label="can't tell"),
        ]
        if any(second is not None for _, _, second, _ in rows):
            handles.append(
                Line2D([], [], marker="o", linestyle="", color=INK, fillstyle="none", markersize=4, label=other)
            )
        figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=1.2, columnspacing=1.2,
                      title=main, alignment="left")  # fmt: skip
    return figure


def disagreement(
    rows: Sequence[str], columns: Sequence[str], values: np.ndarray, marked: np.ndarray, *, label: str
) -> Figure:
    """A map of signed numbers, factors down and groups across; cells that differ from the other groups are framed.

    Args:
        rows, columns: their names.
        values: shape [rows, columns], NaN where nothing is known.
        marked: which cells are framed, same shape.
        label: what the numbers are.
    """
    width = 2.6 + 0.85 * len(columns)
    figure, axes = new(width=min(max(width, 4.2), 11), height=1.2 + 0.32 * max(len(rows), 1))
    with matplotlib.rc_context(STYLE):
        top = float(np.nanmax(np.abs(values), initial=0.1))
        image = axes.imshow(values, cmap=_MAP, vmin=-top, vmax=top, aspect="auto")
        for i in range(len(rows)):
            for j in range(len(columns)):
                shown = f"{values[i, j]:+.2f}".replace("-", "−") if np.isfinite(values[i, j]) else "·"
                axes.text(j, i, shown, ha="center", va="center", fontsize=8.5, color="#1b1f26",
                          fontweight="bold" if marked[i, j] else "normal")  # fmt: skip
                if marked[i, j]:
                    axes.add_patch(matplotlib.patches.Rectangle(
                        (j - 0.47, i - 0.44), 0.94, 0.88, fill=False, edgecolor="#1b1f26", linewidth=1.3))  # fmt: skip
        axes.set_xticks(range(len(columns)), [_clip(c, 14) for c in columns], color=INK)
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(rows)), list(rows), color=INK)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, location="bottom", pad=0.03)
        bar.set_label(label, color=MUTED)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def length_curve(ratio: np.ndarray, longer_won: np.ndarray, weight: np.ndarray, bins: int = 8) -> Figure:
    """How often the longer response is preferred, by how much longer it is.

    Args:
        ratio: words of the longer over words of the shorter, above 1, shape [n].
        longer_won: 1 where the longer was preferred, shape [n].
        weight: how much each counts, above 0, shape [n].
        bins: of equally many comparisons.
    """
    from accordance.core.stats import wilson

    order = np.argsort(ratio, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, max(len(order) // 20, 1))) if len(part)]
    figure, axes = new(height=2.8)
    with matplotlib.rc_context(STYLE):
        axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        x = [float(np.median(ratio[part])) for part in parts]
        # As many comparisons as the weights are worth (Kish 1965).
        worth = [float(weight[part].sum() ** 2 / (weight[part] ** 2).sum()) for part in parts]
        found = [
            wilson(float(np.average(longer_won[part], weights=weight[part])) * n, n)
            for part, n in zip(parts, worth)
        ]
        axes.fill_between(
            x, [f.low for f in found], [f.high for f in found], color=PALETTE[0], alpha=0.18, linewidth=0
        )
        axes.plot(x, [f.estimate for f in found], color=PALETTE[0], marker="o", markersize=4)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        axes.set(xlabel="words of the longer response over words of the shorter", ylabel="longer is preferred")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    return figure


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
