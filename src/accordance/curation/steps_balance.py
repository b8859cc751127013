"""Steps that balance: lengths of winners and losers, and how much each group of people or kind of prompt counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from accordance.core.errors import DataError
from accordance.core.record import Judgment, Record, Records
from accordance.core.weights import weighted, weights_of
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.steps_clean import drop_judgments

_PEOPLE = ("annotator", "group", "attribute")


def extremes(judgment: Judgment) -> tuple[int, int] | None:
    """The best and the worst judged response (indices into the record's), or None where there is no difference."""
    if (
        judgment.kind not in ("comparison", "rating")
        or len(judgment.values) < 2
        or len(set(judgment.values)) == 1
    ):
        return None
    values = judgment.values
    return judgment.responses[values.index(max(values))], judgment.responses[values.index(min(values))]


@step("length_balance")
class LengthBalance(Step):
    """Make length tell nothing: in each bucket of length difference, as many winners are longer as shorter.

    The difference is cut into buckets first, since a balance over all pairs leaves the longest differences as
    lopsided as they were (ChatGLM-RLHF, arXiv:2404.00934, section 3). Of a ranking, best and worst are the pair.
    Equal lengths and ties stay.

    Attributes:
        buckets: how many, with about as many pairs in each.
        unit: of length.
        seed: of which pairs are dropped.
    """

    buckets: int = Field(6, ge=1)
    unit: Literal["words", "characters"] = "words"
    seed: int = 0

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        found: list[tuple[int, int, int]] = []
        for row, record in enumerate(records):
            lengths: list[int] | None = None
            for number, judgment in enumerate(record.judgments):
                ends = extremes(judgment)
                if ends is not None:
                    lengths = lengths or [self._length(response.text) for response in record.responses]
                    if lengths[ends[0]] != lengths[ends[1]]:
                        found.append((row, number, lengths[ends[0]] - lengths[ends[1]]))
        plan = Plan()
        if not found:
            return plan
        gap = np.array([difference for *_, difference in found])
        bucket = length_buckets(gap, self.buckets)
        gone: dict[int, list[int]] = defaultdict(list)
        without = surplus(gap > 0, bucket, np.random.default_rng(self.seed))
        for place in without.tolist():
            gone[found[place][0]].append(place)
        rows = sorted(gone)
        for row, record in zip(rows, records.select(rows)):
            places = gone[row]
            longer = gap[places[0]] > 0
            reason = f"too many of the {'longer' if longer else 'shorter'} win at this difference in length"
            drop_judgments(plan, row, record, (found[place][1] for place in places), reason)
        plan.notes = {
            "pairs": len(gap),
            "longer_won_before": float((gap > 0).mean()),
            "longer_won_after": float((np.delete(gap, without) > 0).mean())
            if len(without) < len(gap)
            else None,
            "buckets": int(bucket.max()) + 1,
        }
        return plan

    def _length(self, text: str) -> int:
        return len(text.split()) if self.unit == "words" else len(text)


def length_buckets(gap: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of each length difference: about as many pairs in each, equal sizes of difference together.

    Args:
        gap: length of the winner less that of the loser, shape [n].
        buckets: at most so many.

    Returns:
        Codes 0 .. buckets - 1 by growing size of the difference, shape [n].
    """
    size = np.abs(gap)
    inner = np.unique(np.quantile(size, np.linspace(0, 1, buckets + 1)[1:-1])) if buckets > 1 else np.array([])
    return np.unique(np.searchsorted(inner, size, side="left"), return_inverse=True)[1]


def surplus(longer: np.ndarray, bucket: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Places of the pairs to leave out, so that in each bucket `longer` is true as often as false; ascending."""
    gone = []
    for code in np.unique(bucket):
        yes, no = (np.flatnonzero((bucket == code) & (longer == side)) for side in (True, False))
        many, few = (yes, no) if len(yes) > len(no) else (no, yes)
        gone.append(generator.choice(many, len(many) - len(few), replace=False))
    return np.sort(np.concatenate(gone))


@step("balance")
class Balance(Step):
    """Let every group count the same: drop from the larger ones, copy the smaller ones, or weigh.

    Attributes:
        by: ``annotator``, ``group`` or ``attribute`` (of judgments); ``source`` (who wrote the first response),
            ``origin`` (the file) or ``extras.NAME`` (of records).
        how: ``drop``, ``copy`` (records only) or ``weigh`` (judgments get weights whose mean is 1).
        most: with ``drop``, the size that larger groups come down to; by default that of the smallest.
        seed: of what is dropped or copied.
    """

    by: str = "group"
    how: Literal["drop", "copy", "weigh"] = "drop"
    most: int | None = Field(None, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _has_effect(self) -> Balance:
        if self.by not in (*_PEOPLE, "source", "origin") and not self.by.startswith("extras."):
            raise ValueError(f"by is one of {', '.join(_PEOPLE)}, source, origin, extras.NAME; not {self.by!r}")
        if self.how == "copy" and self.by in _PEOPLE:
            raise ValueError(
                "copy copies records, and one record may hold judgments of several groups; weigh them"
            )
        if self.most is not None and self.how != "drop":
            raise ValueError(f"most has no effect with how={self.how}")
        return self

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        units = list(self._units(records))
        sizes: dict[str, list[int]] = defaultdict(list)
        for place, (*_, name) in enumerate(units):
            sizes[name].append(place)
        if len(sizes) < 2 and self.most is None:
            raise DataError(
                "there are not two groups to balance",
                where=f"balance by {self.by}, {records.source}",
                found=", ".join(sizes) or "no group is named",
                remedy="balance by something else, or leave the step out",
            )
        plan, generator = Plan(), np.random.default_rng(self.seed)
        plan.notes = {f"{self.by}: {name}": len(places) for name, places in sorted(sizes.items())}
        if self.how == "weigh":
            share = {name: len(units) / len(sizes) / len(places) for name, places in sizes.items()}
            self._weigh(plan, records, {(row, number): share[name] for row, number, name in units})
        elif self.how == "copy":
            target, order = max(map(len, sizes.values())), list(range(len(records)))
            for places in sizes.values():
                again = generator.permutation(np.resize(places, target - len(places)))
                order += [units[place][0] for place in again.tolist()]
            plan.arrange(sorted(order), f"copied, so that each {self.by} counts the same")
        else:
            target = self.most or min(map(len, sizes.values()))
            gone: dict[int, list[int | None]] = defaultdict(list)
            for places in sizes.values():
                many = max(len(places) - target, 0)
                for place in generator.choice(places, many, replace=False).tolist():
                    gone[units[place][0]].append(units[place][1])
            rows = sorted(gone)
            for row, record in zip(rows, records.select(rows)):
                numbers = [n for n in gone[row] if n is not None] or range(len(record.judgments))
                reason = f"more than others of the same {self.by}"
                if None in gone[row]:
                    plan.drop(row, reason)
                else:
                    drop_judgments(plan, row, record, numbers, reason)
        return plan

    def _units(self, records: Records) -> Iterator[tuple[int, int | None, str]]:
        """(row, number of the judgment or None for the whole record, group) of whatever has a group."""
        for row, record in enumerate(records):
            if self.by in _PEOPLE:
                for number, judgment in enumerate(record.judgments):
                    if (name := getattr(judgment, self.by)) is not None:
                        yield row, number, str(name)
            elif (value := self._of_record(record)) is not None:
                yield row, None, str(value)

    def _of_record(self, record: Record) -> Any:
        if self.by == "source":
            return record.responses[0].source if record.responses else None
        if self.by == "origin":
            return record.origin.rsplit(":", 1)[0]
        return record.extras.get(self.by.removeprefix("extras."))

    def _weigh(self, plan: Plan, records: Records, share: dict[tuple[int, int | None], float]) -> None:
        for row, record in enumerate(records):
            old = weights_of(record)
            whole = share.get((row, None), 1.0)
            new = [w * share.get((row, number), whole) for number, w in enumerate(old)]
            if new != list(old):
                reason = f"weighed, so that each {self.by} counts the same"
                plan.change(row, weighted(record, new), reason, weight=float(np.mean(new)))
