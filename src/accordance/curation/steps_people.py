"""Steps that ask how far people agree: weigh annotators, relabel by their vote, keep what two rankers agree on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.annotators import Reliability, dawid_skene
from accordance.core.flat import FlatPairs
from accordance.core.record import Judgment, Records
from accordance.core.scorer import Scorer
from accordance.core.weights import keeping, weighted, weights_of
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.steps_clean import drop_judgments

#: Accuracies beyond this are not told apart: nobody's word counts a hundred times.
_SURE = 0.98
#: Labels of a vote, in the order of the item's two texts (see `FlatPairs.items`).
FIRST, TIE, SECOND = 1.0, 0.5, 0.0


@dataclass(frozen=True)
class Votes:
    """What comparisons of two different texts say of them, one vote per judgment.

    Attributes:
        row, number: which judgment of which record, shape [n].
        person: who voted; a judgment without an annotator is somebody's only one; shape [n].
        named: whether there was an annotator, shape [n].
        item: what was voted on, equal for equal prompt, texts and attribute, shape [n].
        label: `FIRST`, `TIE` or `SECOND`, shape [n].
        shown_second: whether the item's first text was shown second, shape [n].
    """

    row: np.ndarray
    number: np.ndarray
    person: np.ndarray
    named: np.ndarray
    item: np.ndarray
    label: np.ndarray
    shown_second: np.ndarray

    @classmethod
    def of(cls, records: Records) -> Votes:
        """The votes in a table."""
        flat = FlatPairs.of(records)
        _, judgment, pairs = np.unique(
            flat.row * (1 << 20) + flat.number, return_inverse=True, return_counts=True
        )
        flat = flat.select((pairs[judgment] == 1) & (flat.text[flat.first] != flat.text[flat.second]))
        item, swapped = flat.items()
        named = flat.annotator >= 0
        alone = len(flat.names["annotator"]) + np.arange(len(flat))
        label = np.where(swapped, 1 - flat.label, flat.label)
        person = np.where(named, flat.annotator, alone)
        return cls(flat.row, flat.number, person, named, item, label, swapped)

    def select(self, mask: np.ndarray) -> Votes:
        """The votes where the mask is true."""
        return Votes(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def reliability(self) -> Reliability:
        """How far each voter can be trusted, by `accordance.core.annotators.dawid_skene`.

        Raises:
            DataError: nobody judged what another judged, or all gave one label.
        """
        return dawid_skene(self.person, self.item, self.label)

    def by_row(self) -> dict[int, list[int]]:
        """The places of each record's votes."""
        found: dict[int, list[int]] = defaultdict(list)
        for place, row in enumerate(self.row.tolist()):
            found[row].append(place)
        return found


@step("weigh_annotators")
class WeighAnnotators(Step):
    """Let each judgment count as its annotator's reliability says, found from what several people judged.

    Attributes:
        how: ``log_odds`` of being right (a vote weighed so is the best one for independent voters), or
            ``accuracy``, which differs less. Either way the mean weight is 1.
        floor: the least weight; 0 lets somebody who guesses count for nothing.
    """

    how: Literal["log_odds", "accuracy"] = "log_odds"
    floor: float = Field(0.0, ge=0, lt=1)

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        votes = Votes.of(records)
        votes = votes.select(votes.named)
        known = votes.reliability()
        trust = dict(zip(known.people, known.accuracy.tolist()))
        raw = {who: self._weight(right, len(known.classes)) for who, right in trust.items()}
        mean = float(np.mean([raw[who] for who in votes.person.tolist()])) or 1.0
        places = votes.by_row()
        plan, rows = Plan(), sorted(places)
        for row, record in zip(rows, records.select(rows)):
            old = weights_of(record)
            who = {int(votes.number[place]): votes.person[place] for place in places[row]}
            factor = [raw[who[n]] / mean if n in who else 1.0 for n in range(len(old))]
            new = [weight * max(f, self.floor) for weight, f in zip(old, factor)]
            right = float(np.mean([trust[person] for person in who.values()]))
            reason = "weighed by the annotator's reliability"
            plan.change(row, weighted(record, new), reason, weight=float(np.mean(new)), reliability=right)
        plan.notes = {"annotators": len(trust), "least": min(trust.values()), "most": max(trust.values())}
        return plan

    def _weight(self, right: float, classes: int) -> float:
        if self.how == "accuracy":
            return right
        chance = 1 / classes
        right = min(max(right, chance), _SURE)
        return float(np.log(right * (classes - 1) / (1 - right)))


@step("relabel")
class Relabel(Step):
    """Put one judgment in the place of several: the vote of all annotators, each weighed by reliability.

    Judgments of other kinds, and comparisons of three or more responses, stay as they are.

    Attributes:
        least: certainty of the vote below which a pair is left out.
        soft: whether the vote counts as much as it is certain (weight 2p - 1) rather than fully.
        voter: the annotator's name in the new judgment.
    """

    least: float = Field(0.5, ge=0, le=1)
    soft: bool = False
    voter: str = "vote"

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        votes = Votes.of(records)
        known = votes.reliability()
        places, flipped = votes.by_row(), 0
        plan, rows = Plan(), sorted(places)
        index = {item: place for place, item in enumerate(known.items)}
        for row, record in zip(rows, records.select(rows)):
            gone = {int(votes.number[place]) for place in places[row]}
            kept = [n for n in range(len(record.judgments)) if n not in gone]
            weights = [weights_of(record)[n] for n in kept]
            new, sure, against = [], [], 0
            for item in dict.fromkeys(votes.item[places[row]].tolist()):
                said = [place for place in places[row] if votes.item[place] == item]
                posterior = known.posterior[index[item]]
                label, certain = float(known.classes[int(posterior.argmax())]), float(posterior.max())  # type: ignore[arg-type]
                sure.append(certain)
                against += sum(votes.label[place] != label for place in said)
                if certain >= self.least:
                    ahead = 1 - label if votes.shown_second[said[0]] else label
                    old = record.judgments[votes.number[said[0]]]
                    values = {FIRST: (1.0, 0.0), SECOND: (0.0, 1.0), TIE: (0.0, 0.0)}[ahead]
                    vote = Judgment("comparison", old.responses, values, annotator=self.voter)
                    new.append(replace(vote, attribute=old.attribute))
                    weights.append(max(2 * certain - 1, 0.0) if self.soft else 1.0)
            numbers = {"certainty": min(sure), "votes": len(places[row]), "against": against}
            flipped += against
            if not new and not kept:
                plan.drop(row, "the vote is not certain enough", **numbers)
                continue
            rest = keeping(record, kept)
            changed = replace(rest, judgments=(*rest.judgments, *new))
            plan.change(row, weighted(changed, weights), "relabelled by a weighted vote", **numbers)
        plan.notes = {"judgments": len(votes.item), "against_the_vote": flipped}
        return plan


@step("drop_disputed")
class DropDisputed(Step):
    """Drop what people disagree on: pairs on which less than `least` of the votes say the same.

    Attributes:
        least: share of votes for the commonest label.
        voters: pairs with fewer votes stay as they are.
    """

    least: float = Field(0.66, gt=0, le=1)
    voters: int = Field(2, ge=2)

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        votes = Votes.of(records)
        count = np.stack([np.bincount(votes.item, votes.label == label) for label in (FIRST, TIE, SECOND)])
        total, most = count.sum(0), count.max(0)
        share = most / np.maximum(total, 1)
        disputed = (total >= self.voters) & (share < self.least)
        votes = votes.select(disputed[votes.item])
        plan, places = Plan(), votes.by_row()
        rows = sorted(places)
        for row, record in zip(rows, records.select(rows)):
            numbers = votes.number[places[row]].tolist()
            drop_judgments(plan, row, record, numbers, f"fewer than {self.least:.0%} agree")
        return plan


@step("agree")
class Agree(Step):
    """Keep what a second ranker agrees on: of each ranking, the longest part that a scorer orders the same way.

    The longest common subsequence of the two rankings (CycleAlign, arXiv:2310.16271); of a pair it is the pair or
    nothing. With a model that learned from other data as the scorer, this filters noise as confidence filters do
    (arXiv:2406.11431); the errors of the two must not be shared.

    Attributes:
        scorer: the second ranker: a scorer, or a name that can be resolved to one.
        least: shortest agreed part that is kept.
        margin: how far apart two scores must be to be an order; what is nearer counts as disagreement.
    """

    scorer: Any
    least: int = Field(2, ge=2)
    margin: float = Field(0.0, ge=0)

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        scored = response_scores(records, tools.scorer(self.scorer, "agree"), tools)
        plan = Plan()
        for row, record in enumerate(records):
            judgments, gone, cut = list(record.judgments), [], 0
            for number, judgment in enumerate(record.judgments):
                if judgment.kind not in ("comparison", "rating") or len(judgment.responses) < 2:
                    continue
                if judgment.tie or None in scored[row]:
                    continue
                order = agreed(judgment.values, [scored[row][i] for i in judgment.responses], self.margin)
                if len(order) < self.least:
                    gone.append(number)
                elif len(order) < len(judgment.responses):
                    kept = sorted(order)
                    judgments[number] = replace(
                        judgment,
                        responses=tuple(judgment.responses[i] for i in kept),
                        values=tuple(judgment.values[i] for i in kept),
                    )
                    cut += len(judgment.responses) - len(kept)
            if gone:
                drop_judgments(
                    plan, row, replace(record, judgments=tuple(judgments)), gone, "the second ranker disagrees"
                )
            elif cut:
                changed = replace(record, judgments=tuple(judgments))
                plan.change(row, changed, "cut to what both rankers agree on", responses_cut=cut)
        return plan


def agreed(values: Sequence[float], scores: Sequence[Any], margin: float = 0.0) -> list[int]:
    """Places of the longest part of a ranking that scores order the same way, best first.

    A longest chain in which each next response is worse by the values and by more than `margin` by the scores;
    for two full rankings without ties this is their longest common subsequence.

    Args:
        values: the ranking, higher is better, shape [k].
        scores: the other ranker's, shape [k].
        margin: least difference of scores that is an order.
    """
    order = sorted(range(len(values)), key=lambda i: -values[i])
    best: list[list[int]] = []
    for place, i in enumerate(order):
        before = (
            best[p]
            for p, j in enumerate(order[:place])
            if values[j] > values[i] and scores[j] - scores[i] > margin
        )
        best.append([*max(before, key=len, default=[]), i])
    return max(best, key=len, default=[])


def response_scores(records: Records, scorer: Scorer, tools: Tools) -> list[list[float | None]]:
    """What a scorer says of every response, asked in blocks of 256 records."""
    found: list[list[float | None]] = []
    for start in range(0, len(records), 256):
        block = records.block(start, start + 256)
        prompts = [record.prompt for record in block for _ in record.responses]
        texts = [response.text for record in block for response in record.responses]
        given = iter(scorer.score(prompts, texts) if texts else [])
        found += [[next(given) for _ in record.responses] for record in block]
        tools.progress("scoring", len(found), len(records))
    return found
