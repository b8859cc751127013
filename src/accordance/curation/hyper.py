"""HyPER: which pairs to give to people and which to a model, learned from how well mixes of their labels train."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy import stats

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Record, Records
from accordance.core.report import write_whole
from accordance.core.weights import keeping
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.sampling import at_random, budget, in_proportion, largest

#: Where the way that a record was sent stands in its extras.
ROUTE = "route"
HUMAN, MODEL = "human", "model"


def draw_mixes(features: np.ndarray, many: int = 200, *, size: int | None = None, seed: int = 0) -> np.ndarray:
    """Random subsets of pairs that take people's labels, the rest taking the model's.

    Each subset favours some features over others, drawn anew; were they drawn evenly, all counts would move with
    the size of the subset alone and nothing could be learned about any of them.

    Args:
        features: of each pair, 0 or 1, shape [n, f].
        many: how many subsets.
        size: pairs in each; by default any number from none to all, evenly.
        seed: of the draw.

    Returns:
        Masks, shape [many, n].
    """
    generator, n = np.random.default_rng(seed), len(features)
    masks = np.zeros((many, n), dtype=bool)
    for mask in masks:
        taken = int(generator.integers(n + 1)) if size is None else size
        lean = np.exp(np.clip(features @ generator.normal(0, 1.5, features.shape[1]), -6, 6))
        mask[in_proportion(lean, taken, int(generator.integers(2**31)))] = True
    return masks


@system("S054", "HyPER", paper="arXiv:2410.19133")
class HybridRouter:
    """Predicts how good a reward model gets if some pairs carry people's labels and the rest a model's.

    From mixes and the score of the reward model trained on each (on labels of neither source), it learns what each
    feature of the pairs labelled by people brings; then it sends the pairs with the largest gain to people.

    Where it departs from the paper's code: counts are shares of all pairs, so that a router can be used on a set of
    another size, and a ridge penalty, chosen by leave-one-out error, keeps the fit steady where mixes are few.

    After `fit`, `coef_` holds the weights of shares (and of their squares and products) in units of the score,
    `intercept_` the score predicted where the model labels everything, `rmse_` and `spearman_` the leave-one-out
    error and the rank correlation of what was predicted so with the scores.

    Args:
        kind: ``linear`` in the shares, or ``quadratic`` (with squares and products).
        names: of the features.
    """

    def __init__(self, kind: Literal["linear", "quadratic"] = "linear", names: Sequence[str] = ()) -> None:
        if kind not in ("linear", "quadratic"):
            raise ConfigError("unknown kind of router", found=kind, expected="linear or quadratic")
        self.kind, self.names = kind, tuple(names)
        self.coef_ = np.zeros(0)
        self.intercept_, self.rmse_, self.spearman_ = 0.0, float("nan"), float("nan")

    def fit(
        self, features: np.ndarray, masks: np.ndarray, scores: Sequence[float] | np.ndarray
    ) -> HybridRouter:
        """Learn from mixes.

        Args:
            features: of each pair, 0 or 1, shape [n, f].
            masks: which pairs took people's labels in each mix, shape [m, n].
            scores: of the reward model trained on each mix, shape [m].

        Raises:
            DataError: shapes do not match, fewer than five mixes, or scores that are not finite.
        """
        y = np.asarray(scores, dtype=np.float64)
        if masks.shape != (len(y), len(features)) or len(y) < 5 or not np.isfinite(y).all():
            raise DataError(
                "a router needs five or more mixes with a finite score each",
                found=f"masks {masks.shape}, {len(features)} pairs, {len(y)} scores",
            )
        x = self._terms(masks @ features / len(features))
        centre, mean = x.mean(0), y.mean()
        u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
        target = u.T @ (y - mean)
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for penalty in np.logspace(-6, 2, 25) * float(s[0] ** 2 or 1.0):
            shrink = s**2 / (s**2 + penalty)
            leverage = (u**2) @ shrink + 1 / len(y)
            left_out = (y - mean - u @ (shrink * target)) / np.maximum(1 - leverage, 1e-9)
            error = float((left_out**2).mean())
            if best is None or error < best[0]:
                best = error, vt.T @ (s / (s**2 + penalty) * target), y - left_out
        assert best is not None
        self.coef_ = best[1]
        self.intercept_ = float(mean - centre @ self.coef_)
        self.rmse_ = best[0] ** 0.5
        ranks = [stats.rankdata(values) for values in (best[2], y)]
        self.spearman_ = float(np.corrcoef(*ranks)[0, 1]) if np.ptp(y) and np.ptp(best[2]) else 0.0
        return self

    def predict(self, features: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """The score expected of each mix, shape [m]; arguments as for `fit`."""
        self._check(features)
        return self._terms(masks @ features / len(features)) @ self.coef_ + self.intercept_

    def gains(self, features: np.ndarray) -> np.ndarray:
        """What it brings to give each pair alone to people, shape [n].

        The quadratic gain ignores what else goes to people; see `route`, which predicts whole sets.
        """
        self._check(features)
        return self._terms(np.asarray(features) / len(features)) @ self.coef_

    def route(
        self, features: np.ndarray, many: float, how: Literal["topk", "simulated"] = "topk", seed: int = 0
    ) -> np.ndarray:
        """Which pairs to send to people.

        Args:
            features: of each pair, 0 or 1, shape [n, f].
            many: the budget: a share up to 1, or a number of pairs.
            how: ``topk``, the pairs of largest gain (equal gains at random); or ``simulated``, of 50 drawn sets the
                one whose predicted score is highest.
            seed: of the draw.

        Returns:
            A mask, shape [n].
        """
        k = budget(many, len(features))
        if how == "simulated":
            masks = draw_mixes(features, 50, size=k, seed=seed)
            return masks[int(self.predict(features, masks).argmax())]
        gain = self.gains(features)
        shuffled = np.random.default_rng(seed).permutation(len(gain))
        chosen = np.zeros(len(gain), dtype=bool)
        chosen[shuffled[largest(gain[shuffled], k)]] = True
        return chosen

    def curve(
        self, features: np.ndarray, shares: Sequence[float], seed: int = 0
    ) -> list[tuple[float, float, float]]:
        """(share given to people, predicted score of the routed set, of a random set) for each budget."""
        rows = []
        for share in shares:
            routed = self.route(features, share, seed=seed)
            even = np.zeros(len(features), dtype=bool)
            even[at_random(len(features), int(routed.sum()), seed)] = True
            rows.append((float(share), *self.predict(features, np.stack([routed, even])).tolist()))
        return rows

    def save(self, path: str | Path) -> Path:
        """Write the router as JSON."""
        held = {"kind": self.kind, "names": list(self.names), "coef": self.coef_.tolist(), "rmse": self.rmse_,
                "intercept": self.intercept_, "spearman": self.spearman_}  # fmt: skip
        write_whole({Path(path): json.dumps(held, indent=1)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> HybridRouter:
        """Read what `save` wrote.

        Raises:
            ConfigError: there is no router in the file.
        """
        try:
            held = json.loads(Path(path).read_text(encoding="utf-8"))
            made = cls(held["kind"], held["names"])
            made.coef_, made.intercept_ = np.array(held["coef"], dtype=np.float64), float(held["intercept"])
            made.rmse_, made.spearman_ = float(held["rmse"]), float(held["spearman"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError("this is no router that was saved", where=str(path), found=str(error)) from error
        return made

    def _terms(self, shares: np.ndarray) -> np.ndarray:
        if self.kind == "linear":
            return shares
        a, b = np.triu_indices(shares.shape[1])
        return np.concatenate([shares, shares[:, a] * shares[:, b]], axis=1)

    def _check(self, features: np.ndarray) -> None:
        f = features.shape[1]
        expected = f if self.kind == "linear" else f + f * (f + 1) // 2
        if len(self.coef_) != expected:
            raise DataError(
                "the router was fitted to other features", found=f"{f} features", expected=str(self.names)
            )


def score_mixes(masks: np.ndarray, train_and_score: Callable[[np.ndarray], float]) -> np.ndarray:
    """The score of each mix: `train_and_score` trains on people's labels where the mask is true; shape [m]."""
    return np.array([train_and_score(mask) for mask in masks], dtype=np.float64)


@dataclass(frozen=True)
class Bins:
    """Edges of the three bins of each statistic, so that other records fall into the same ones.

    Attributes:
        edges: statistic -> (low, high).
        tags: prompt tags that are features.
    """

    edges: Mapping[str, tuple[float, float]]
    tags: tuple[str, ...]


def route_features(records: Records, bins: Bins | None = None) -> tuple[tuple[str, ...], np.ndarray, Bins]:
    """Binary features of pairs: lengths and similarity in three bins of equal size, and tags of the prompt.

    Tags are the strings in `extras["tags"]` (safety concern, intent, domain ...).

    Args:
        records: each with two or more responses, of which the first two count.
        bins: of the records that a router was fitted to; by default made from these.

    Returns:
        Names, features of shape [n, f], and the bins.

    Raises:
        DataError: a record has fewer than two responses.
    """
    rows, tags = [], []
    for record in records:
        rows.append(_statistics(record))
        given = record.extras.get("tags", ())
        tags.append({str(tag) for tag in given} if isinstance(given, list | tuple) else set())
    columns = {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}
    if bins is None:
        edges = {n: (float(np.quantile(c, 1 / 3)), float(np.quantile(c, 2 / 3))) for n, c in columns.items()}
        bins = Bins(edges, tuple(sorted(set().union(*tags))))
    names, found = [], []
    for name, (low, high) in bins.edges.items():
        place = np.searchsorted([low, high], columns[name], side="left")
        for code, size in enumerate(("small", "middle", "large")):
            names.append(f"{name}: {size}")
            found.append(place == code)
    for tag in bins.tags:
        names.append(f"tag: {tag}")
        found.append(np.array([tag in given for given in tags]))
    return tuple(names), np.stack(found, 1).astype(np.float64), bins


def _statistics(record: Record) -> dict[str, float]:
    if len(record.responses) < 2:
        raise DataError(
            "routing needs two responses", where=record.origin or record.id, found=len(record.responses)
        )
    a, b = (record.responses[i].text.casefold().split() for i in range(2))
    both, either = len(set(a) & set(b)), len(set(a) | set(b))
    return {
        "prompt length": len(record.prompt_text.split()),
        "shorter response": min(len(a), len(b)),
        "longer response": max(len(a), len(b)),
        "difference in length": abs(len(a) - len(b)),
        "similarity": both / max(either, 1),
    }


@step("route")
class Route(Step):
    """Send each record to people or to a model (S054): `extras["route"]` is ``human`` or ``model``.

    Attributes:
        router: a `HybridRouter`, or the file of one.
        budget: how many go to people: a share up to 1, or a number.
        how: ``topk`` or ``simulated``; see `HybridRouter.route`.
        model_annotators: names of the annotators that are models. Where given, judgments of the other source are
            dropped: people's from records sent to the model, and the model's from those sent to people.
        seed: of the draw.
    """

    router: Any
    budget: float = Field(0.5, gt=0)
    how: Literal["topk", "simulated"] = "topk"
    model_annotators: tuple[str, ...] = ()
    seed: int = 0

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        router = HybridRouter.load(self.router) if isinstance(self.router, str | Path) else self.router
        names, features, _ = route_features(records)
        if router.names and router.names != names:
            raise DataError(
                "the router was fitted to other features",
                where=f"route, {records.source}",
                found=sorted({*names} ^ {*router.names}),
            )
        mask = router.route(features, self.budget, self.how, self.seed)
        gain, plan = router.gains(features), Plan()
        for row, record in enumerate(records):
            way = HUMAN if mask[row] else MODEL
            kept = [
                number
                for number, judgment in enumerate(record.judgments)
                if not self.model_annotators or (judgment.annotator in self.model_annotators) == (way == MODEL)
            ]
            if record.judgments and not kept:
                plan.drop(row, f"sent to the {way}, who has not judged it", gain=float(gain[row]))
                continue
            new = keeping(record, kept)
            new = replace(new, extras={**new.extras, ROUTE: way})
            plan.change(row, new, f"sent to the {way}", gain=float(gain[row]))
        none, chosen = np.zeros_like(mask), mask
        predicted = router.predict(features, np.stack([none, chosen]))
        plan.notes = {
            "to_people": int(mask.sum()),
            "predicted": float(predicted[1]),
            "by_model_alone": float(predicted[0]),
        }
        return plan
