"""Comparisons by the million: load, aggregate and regress, with the memory each size takes and how time grows.

python benchmarks/comparisons.py [--json] [--rows 1000000]

Synthetic feedback: 20 models of planted strength, 5,000 people of planted reliability, answers of planted manners; a
fifth of the pairs are judged twice. Each size runs in a process of its own, so that its peak memory is its own.
Writes comparisons.svg beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import show

PEOPLE, MODELS = 5_000, 20
STAGES = ("load", "aggregate", "regress")
_OPENINGS = ("Sure.", "I'm sorry, but I can't help with that.", "Thank you for asking!", "It depends.", "I think so.",
             "Do you want the short version?", "Please note the following.", "There are 3 reasons.")  # fmt: skip
_WORDS = """river table winter because music yellow slowly paper garden morning quiet letter travel window simple number
answer people never always maybe before after small large kind story road light""".split()  # noqa: SIM905


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Comparisons as JSON lines, in the house's own format."""
    g = np.random.default_rng(seed)
    strength = np.linspace(1.0, -1.0, MODELS)
    careless = g.random(PEOPLE) * 0.3
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, rows, 10_000):
            many = min(10_000, rows - start)
            who, a = g.integers(PEOPLE, size=many), g.integers(MODELS, size=many)
            b = (a + g.integers(1, MODELS, size=many)) % MODELS
            opening, length = g.integers(len(_OPENINGS), size=(many, 2)), g.integers(4, 25, size=(many, 2))
            word = g.integers(len(_WORDS), size=(many, 2, 25))
            polite = (opening == 2).astype(float) - (opening == 1)
            gap = strength[a] - strength[b] + polite[:, 0] - polite[:, 1] + 0.05 * (length[:, 0] - length[:, 1])
            first = g.random(many) < np.where(g.random(many) < careless[who], 0.5, 1 / (1 + np.exp(-gap)))
            for i in range(many):
                number = start + i
                again = number % 5 == 4 and i > 0
                at = i - 1 if again else i  # the same pair, judged by somebody else
                answers = [
                    {"messages": [{"role": "assistant", "content": _text(opening[at, k], word[at, k], length[at, k])}],
                     "source": f"model {m}", "steps": []}
                    for k, m in enumerate((a[at], b[at]))
                ]  # fmt: skip
                judged = {"kind": "comparison", "responses": [0, 1], "annotator": f"p{who[i]}",
                          "values": [1.0, 0.0] if first[i] else [0.0, 1.0], "group": f"g{who[i] % 3}"}  # fmt: skip
                asked = [{"role": "user", "content": f"question {number - again}"}]
                row = {"id": str(number), "prompt": asked, "responses": answers, "judgments": [judged]}
                file.write(json.dumps(row) + "\n")


def _text(opening: int, words: np.ndarray, length: int) -> str:
    return f"{_OPENINGS[opening]} {' '.join(_WORDS[w] for w in words[:length])}."


def measure(rows: int, path: Path) -> dict[str, Any]:
    """CPU seconds of each stage (a shared machine tells little by the clock) and the peak memory of this process.

    With them a check that what was planted was found: `order` is the correlation of the models' ranks with those
    planted, `longer` the weight of length, planted above 0.
    """
    from accordance.analysis import PairTable, TextFeatures, aggregation_report, joint
    from accordance.analysis.features import everything
    from accordance.feedback import load_records

    found: dict[str, Any] = {"rows": rows}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        began, busy = time.perf_counter(), time.process_time()
        made = work()
        found[f"{stage}_wall"], found[stage] = time.perf_counter() - began, time.process_time() - busy
        found[f"{stage}_peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return made

    found["start_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    records = timed("load", lambda: load_records(path))
    report = timed("aggregate", lambda: aggregation_report(records, samples=100))

    def regress() -> Any:
        table = PairTable.from_records(records)
        clusters, unit = table.clusters
        made, _ = everything(table, [TextFeatures(statistics=False)])
        return joint(made, table.label, clusters, unit, samples=200)

    effects = timed("regress", regress)
    best = [row["model"] for row in report.values["standings"]["bradley_terry"]]
    found["order"] = float(np.corrcoef([int(name.split()[1]) for name in best], range(MODELS))[0, 1])
    found["longer"] = effects.interval("longer").estimate
    found["total"], found["peak_gb"] = sum(found[stage] for stage in STAGES), found["regress_peak_gb"]
    return found


def main() -> None:
    """Measure 10,000, 100,000 and 1,000,000 rows, or up to `--rows`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--rows", type=int, default=1_000_000, help="the largest size")
    parser.add_argument("--only", type=int, help="one size in this process (used by the benchmark itself)")
    parser.add_argument("--file", type=Path, help="with --only: the rows")
    args = parser.parse_args()
    if args.only is not None:
        print(json.dumps(measure(args.only, args.file)))
        return
    rows = []
    for power in range(4, round(math.log10(args.rows)) + 1):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.jsonl"
            write(file, 10**power)
            command = [sys.executable, __file__, "--only", str(10**power), "--file", str(file)]
            cache = {
                **os.environ,
                "HF_DATASETS_CACHE": folder,
            }  # else a second run would find the first one's table
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=cache)
        rows.append(json.loads(run.stdout.splitlines()[-1]))
    slope = {}
    for stage in (*STAGES, "total"):
        times = [row[stage] for row in rows]
        slope[stage] = math.log(times[-1] / times[-2]) / math.log(10) if len(rows) > 1 else math.nan
    columns = ["rows", *STAGES, "total", "peak_gb", "order", "longer"]
    shown = [[row[column] for column in columns] for row in rows]
    show("CPU seconds by stage, peak memory", columns, shown, as_json=args.json)
    show(
        "Growth: exponent of time over the last tenfold (1 is linear)",
        list(slope),
        [list(slope.values())],
        as_json=args.json,
    )
    draw(rows, Path(__file__).with_suffix(".svg"))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds against rows, both on log scales, with the line of linear growth."""
    import matplotlib

    from accordance.core import figures

    size = [row["rows"] for row in rows]
    figure, axes = figures.new(5.6, 3.4)
    with matplotlib.rc_context(figures.STYLE):
        for colour, stage in zip(figures.PALETTE, STAGES):
            axes.loglog(size, [row[stage] for row in rows], "o-", color=colour, label=stage, markersize=4)
        linear = [rows[-1]["total"] * n / size[-1] for n in size]
        axes.loglog(size, linear, "--", color=figures.MUTED, linewidth=1, label="linear")
        axes.set(xlabel="comparisons", ylabel="CPU seconds")
        axes.legend()
        axes.set_title(f"peak memory at {size[-1]:,}: {rows[-1]['peak_gb']:.1f} GB", loc="right", fontsize=8.5)
    path.write_text(figures.to_svg(figure), encoding="utf-8")


if __name__ == "__main__":
    main()
