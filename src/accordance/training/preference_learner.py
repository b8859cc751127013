"""A language model as a learner of preferences: pairs of answers in, the probability that the first is better out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import Objective, PairLogps
from accordance.core.record import Judgment, Record, Records
from accordance.core.views import pairs, which_attribute
from accordance.models import CopiedReference, LocalPolicy, Reference

#: Where a pair's record keeps which side is better (1: the first), and the probability of its label.
TRUTH, SOFT = "first_is_better", "soft_label"


class PreferenceLearner:
    """Learns from soft labels by an objective over pairs; believes what its implicit rewards say.

    An item is a record of two responses. Follows scikit-learn's ``fit`` and ``predict_proba``, see
    `accordance.training.weak_to_strong.Learner`.

    Args:
        policy: is trained in place.
        train: trains it on records whose comparisons carry ``soft_label``, by ``soft(objective)``.
        objective: turns log-probabilities into the rewards of the two answers; the belief is the sigmoid of their
            difference.
        max_tokens: positions per forward pass of the reference.

    Raises:
        ConfigError: the objective's rewards can't be had from whole responses.
    """

    soft = True

    def __init__(
        self,
        policy: LocalPolicy,
        train: Callable[[Records], object],
        objective: Objective[Any],
        *,
        max_tokens: int = 16_384,
    ) -> None:
        if objective.bundle is not PairLogps or objective.rewards is None or objective.tokens:
            raise ConfigError(
                f"{objective.name} gives no reward of single answers",
                where="objective",
                expected="an objective over pairs that reads whole responses (dpo, ipo, simpo, ...)",
            )
        self.policy, self.train, self.objective = policy, train, objective
        self.reference: Reference | None = None
        if objective.reference and policy.has_adapter:
            self.reference = Reference(policy.engine, context=policy.adapter_off, max_tokens=max_tokens)
        elif objective.reference:
            self.reference = CopiedReference(policy.engine, max_tokens=max_tokens)

    def fit(self, X: Records, y: np.ndarray) -> PreferenceLearner:
        """Train on the pairs; `y` is the probability that the first answer is the better one, shape [n]."""
        self.train(labelled(X, y))
        return self

    @torch.no_grad()
    def predict_proba(self, X: Records) -> np.ndarray:
        """Probabilities that the second, and the first, answer is the better one, shape [n, 2]."""
        groups = list(self.policy.encoder.groups(X))
        if any(len(group.responses) != 2 for group in groups):
            raise DataError("an item is a record of two responses", where=X.source)
        sums, lengths = (torch.tensor(row) for row in self.policy.score_groups(groups))
        ref = None if self.reference is None else self.reference(groups).logp.cpu().to(sums)
        own, other = (None, None) if ref is None else (ref[::2], ref[1::2])
        bundle = PairLogps(sums[::2], sums[1::2], lengths[::2], lengths[1::2], own, other)
        assert self.objective.rewards is not None
        first, second = self.objective.rewards(bundle)
        p = (first - second).sigmoid().numpy()
        return np.stack([1 - p, p], 1)


def two_sided(records: Records, *, attribute: str | None = None, seed: int = 0) -> Records:
    """Every comparison as an item: a record of two responses in random order, its label in the extras alone.

    Raises:
        DataError: there are no comparisons with a difference.
    """
    wanted = which_attribute(records, ("comparison", "rating"), attribute)
    draw = np.random.default_rng(seed)
    made: list[Record] = []
    account = records.account.copy()
    for place, pair in enumerate(pairs(records, ties=True, attribute=wanted)):
        if pair.tie or pair.chosen.text == pair.rejected.text:
            account.notes["ties and pairs of identical responses, left out"] += 1
            continue
        straight = bool(draw.integers(0, 2))
        sides = (pair.chosen, pair.rejected) if straight else (pair.rejected, pair.chosen)
        extras = dict(pair.record.extras) | {TRUTH: float(straight)}
        made.append(
            replace(pair.record, responses=sides, judgments=(), id=f"{pair.record.id}/{place}", extras=extras)
        )
    if not made:
        raise DataError(
            "there are no comparisons with a difference", where=records.source, found=records.counts()
        )
    return Records.of(made, account=account, source=records.source)


def truth(records: Records) -> np.ndarray:
    """Which items of `two_sided` have the better answer first: 1 or 0, shape [n]."""
    return np.array([record.extras[TRUTH] for record in records], dtype=float)


def labelled(records: Records, labels: np.ndarray) -> Records:
    """Items with comparisons by these soft labels (probability that the first is better), the truth left out."""
    made = []
    for record, p in zip(records, labels.tolist(), strict=True):
        first = p >= 0.5
        judgment = Judgment("comparison", (0, 1), (1.0, 0.0) if first else (0.0, 1.0))
        extras = {key: value for key, value in record.extras.items() if key != TRUTH}
        made.append(replace(record, judgments=(judgment,), extras=extras | {SOFT: max(p, 1 - p)}))
    return Records.of(made, account=records.account.copy(), source=records.source)
