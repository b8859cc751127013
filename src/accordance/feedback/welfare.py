"""How groups of people fare when a sample of people picks the model for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.figures import forest
from accordance.core.report import Report
from accordance.core.stats import Interval
from accordance.feedback.participation import RatedTurn, scaled


@dataclass(frozen=True)
class Scheme:
    """Who is asked, and how they decide.

    Attributes:
        name: of the scheme.
        shares: of each group among those asked; they sum to 1.
        size: how many people are asked.
        rule: ``mean`` (the highest mean rating) or ``worst_group`` (the highest mean rating in the group that
            likes it least).
    """

    name: str
    shares: Mapping[str, float]
    size: int
    rule: Literal["mean", "worst_group"] = "mean"

    def __post_init__(self) -> None:
        if (
            abs(sum(self.shares.values()) - 1) > 1e-6
            or self.size < 1
            or self.rule not in ("mean", "worst_group")
        ):
            raise ConfigError(
                "this scheme asks nobody", found=self, expected="shares that sum to 1, a rule, a size"
            )


@dataclass(frozen=True)
class Welfare:
    """What each group gets under each scheme.

    Attributes:
        schemes, groups: their names, s and h of them.
        rating: mean rating of the model that the scheme picks, in points above the average model, shape [s, h].
        regret: how much that is below the model the group itself would pick, shape [s, h].
        harmed: share of the draws in which the group gets less than an average model, shape [s, h].
        low, high: 95% of the draws of `rating`, shape [s, h].
        picked: for each scheme, how often each model was picked.
    """

    schemes: tuple[str, ...]
    groups: tuple[str, ...]
    rating: np.ndarray
    regret: np.ndarray
    harmed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    picked: tuple[dict[str, int], ...]


def standard_schemes(groups: Mapping[str, str], size: int) -> list[Scheme]:
    """Each group alone, everybody as they come, every group equally, and every group equally with a veto of sorts."""
    names = sorted(set(groups.values()))
    people = list(groups.values())
    alone = [Scheme(f"only {name}", {name: 1.0}, size) for name in names]
    as_is = {name: people.count(name) / len(people) for name in names}
    even = dict.fromkeys(names, 1 / len(names))
    return [
        *alone,
        Scheme("everybody", as_is, size),
        Scheme("equal groups", even, size),
        Scheme("equal groups, worst group decides", even, size, "worst_group"),
    ]


@system("S066", "PRISM", paper="arXiv:2404.16019")
def welfare(
    turns: Sequence[RatedTurn],
    groups: Mapping[str, str],
    schemes: Sequence[Scheme],
    *,
    draws: int = 200,
    least: int = 5,
    seed: int = 0,
) -> Welfare:
    """Welfare of groups under schemes of asking (Kirk et al. 2024, case study 3).

    In each draw people are split in two halves. A scheme asks people of the one half and picks a model; welfare is
    measured on the other half, so that nobody is in both. Ratings are centred per person and kind of conversation
    first, since sliders are used differently and prompts differ. Profiles, census weights (`rake`), sampling plans
    (`plan_sample`) and rankings of models by group (`model_scores`) are in `feedback.participation`.

    Args:
        turns: ratings in points, as people gave them.
        groups: the group of each person; people without one are left out.
        schemes: whom to ask and how to decide; groups that run short in a half are drawn with replacement.
        draws: how often to split and ask.
        least: ratings that a model needs among those asked (in each of their groups, where the worst decides).
        seed: of the draws.

    Raises:
        DataError: a scheme asks a group that has fewer than two people, or no model has ratings enough.
        ConfigError: no draws.
    """
    if draws < 1 or not schemes:
        raise ConfigError("welfare needs draws and schemes", found=(draws, len(schemes)))
    held = [turn for turn in turns if turn.person in groups]
    total, count, people, models = _sums(scaled(held, "centre", by_kind=True))
    names = tuple(sorted({groups[person] for person in people}))
    members = {name: np.array([i for i, p in enumerate(people) if groups[p] == name]) for name in names}
    short = {n: len(members.get(n, ())) for s in schemes for n in s.shares if len(members.get(n, ())) < 2}
    if short:
        raise DataError("a group is too small to be split", found=short, expected="two people or more")
    generator = np.random.default_rng(seed)
    rating = np.zeros((draws, len(schemes), len(names)))
    best = np.zeros((draws, len(names)))
    picked: list[dict[str, int]] = [{} for _ in schemes]
    for draw in range(draws):
        halves = {}
        for name in names:
            order = generator.permutation(members[name])
            halves[name] = order[: len(order) // 2], order[len(order) // 2 :]
        means = np.array([_means(total, count, halves[name][1]) for name in names])  # [groups, models]
        for h, name in enumerate(names):
            own = _pick(total, count, [halves[name][0]], "mean", least, models)
            best[draw, h] = means[h, own]
        for s, scheme in enumerate(schemes):
            asked = []
            for name, share in scheme.shares.items():
                half, many = halves[name][0], round(share * scheme.size)
                asked.append(generator.choice(half, many, replace=many > len(half)))
            choice = _pick(total, count, asked, scheme.rule, least, models)
            picked[s][models[choice]] = picked[s].get(models[choice], 0) + 1
            rating[draw, s] = means[:, choice]
    low, high = np.nanquantile(rating, [0.025, 0.975], axis=0)
    return Welfare(
        tuple(scheme.name for scheme in schemes),
        names,
        np.nanmean(rating, axis=0),
        np.nanmean(best[:, None, :] - rating, axis=0),
        np.nanmean(rating < 0, axis=0),
        low,
        high,
        tuple(picked),
    )


def _sums(turns: Sequence[RatedTurn]) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    people = sorted({turn.person for turn in turns})
    models = sorted({model for turn in turns for model in turn.models})
    at, of = {p: i for i, p in enumerate(people)}, {m: i for i, m in enumerate(models)}
    total, count = np.zeros((2, len(people), len(models)))
    for turn in turns:
        for model, score in zip(turn.models, turn.scores):
            total[at[turn.person], of[model]] += score
            count[at[turn.person], of[model]] += 1
    return total, count, people, models


def _means(total: np.ndarray, count: np.ndarray, who: np.ndarray, least: int = 1) -> np.ndarray:
    """Mean rating of each model by some people, NaN where they rated it too rarely; shape [models]."""
    sums, many = total[who].sum(0), count[who].sum(0)
    return np.divide(sums, many, out=np.full(len(sums), np.nan), where=many >= least)


def _pick(
    total: np.ndarray,
    count: np.ndarray,
    asked: Sequence[np.ndarray],
    rule: str,
    least: int,
    models: Sequence[str],
) -> int:
    if rule == "mean":
        score = _means(total, count, np.concatenate(list(asked)), least)
    else:
        score = np.min([_means(total, count, who, least) for who in asked if len(who)], axis=0)
    if np.isnan(score).all():
        raise DataError(
            f"no model has {least} ratings among those asked",
            found=f"{sum(map(len, asked))} people, {len(models)} models",
            remedy="ask more people, or set a smaller least=",
        )
    return int(np.nanargmax(score))


def welfare_report(found: Welfare) -> Report:
    """Welfare as a report: ratings, regrets and the worst-off group of each scheme."""
    worst = found.rating.min(1)
    leader = int(worst.argmax())
    report = Report(
        "Who fares how when others choose the model",
        f"The worst-off group fares best under: {found.schemes[leader]}.",
        meta={"groups": found.groups, "schemes": found.schemes},
    )
    tables = {
        "Rating, in points above the average model": (found.rating, "min"),
        "Regret: points below what the group itself would pick": (found.regret, "max"),
        "Share of draws in which the group gets less than an average model": (found.harmed, "max"),
    }
    for title, (values, end) in tables.items():
        rows = [
            [name, *row.tolist(), row.mean(), getattr(row, end)()] for name, row in zip(found.schemes, values)
        ]
        report.table(title, ["who is asked", *found.groups, "mean", "worst"], rows)
    drawn = []
    for s, (name, g) in enumerate(zip(found.schemes, found.rating.argmin(1))):
        interval = Interval(float(found.rating[s, g]), float(found.low[s, g]), float(found.high[s, g]), 0)
        drawn.append((f"{name}: {found.groups[g]}", interval))
    report.figure("Rating by the group that fares worst", forest(drawn, xlabel="points", reference=0.0))
    report.table(
        "Models picked",
        ["who is asked", "model", "share of draws"],
        [
            [name, model, many / sum(picks.values())]
            for name, picks in zip(found.schemes, found.picked)
            for model, many in sorted(picks.items(), key=lambda each: -each[1])[:3]
        ],
    )
    report.data(
        "welfare", {name: dict(zip(found.groups, row)) for name, row in zip(found.schemes, found.rating)}
    )
    report.data(
        "regret", {name: dict(zip(found.groups, row)) for name, row in zip(found.schemes, found.regret)}
    )
    return report
