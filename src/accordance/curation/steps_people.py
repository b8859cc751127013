"""Steps that ask how far people agree: weigh annotators, relabel by their vote, keep what two rankers agree on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.annotators import Reliability, dawid_skene
from accordance.core.record import Judgment, Record, Records
from accordance.core.scorer import Scorer
from accordance.core.weights import keeping, weighted, weights_of
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.steps_clean import drop_judgments

_FIRST, _TIE, _SECOND = "first", "tie", "second"
#: Accuracies beyond this are not told apart: nobody's word counts a hundred times.
_SURE = 0.98


@dataclass(frozen=True)
class Vote:
    """What one judgment says of one pair of answers.

    Attributes:
        row, number: which judgment of which record.
        who: the annotator; a judgment without one counts as somebody's only one.
        item: the pair, as (prompt, one text, other text, attribute), equal for equal pairs in any order.
        label: ``first``, ``second`` or ``tie``, in the order of the item's texts.
        swapped: whether the record's lower-numbered response is the item's second.
        named: whether there was an annotator.
    """

    row: int
    number: int
    who: object
    item: tuple[object, ...]
    label: str
    swapped: bool
    named: bool


def votes(records: Records) -> Iterator[Vote]:
    """A vote for each judgment that compares two responses with different texts."""
    for row, record in enumerate(records):
        for number, judgment in enumerate(record.judgments):
            if judgment.kind != "comparison" or len(judgment.responses) != 2:
                continue
            low, high = sorted(judgment.responses)
            texts = record.responses[low].text, record.responses[high].text
            if texts[0] == texts[1]:
                continue
            value = dict(zip(judgment.responses, judgment.values))
            swapped = texts[0] > texts[1]
            ahead = (value[low] - value[high]) * (-1 if swapped else 1)
            label = _TIE if ahead == 0 else _FIRST if ahead > 0 else _SECOND
            item = (hash(record.prompt), *sorted(texts), judgment.attribute)
            named = judgment.annotator is not None
            yield Vote(row, number, judgment.annotator if named else (row, number), item, label, swapped, named)


def reliability(found: Sequence[Vote]) -> Reliability:
    """How far each voter can be trusted, by `accordance.core.annotators.dawid_skene`.

    Raises:
        DataError: nobody judged what another judged, or all gave one label.
    """
    return dawid_skene([v.who for v in found], [v.item for v in found], [v.label for v in found])


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
        found = [vote for vote in votes(records) if vote.named]
        known = reliability(found)
        trust = dict(zip(known.people, known.accuracy.tolist()))
        raw = {who: self._weight(right, len(known.classes)) for who, right in trust.items()}
        mean = float(np.mean([raw[vote.who] for vote in found])) or 1.0
        by_row: dict[int, dict[int, object]] = defaultdict(dict)
        for vote in found:
            by_row[vote.row][vote.number] = vote.who
        plan, rows = Plan(), sorted(by_row)
        for row, record in zip(rows, records.select(rows)):
            old = weights_of(record)
            factor = [raw[by_row[row][n]] / mean if n in by_row[row] else 1.0 for n in range(len(old))]
            new = [weight * max(f, self.floor) for weight, f in zip(old, factor)]
            right = float(np.mean([trust[who] for who in by_row[row].values()]))
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
        found = list(votes(records))
        known = reliability(found)
        at = {item: place for place, item in enumerate(known.items)}
        by_row: dict[int, list[Vote]] = defaultdict(list)
        for vote in found:
            by_row[vote.row].append(vote)
        plan, rows = Plan(), sorted(by_row)
        flipped = 0
        for row, record in zip(rows, records.select(rows)):
            kept = [n for n in range(len(record.judgments)) if n not in {v.number for v in by_row[row]}]
            weights = [weights_of(record)[n] for n in kept]
            new, sure, against = [], [], 0
            for item in dict.fromkeys(vote.item for vote in by_row[row]):
                said = [vote for vote in by_row[row] if vote.item == item]
                posterior = known.posterior[at[item]]
                label, certain = known.classes[int(posterior.argmax())], float(posterior.max())
                sure.append(certain)
                against += sum(vote.label != label for vote in said)
                if certain >= self.least:
                    new.append(_judgment(record, said[0], str(label), self.voter))
                    weights.append(max(2 * certain - 1, 0.0) if self.soft else 1.0)
            numbers = {"certainty": min(sure), "votes": len(by_row[row]), "against": against}
            flipped += against
            if not new and not kept:
                plan.drop(row, "the vote is not certain enough", **numbers)
                continue
            changed = replace(keeping(record, kept), judgments=(*keeping(record, kept).judgments, *new))
            plan.change(row, weighted(changed, weights), "relabelled by a weighted vote", **numbers)
        plan.notes = {"judgments": len(found), "against_the_vote": flipped}
        return plan


def _judgment(record: Record, vote: Vote, label: str, voter: str) -> Judgment:
    old = record.judgments[vote.number]
    low, high = sorted(old.responses)
    if vote.swapped:
        low, high = high, low
    worth = {_FIRST: (1.0, 0.0), _SECOND: (0.0, 1.0), _TIE: (0.0, 0.0)}[label]
    value = dict(zip((low, high), worth))
    return Judgment(
        "comparison",
        old.responses,
        tuple(value[i] for i in old.responses),
        annotator=voter,
        attribute=old.attribute,
    )


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
        by_item: dict[object, list[Vote]] = defaultdict(list)
        for vote in votes(records):
            by_item[vote.item].append(vote)
        gone: dict[int, list[int]] = defaultdict(list)
        share: dict[int, float] = {}
        for said in by_item.values():
            labels = [vote.label for vote in said]
            most = max(labels.count(label) for label in set(labels)) / len(labels)
            if len(said) >= self.voters and most < self.least:
                for vote in said:
                    gone[vote.row].append(vote.number)
                    share[vote.row] = most
        plan, rows = Plan(), sorted(gone)
        for row, record in zip(rows, records.select(rows)):
            drop_judgments(plan, row, record, gone[row], f"fewer than {self.least:.0%} agree")
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
