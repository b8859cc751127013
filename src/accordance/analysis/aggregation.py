"""Aggregation of comparisons into a Report: which model is preferred to which, and how far to trust whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accordance.analysis import cells
from accordance.core import figures
from accordance.core.aggregate import METHODS, Comparisons, Standing
from accordance.core.aggregate import aggregate as order
from accordance.core.annotators import Reliability, dawid_skene
from accordance.core.errors import DataError, unknown
from accordance.core.flat import FlatPairs
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.stats import Interval, wilson
from accordance.core.views import which_attribute

#: What a method is called, where its name is not enough.
TITLES = {"bradley_terry": "Bradley-Terry", "pagerank": "PageRank"}
#: Most rows of a figure or of a table of pairs.
_SHOWN = 24
#: What a method's number is.
SCALES = {
    "bradley_terry": "log-odds of winning, mean 0",
    "elo": "Elo points, 1000 on average; depends on the order of the comparisons",
    "rank_centrality": "log of the share of time a walk from losers to winners spends there, mean 0",
    "ranked_pairs": "items locked in below less items locked in above",
    "pagerank": "share of time of a walk along losses to winners",
    "win_share": "share of comparisons won, a tie half",
}


@dataclass(frozen=True)
class People:
    """How far annotators can be trusted, most reliable first.

    Attributes:
        names: who they are.
        accuracy: probability of the label that all of them together find most likely, with a Wilson interval
            over the person's shared judgments (which takes the common vote for the truth).
        shared: judgments of what somebody else judged, too.
        known: what Dawid and Skene's model found.
    """

    names: tuple[str, ...]
    accuracy: tuple[Interval, ...]
    shared: tuple[int, ...]
    known: Reliability


def model_comparisons(flat: FlatPairs, records: Records) -> tuple[Comparisons | None, int]:
    """Who won against whom, by the names of the models that wrote the responses.

    Names are the responses' sources, or where there are none `model_a` and `model_b` in the extras.

    Returns:
        The comparisons, or None where fewer than two models are named; and how many were left out because a model
        is not named, or met itself.
    """
    source, names = flat.source, flat.sources
    if not names:
        source, names = _named_in_extras(flat, records)
    if len(names) < 2:
        return None, len(flat)
    first, second = source[flat.first], source[flat.second]
    usable = (first >= 0) & (second >= 0) & (first != second)
    if not usable.any():
        return None, len(flat)
    people = np.where(
        flat.annotator >= 0, flat.annotator, flat.annotator.max(initial=0) + 1 + np.arange(len(flat))
    )
    weight = None if (flat.weight == 1).all() else flat.weight[usable]
    used = np.unique(np.concatenate([first[usable], second[usable]]))
    code = np.full(len(names), -1)
    code[used] = np.arange(len(used))
    made = Comparisons(
        tuple(names[i] for i in used),
        code[first[usable]],
        code[second[usable]],
        flat.label[usable],
        np.unique(people[usable], return_inverse=True)[1],
        weight,
    )
    return made, int((~usable).sum())


def annotator_reliability(flat: FlatPairs) -> People | None:
    """How far each annotator can be trusted; None where no two people judged the same pair.

    Ties are a label of their own. Judgments of pairs that nobody else judged say nothing and do not count.
    """
    flat = flat.select((flat.annotator >= 0) & (flat.text[flat.first] != flat.text[flat.second]))
    if not len(flat):
        return None
    item, swapped = flat.items()
    label = np.where(swapped, 1 - flat.label, flat.label)
    both = np.unique(item * (int(flat.annotator.max()) + 1) + flat.annotator, return_index=True)[1]
    shared = (np.bincount(item[both], minlength=int(item.max()) + 1) > 1)[item]
    if not shared.any() or len(np.unique(label[shared])) < 2:
        return None
    known = dawid_skene(flat.annotator[shared], item[shared], label[shared])
    best = np.argsort(-known.accuracy, kind="stable")
    names = flat.names["annotator"]
    return People(
        tuple(names[known.people[i]] for i in best),  # type: ignore[index]
        tuple(wilson(float(known.accuracy[i] * known.judged[i]), int(known.judged[i])) for i in best),
        tuple(int(known.judged[i]) for i in best),
        known,
    )


def aggregation_report(
    records: Records,
    methods: Sequence[str] = ("bradley_terry",),
    *,
    attribute: str | None = None,
    samples: int = 200,
    seed: int = 0,
) -> Report:
    """Which model is preferred to which, with intervals by bootstrap over people, and how far to trust whom.

    Args:
        records: comparisons of any data; models are ranked where they are named, annotators where they are.
        methods: names of `accordance.core.aggregate.METHODS`, or ``elo``; the first one orders the figure.
        attribute: of the judgments that count; None takes overall ones, or the only attribute there is.
        samples: resamples of people; 0 for no intervals.
        seed: of the resampling.

    Returns:
        A report: `standings` by method, `annotators`, and what was left out.

    Raises:
        ConfigError: an unknown method.
        DataError: nothing to aggregate: neither two models are named, nor did two people judge one pair.
    """
    for method in methods:
        if method not in (*METHODS, "elo"):
            raise unknown("method", method, [*METHODS, "elo"], where="aggregate")
    flat = FlatPairs.of(records)
    wanted = which_attribute(records.materialise(), ("comparison", "rating"), attribute)
    names = flat.names["attribute"]
    flat = flat.select((flat.attribute == (-1 if wanted is None else names.index(wanted))) & (flat.weight > 0))
    games, without = model_comparisons(flat, records)
    people = annotator_reliability(flat)
    if games is None and people is None:
        raise DataError(
            "there is nothing to aggregate",
            where=records.source,
            found=f"{len(flat)} comparisons, {len(flat.sources)} models, {len(flat.names['annotator'])} annotators",
            expected="responses of two or more named models (source, or model_a and model_b), or pairs that two or "
            "more named annotators judged",
        )
    report = Report(
        f"Aggregation of {Path(records.source).name or 'records'}",
        meta={"source": records.source, "attribute": wanted},
    )
    report.add("comparisons", len(flat), headline=True).add("ties", int((flat.label == 0.5).sum()))
    said = []
    if games is not None:
        found = {method: order(games, method, samples=samples, seed=seed) for method in methods}
        said.append(_models(report, games, found, without))
    else:
        report.data("standings", None)
    if people is not None:
        said.append(tell_people(report, people))
    else:
        report.data("annotators", None)
    report.summary = " ".join(said)
    return report


def _models(report: Report, games: Comparisons, found: dict[str, list[Standing]], without: int) -> str:
    many = int(games.people.max()) + 1
    report.section(
        "Models", f"{len(games.outcome):,} comparisons of {len(games.items)} models by {many:,} people."
    )
    report.add("models", len(games.items), headline=True).add("people", many, headline=True)
    if without:
        report.warn(
            f"{without:,} comparisons name fewer than two different models and were left out of the ranking"
        )
    if many == len(games.outcome):
        report.warn(
            "nobody is named twice: intervals are over comparisons, as if each came from another person"
        )
    tables = {}
    for method, standings in found.items():
        shown = [(str(s.item), s.score) for s in standings[:_SHOWN]]
        scale = SCALES[method]
        title = TITLES.get(method, method.replace("_", " ").capitalize())
        report.figure(f"{title}: score and 95% interval",
                      figures.forest(shown, xlabel=scale), _cut(standings))  # fmt: skip
        rows = [
            [
                s.rank,
                str(s.item),
                cells.share(s.score) if method == "win_share" else s.score,
                _range(s),
                s.games,
            ]
            for s in standings
        ]
        report.table(f"{title}: ranks", ["rank", "model", "score", "rank 95%", "comparisons"], rows)
        tables[method] = [_plain(s) for s in standings]
    report.data("standings", tables)
    first = next(iter(found.values()))
    if len(first) <= _SHOWN // 2:
        wins, index = games.wins(), {item: i for i, item in enumerate(games.items)}
        at = [index[s.item] for s in first]
        with np.errstate(invalid="ignore"):
            share = wins / (wins + wins.T)
        rows = [[str(first[i].item), *(None if np.isnan(v := share[at[i], j]) else cells.share(v) for j in at)]
                for i in range(len(at))]  # fmt: skip
        report.table(
            "Share of comparisons that the row won against the column",
            ["", *(str(s.item) for s in first)],
            rows,
        )
    top = first[0]
    sure = f" (rank {_range(top)} in 95% of resamples)" if _range(top) else ""
    return f"First of {len(first)} models: {top.item}{sure}."


def tell_people(report: Report, people: People) -> str:
    """Write the reliability of annotators into a report; returns it in a sentence."""
    report.section(
        "Annotators",
        f"{len(people.names):,} people judged pairs that others judged, too. Reliability is the probability of giving "
        "the label that all together find most likely; a crowd that errs as one goes unnoticed.",
    )
    mean = float(np.average([a.estimate for a in people.accuracy], weights=people.shared))
    report.add(
        "annotator_reliability", mean, label="Mean reliability of a judgment", unit="share", headline=True
    )
    rows = list(zip(people.names, people.accuracy, people.shared))
    half = _SHOWN // 2
    shown = rows if len(rows) <= _SHOWN else [*rows[:half], *rows[-half:]]
    chance = 1 / len(people.known.classes)
    note = "" if len(rows) <= _SHOWN else f"The most and the least reliable {half} of {len(rows):,}."
    drawn = figures.forest(
        [(name, interval) for name, interval, _ in shown], xlabel="reliability", reference=chance
    )
    report.figure("Reliability of annotators", drawn, f"Dashed: somebody who labels at random. {note}".strip())
    values = [interval.estimate for _, interval, _ in rows]
    if len(rows) > _SHOWN:
        report.figure(
            "All annotators", figures.histogram({"": values}, xlabel="reliability", ylabel="annotators")
        )
    report.table(
        "Annotators",
        ["annotator", "reliability", "shared judgments"],
        [[name, cells.share(sure), many] for name, sure, many in shown],
        note,
    )
    report.data(
        "annotators",
        [
            {"annotator": name, "reliability": i.estimate, "low": i.low, "high": i.high, "shared": n}
            for name, i, n in rows
        ],
    )
    least = rows[-1]
    return (
        f"Reliability of {len(rows)} annotators: {mean:.0%} on average, {least[1].estimate:.0%} for {least[0]}."
    )


def _named_in_extras(flat: FlatPairs, records: Records) -> tuple[np.ndarray, tuple[str, ...]]:
    source, book = np.full(len(flat.response_row), -1), {}
    start = np.searchsorted(flat.response_row, np.arange(len(flat.prompt)))
    table: Any = records.materialise().dataset
    for row, extras in enumerate(table["extras"]):
        if extras and '"model_a"' in extras:
            values = json.loads(extras)
            for place, key in enumerate(("model_a", "model_b")):
                at = start[row] + place
                if values.get(key) is not None and at < len(source) and flat.response_row[at] == row:
                    source[at] = book.setdefault(str(values[key]), len(book))
    return source, tuple(book)


def _plain(standing: Standing) -> dict[str, Any]:
    score = standing.score
    return {
        "model": str(standing.item),
        "rank": standing.rank,
        "score": score.estimate,
        "score_ci95": list(score.bounds),
        "rank_ci95": [standing.rank_low, standing.rank_high],
        "comparisons": standing.games,
    }


def _range(standing: Standing) -> str:
    low, high = standing.rank_low, standing.rank_high
    return "" if np.isnan(low) else f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _cut(standings: Sequence[Standing]) -> str:
    return f"The first {_SHOWN} of {len(standings)}." if len(standings) > _SHOWN else ""
