"""ISA: a small subset that is good and says something new, instead of all the data."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.record import Record, Records
from accordance.curation import sampling
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.pipeline_measures import MEASURES, measure
from accordance.curation.steps_balance import extremes

#: Length of the vectors that texts are hashed into.
_BUCKETS = 256
#: Cells of the description: 2 ** bits of them in each of several tables.
_BITS, _TABLES = 12, 4


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians fitted to standardised signals.

    Attributes:
        posterior: P(the good one | signals) of each item, shape [n]; good has the larger mean signal.
        surprise: minus the log density of each item, shape [n].
        share: of the good one.
    """

    posterior: np.ndarray
    surprise: np.ndarray
    share: float


def two_gaussians(signals: np.ndarray, *, steps: int = 200, ridge: float = 1e-3) -> Mixture:
    """Fit a mixture of two Gaussians by EM, started on either side of the mean; shape of `signals`: [n, d].

    Raises:
        DataError: signals that are not finite, or fewer than four items.
    """
    x = np.asarray(signals, dtype=np.float64)
    if x.ndim != 2 or len(x) < 4 or not np.isfinite(x).all():
        raise DataError("a mixture needs finite signals of four or more items", found=f"shape {x.shape}")
    z = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    n, d = z.shape
    high = (z.sum(1) > np.median(z.sum(1))).astype(np.float64)
    weight = np.stack([1 - 0.8 * high - 0.1, 0.8 * high + 0.1], 1)
    log = np.zeros((n, 2))
    for _ in range(steps):
        total = weight.sum(0) + 1e-9
        for c in range(2):
            mean = weight[:, c] @ z / total[c]
            off = z - mean
            spread = (off * weight[:, c : c + 1]).T @ off / total[c] + ridge * np.eye(d)
            root = np.linalg.cholesky(spread)
            scaled = np.linalg.solve(root, off.T)
            log[:, c] = (
                np.log(total[c] / n)
                - 0.5 * (scaled**2).sum(0)
                - np.log(np.diag(root)).sum()
                - 0.5 * d * np.log(2 * np.pi)
            )
        new = np.exp(log - np.logaddexp(log[:, 0], log[:, 1])[:, None])
        change = float(np.abs(new - weight).max())
        weight = new
        if change < 1e-5:
            break
    means = [float((weight[:, c] @ z / weight[:, c].sum()).sum()) for c in range(2)]
    good = int(np.argmax(means))
    return Mixture(weight[:, good], -np.logaddexp(log[:, 0], log[:, 1]), float(weight[:, good].mean()))


def rarity(description: np.ndarray, *, bits: int = _BITS, tables: int = _TABLES, seed: int = 0) -> np.ndarray:
    """Self-information of each item's discrete description: minus the log share of items in its cell, in nats.

    Vectors fall into cells by the signs of random projections; near-duplicates share theirs. Of several such
    tables the one in which the item's cell is fullest counts, so that a near-duplicate on the edge of a cell is
    still found out.

    Args:
        description: a vector per item, shape [n, e].
        bits: 2 ** bits cells in each table.
        tables: how many.
        seed: of the projections.

    Returns:
        Shape [n].
    """
    generator, n = np.random.default_rng(seed), len(description)
    centred = description - description.mean(0)
    fullest = np.zeros(n)
    for _ in range(tables):
        signs = centred @ generator.normal(size=(description.shape[1], bits)) > 0
        code = signs @ (1 << np.arange(bits))
        fullest = np.maximum(fullest, np.bincount(code)[code])
    return -np.log(fullest / n)


@dataclass(frozen=True)
class Sample:
    """A subset, and why.

    Attributes:
        chosen: indices of the items, ascending, shape [k].
        score: q of each item, shape [n]; the sampling is in proportion to it.
        quality: P(good) of each item, shape [n].
        information: of each item, from 0 for the commonest to 1 for the rarest, shape [n].
    """

    chosen: np.ndarray
    score: np.ndarray
    quality: np.ndarray
    information: np.ndarray


@system("S116", "ISA", paper="arXiv:2411.10545")
def information_sample(
    signals: np.ndarray,
    k: int,
    *,
    description: np.ndarray | None = None,
    information: Literal["rarity", "density", "uncertainty"] | None = None,
    seed: int = 0,
) -> Sample:
    """Choose k items that are probably good and tell something new, by sampling in proportion to a score.

    A mixture of two Gaussians over signals of quality gives P(good); information is how rare the item is. The
    score is their product. It is sampled from, not cut at the top, which keeps what it covers wide.

    Where this departs from the abstract (the paper's features were not at hand): information is that of a
    discretised description where there is one (see `rarity`), since the density of a few signals can't see
    duplicates; it is scaled so that the commonest item has none.

    Args:
        signals: numbers per item that grow with quality, known without a model trained on these data; shape [n, d].
        k: how many to choose.
        description: what an item is about, such as an embedding; shape [n, e].
        information: ``rarity`` of the description (the default where there is one), ``density`` (minus the log
            density of the signals, the default elsewhere), or ``uncertainty`` (entropy of P(good)).
        seed: of the sampling.

    Returns:
        The subset and every item's score.

    Raises:
        DataError: too few items, more wanted than there are, or no description for ``rarity``.
    """
    n = len(signals)
    if not 0 < k <= n:
        raise DataError("a subset has at least one item and not more than there are", found=f"{k} of {n}")
    kind = information or ("density" if description is None else "rarity")
    mixture = two_gaussians(signals)
    if kind == "rarity":
        if description is None or len(description) != n:
            raise DataError(
                "rarity needs a description of every item", found="none" if description is None else n
            )
        raw = rarity(description, seed=seed)
    elif kind == "density":
        raw = mixture.surprise
    else:
        p = np.clip(mixture.posterior, 1e-12, 1 - 1e-12)
        raw = -p * np.log(p) - (1 - p) * np.log(1 - p)
    scaled = (raw - raw.min()) / max(float(np.ptp(raw)), 1e-12) if np.ptp(raw) > 0 else np.ones(n)
    score = (mixture.posterior if kind != "uncertainty" else 1.0) * scaled + 1e-12
    return Sample(sampling.in_proportion(score, k, seed), score, mixture.posterior, scaled)


def hashed_words(records: Records) -> np.ndarray:
    """What each record is about: its words, prompt and responses, hashed into counts, unit length; shape [n, 256]."""
    found = np.zeros((len(records), _BUCKETS))
    for row, record in enumerate(records):
        for text in (record.prompt_text, *(response.text for response in record.responses)):
            for word in re.findall(r"\w+", text.casefold()):
                code = zlib.crc32(word.encode())
                found[row, code % _BUCKETS] += 1 if code & 256 else -1
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def distinctness(record: Record) -> float:
    """How differently the best and the worst response are worded: 1 less the share of words both use (Jaccard)."""
    ends = next((found for found in map(extremes, record.judgments) if found is not None), None)
    if ends is None:
        return float("nan")
    a, b = (set(record.responses[i].text.casefold().split()) for i in ends)
    return 1 - len(a & b) / max(len(a | b), 1)


def quality_signals(records: Records, scorer: Any = None, tools: Tools | None = None) -> dict[str, np.ndarray]:
    """Signals of quality by name, those that vary: gap, agreement, distinctness, and a scorer's margin if there is one.

    What can't be said of a record stands at the mean.
    """
    found = {name: measure(records, name) for name in MEASURES if name != "length"}
    found["distinctness"] = np.array([distinctness(record) for record in records], dtype=np.float64)
    if scorer is not None:
        found["scorer"] = measure(records, "scorer", scorer, tools)
    known = {name: np.where(np.isnan(v), np.nanmean(v), v) for name, v in found.items() if np.isfinite(v).any()}
    return {name: values for name, values in known.items() if values.std() > 1e-12}


_BY_VALUE = ("top", "bottom", "middle")


@step("select")
class Select(Step):
    """Keep a part of the records: ISA (S116), or one of the baselines that it has to beat.

    Attributes:
        budget: a share up to 1, or how many records.
        strategy: ``isa``; ``random``; ``top``, ``bottom`` or ``middle`` by a measure (``bottom`` of the gap is the
            smallest margin; ``middle`` of a log-probability is a perplexity filter); ``k_center`` over the words.
        by: the measure of ``top``, ``bottom`` and ``middle``, see `accordance.curation.MEASURES`.
        scorer: for ``by: scorer``, or one more signal of quality for ``isa``.
        seed: of the sampling.
    """

    budget: float = Field(0.1, gt=0)
    strategy: Literal["isa", "random", "top", "bottom", "middle", "k_center"] = "isa"
    by: str | None = None
    scorer: Any = None
    seed: int = 0

    @model_validator(mode="after")
    def _has_effect(self) -> Select:
        if (self.by is not None) != (self.strategy in _BY_VALUE):
            raise ValueError(
                f"by goes with strategy {', '.join(_BY_VALUE)}: found {self.strategy}, by={self.by}"
            )
        if self.scorer is not None and self.strategy != "isa" and self.by != "scorer":
            raise ValueError(f"scorer has no effect with strategy {self.strategy}, by={self.by}")
        return self

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        k = sampling.budget(self.budget, len(records))
        plan, numbers = Plan(), {}
        if self.strategy == "isa":
            signals = quality_signals(records, self.scorer, tools)
            if not signals:
                raise DataError(
                    "nothing tells these records' quality apart",
                    where=f"select, {records.source}",
                    remedy="add scorer=, or choose another strategy",
                )
            columns = np.stack(list(signals.values()), 1)
            found = information_sample(columns, k, description=hashed_words(records), seed=self.seed)
            chosen: Sequence[int] = found.chosen.tolist()
            numbers = {"score": found.score, "quality": found.quality, "information": found.information}
            plan.notes = {"signals": list(signals), "good": float(found.quality.mean())}
        elif self.strategy == "random":
            chosen = sampling.at_random(len(records), k, self.seed).tolist()
        elif self.strategy == "k_center":
            chosen = sampling.k_center(hashed_words(records), k, self.seed).tolist()
        else:
            values = measure(records, self.by or "", self.scorer, tools)
            numbers = {"value": values}
            take = {"top": lambda v: sampling.largest(v, k), "bottom": lambda v: sampling.largest(-v, k)}
            chosen = take.get(self.strategy, lambda v: sampling.middle(v, k))(values).tolist()
        kept = set(chosen)
        for row in range(len(records)):
            if row not in kept:
                plan.drop(
                    row,
                    f"not selected ({self.strategy})",
                    **{name: float(v[row]) for name, v in numbers.items()},
                )
        return plan
