"""The report on those who rated: who they are, whom they stand for, what each group prefers, who fares how."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from accordance.core.report import Report
from accordance.feedback.participation import (
    Margins,
    RatedTurn,
    effective_size,
    group_distance,
    model_scores,
    plan_sample,
    rake,
)
from accordance.feedback.welfare import standard_schemes, welfare, welfare_report

#: Groups of fewer people are named and left out of rankings and welfare.
LEAST = 8


def people_report(
    turns: Sequence[RatedTurn],
    profiles: Mapping[str, Mapping[str, str]],
    groups: Mapping[str, str],
    census: Margins | None = None,
    *,
    plan: int | None = None,
    asked: int = 100,
    draws: int = 200,
    seed: int = 0,
) -> Report:
    """Everything that PRISM's three case studies ask of ratings by people whose profiles are known.

    Args:
        turns: ratings, see `rated_turns`.
        profiles: what people said of themselves, by person.
        groups: the group of each person, for rankings and welfare; without it only the whole is ranked.
        census: shares of answers; raters with a profile are weighted to match them.
        plan: of everybody with a profile, whom to ask so that so many people match the census.
        asked: people that each scheme asks.
        draws: of the welfare analysis.
        seed: of all resampling.
    """
    raters = {turn.person for turn in turns}
    report = Report("The people behind the ratings", meta={"seed": seed, "census": census})
    report.add("people", len(raters), headline=True).add("turns", len(turns))
    report.add("ratings", sum(len(turn.scores) for turn in turns))
    report.add("profiles", len(raters & set(profiles)), note="raters whose profile is known")
    size = Counter(groups[person] for person in raters if person in groups)
    if without := len(raters) - sum(size.values()):
        report.warn(f"{without} of {len(raters)} raters have no group")
    weights = None
    if census is not None:
        weights = _representation(report, {p: profiles[p] for p in raters if p in profiles}, census)
    if plan is not None and census is not None:
        report.data("plan", plan_sample(profiles, census, plan, seed=seed))
        report.add("planned", plan, note="people to ask, by name under `plan`")
    big = sorted(name for name, many in size.items() if many >= LEAST)
    small = {name: many for name, many in size.items() if many < LEAST}
    if small:
        report.warn(f"groups of fewer than {LEAST} people are not compared: {small}")
    _rankings(report, turns, groups, big, weights, seed)
    if len(big) > 1:
        inside = {person: group for person, group in groups.items() if person in raters and group in big}
        schemes = standard_schemes(inside, min(asked, len(inside) // 2))
        found = welfare(turns, inside, schemes, draws=draws, seed=seed)
        report.include(welfare_report(found), prefix="welfare_")
    return report


def _representation(
    report: Report, people: Mapping[str, Mapping[str, str]], census: Margins
) -> dict[str, float]:
    weights = rake(people, census)
    report.section("Whom they stand for")
    rows = []
    for question, shares in census.items():
        given = Counter(said.get(question) for said in people.values())
        for answer, share in shares.items():
            here = given[answer] / len(people)
            rows.append([question, answer, here, share, here / share if share else None])
    columns = ["question", "answer", "share of raters", "share in the census", "over-represented by"]
    report.table("Raters and census", columns, rows)
    report.add("effective_people", effective_size(weights), note="equally weighted people they are worth")
    report.add("largest_weight", max(weights.values()))
    return weights


def _rankings(
    report: Report,
    turns: Sequence[RatedTurn],
    groups: Mapping[str, str],
    big: Sequence[str],
    weights: Mapping[str, float] | None,
    seed: int,
) -> None:
    report.section("Whose taste ranks models how", "Rank centrality over comparisons within a person's turns.")
    some: dict[str, list[RatedTurn]] = defaultdict(list)
    for turn in turns:
        some[groups.get(turn.person, "")].append(turn)
    scores = {"everybody": model_scores(turns)}
    if weights is not None:
        scores["weighted to the census"] = model_scores(turns, weights=weights)
    scores |= {name: model_scores(some[name]) for name in big}
    ranks = {
        name: {model: place for place, model in enumerate(sorted(found, key=lambda m: -found[m]), 1)}
        for name, found in scores.items()
    }
    models = sorted(scores["everybody"], key=lambda model: ranks["everybody"][model])
    rows = [[model, *[ranks[name].get(model) for name in scores]] for model in models]
    report.table("Rank of each model", ["model", *scores], rows)
    report.data("model_ranks", ranks)
    rows = []
    for a, b in combinations(big, 2):
        sides = tuple({turn.person for turn in some[name]} for name in (a, b))
        rows.append([a, b, group_distance(turns, (sides[0], sides[1]), samples=50, seed=seed)])
    if rows:
        note = "share of pairs of models that two groups order differently; 0.5 is chance"
        report.table("Distance between groups", ["group", "group", "Kendall distance"], rows, note)
