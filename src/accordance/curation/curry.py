"""Curry-DPO: pairs from ranked responses, and the stages of a curriculum over them, easy to hard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records
from accordance.core.views import which_attribute
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.pipeline_measures import measure

Which = Literal["best_vs_rest", "all", "adjacent"]
_WHICH = ("best_vs_rest", "all", "adjacent")
#: Where the pair's place in the curriculum stands in the extras: its rank by gap within its prompt, from 0.
RANK, GAP = "curriculum_rank", "curriculum_gap"


def pairs_from_ranking(scores: Sequence[float], which: Which = "best_vs_rest") -> list[tuple[int, int, float]]:
    """Pairs of responses from one score each, by falling gap: the easiest to tell apart first.

    Args:
        scores: one per response, higher is better, shape [k].
        which: ``best_vs_rest`` (the best against each other one), ``all`` pairs, or ``adjacent`` ranks.

    Returns:
        (better, worse, gap) with gap > 0: indices into `scores`. Equal scores make no pair; of several best
        responses, the first one is the best.
    """
    if which not in _WHICH:
        raise ConfigError("unknown pairs", where="which", found=which, expected=", ".join(_WHICH))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    if which == "best_vs_rest":
        taken = [(order[0], other) for other in order[1:]] if order else []
    else:
        taken = list(combinations(order, 2) if which == "all" else pairwise(order))
    found = [(a, b, float(scores[a] - scores[b])) for a, b in taken if scores[a] > scores[b]]
    return sorted(found, key=lambda pair: -pair[2])


def response_ratings(record: Record, attribute: str | None = None) -> list[float | None]:
    """One number per response: the mean of its ratings, or where there are none, of its values in rankings.

    Args:
        record: with ratings, or comparisons of three or more.
        attribute: of the judgments that count.
    """
    given: dict[str, dict[int, list[float]]] = {"rating": defaultdict(list), "comparison": defaultdict(list)}
    for judgment in record.judgments:
        if judgment.kind in given and judgment.attribute == attribute:
            for response, value in zip(judgment.responses, judgment.values):
                given[judgment.kind][response].append(value)
    chosen = given["rating"] or given["comparison"]
    return [float(np.mean(chosen[i])) if i in chosen else None for i in range(len(record.responses))]


def curry_pairs(record: Record, which: Which = "best_vs_rest", attribute: str | None = None) -> list[Record]:
    """A record per pair, the easiest first; responses that nobody rated take no part.

    The pair keeps the record's order of responses, so that which one is chosen can't be told from its place.
    """
    ratings = response_ratings(record, attribute)
    rated = [i for i, rating in enumerate(ratings) if rating is not None]
    made = []
    for rank, (a, b, gap) in enumerate(pairs_from_ranking([ratings[i] or 0.0 for i in rated], which)):
        low, high = sorted((rated[a], rated[b]))
        values = (ratings[low] or 0.0, ratings[high] or 0.0)
        rest = {k: v for k, v in record.extras.items() if k != "weights"}
        made.append(
            replace(
                record,
                responses=(record.responses[low], record.responses[high]),
                judgments=(Judgment("comparison", (0, 1), values, attribute=attribute),),
                id=f"{record.id}/{rank}",
                extras={**rest, RANK: rank, GAP: gap},
            )
        )
    return made


@step("curry_pairs")
class CurryPairs(Step):
    """Take records with several rated responses apart into pairs (S124), each a record with its gap and rank.

    Attributes:
        which: ``best_vs_rest``, ``all`` or ``adjacent``; see `pairs_from_ranking`.
        attribute: of the ratings; by default overall ones, or the only attribute.
    """

    which: Which = "best_vs_rest"
    attribute: str | None = None

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan, attribute = Plan(), which_attribute(records, ("comparison", "rating"), self.attribute)
        for row, record in enumerate(records):
            made = curry_pairs(record, self.which, attribute)
            plan.drop(row, "taken apart into pairs" if made else "no two ratings that differ", pairs=len(made))
            for pair in made:
                plan.add(
                    pair, "a pair of rated responses", of=row, gap=pair.extras[GAP], rank=pair.extras[RANK]
                )
        return plan


@step("curriculum")
class Curriculum(Step):
    """Order records from easy to hard, and say in `extras["stage"]` which stage each belongs to, from 1.

    Attributes:
        by: what easy means, see `accordance.curation.MEASURES`: ``gap`` (large is easy), ``agreement``, ``length``
            (short is easy), ``scorer`` (the margin it gives), or ``extras.NAME`` (small is easy).
        stages: in how many equal parts the order is cut.
        scorer: for ``by: scorer``.
        reverse: hard to easy.
    """

    by: str = "gap"
    stages: int = Field(3, ge=1)
    scorer: Any = None
    reverse: bool = False

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan = Plan()
        values = measure(records, self.by, self.scorer, tools)
        order = np.argsort(values if self.reverse else -values, kind="stable")
        if np.isnan(values).any():
            raise DataError(
                f"{int(np.isnan(values).sum())} records have no {self.by} to be ordered by",
                where=f"curriculum, {records.source}",
                found=records[int(np.flatnonzero(np.isnan(values))[0])].origin,
                remedy="drop ties and records without judgments first, or order by something else",
            )
        stage = np.empty(len(order), dtype=int)
        stage[order] = np.arange(len(order)) * self.stages // max(len(order), 1) + 1
        for row, record in enumerate(records):
            new = replace(record, extras={**record.extras, "stage": int(stage[row])})
            if new.extras != dict(record.extras):
                plan.change(row, new, "given a stage of the curriculum", stage=int(stage[row]))
        numbers = {row: {"easiness": float(values[row])} for row in range(len(order))}
        plan.arrange(order.tolist(), "easy to hard" if not self.reverse else "hard to easy", numbers)
        return plan


@system("S124", "Curry-DPO", paper="arXiv:2403.07230")
def stages(
    records: Records,
    stages: int = 3,
    *,
    which: Which = "best_vs_rest",
    scope: Literal["prompt", "global"] = "prompt",
    by: str = "gap",
    attribute: str | None = None,
    scorer: Any = None,
    reverse: bool = False,
    tools: Tools | None = None,
) -> list[Records]:
    """The stages of a curriculum over ranked preference pairs, easy to hard.

    Records with several rated responses are taken apart into pairs, which are put into stages by how easy they
    are. Train on one stage after the other, each from the policy of the one before and with that as its reference;
    the divergence from the first reference then adds up over the stages.

    Args:
        records: with ratings of, or comparisons between, the responses of each prompt.
        stages: how many.
        which: which pairs are made; see `pairs_from_ranking`.
        scope: ``prompt``: the easiest pair of each prompt is in the first stage, the next in the second, so that
            no stage holds a prompt twice (the paper's; later pairs than there are stages are left out, and said to
            be in the account); ``global``: all pairs in one order, cut into equal parts.
        by: what easy means (see `accordance.curation.MEASURES`); the gap of the ratings by default.
        attribute: of the ratings; by default overall ones, or the only attribute.
        scorer: for ``by="scorer"``: another judge, or a reference policy's log-probabilities as a scorer.
        reverse: hard to easy.
        tools: resolves a scorer's name.

    Returns:
        As many Records as stages; each with the account of the source and what was left out.

    Raises:
        ConfigError: an option is out of range.
        DataError: there are no ratings that differ, or too few pairs for a stage.
    """
    if stages < 1 or scope not in ("prompt", "global"):
        raise ConfigError(
            "stages is at least 1 and scope is 'prompt' or 'global'",
            where="curriculum",
            found=f"stages={stages}, scope={scope!r}",
        )
    tools = tools or Tools()
    wanted = which_attribute(records.materialise(), ("comparison", "rating"), attribute)
    account, made, prompt = records.account.copy(), [], []
    for row, record in enumerate(records):
        found = curry_pairs(record, which, wanted)
        if not found:
            account.drop("no two ratings that differ", record.origin)
        made += found
        prompt += [row] * len(found)
    pairs = Records.of(made, source=records.source)
    values = measure(pairs, by, scorer, tools) if made else np.zeros(0)
    easy = values if reverse else -values
    order = np.argsort(easy, kind="stable")
    if scope == "global":
        parts = [part.tolist() for part in np.array_split(order, stages)]
    else:
        parts, taken = [[] for _ in range(stages)], defaultdict(int)
        for place in order.tolist():
            rank = taken[prompt[place]]
            taken[prompt[place]] += 1
            if rank < stages:
                parts[rank].append(place)
            else:
                account.notes["pairs beyond the last stage, left out"] += 1
    if not all(parts):
        raise DataError(
            "there are too few pairs for a stage of the curriculum",
            where=records.source,
            found=f"stages of {[len(part) for part in parts]} pairs",
            remedy="fewer stages, which='all', or scope='global'",
        )
    made_of = [pairs.select(sorted(part) if scope == "prompt" else part) for part in parts]
    return [
        Records(part.dataset, account.copy(), f"{records.source}, stage {n}")
        for n, part in enumerate(made_of, 1)
    ]
