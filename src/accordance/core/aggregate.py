"""Aggregation: many judgments into one order of items, with intervals by bootstrap over the people who judged.

`Comparisons` holds who preferred what; a method (`METHODS`) turns its matrix of wins into one number per item;
`aggregate` adds intervals. `core.annotators` says how far each person can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from accordance.core.errors import ConfigError, DataError, unknown
from accordance.core.stats import Interval

#: Wins and losses against an imagined average item that each item starts with, so that ratings stay finite.
PRIOR = 0.1


@dataclass(frozen=True)
class Comparisons:
    """Outcomes of comparisons between named items, in the order in which they were made.

    Attributes:
        items: the names, k of them.
        first, second: indices into `items`, shape [n].
        outcome: 1 the first won, 0 the second won, 0.5 a tie, shape [n].
        people: who judged, as codes 0 .. m - 1, shape [n]; each comparison its own person where unknown.
        weight: how much each counts, shape [n]; None where all count the same. Elo, which goes by order, has none.
    """

    items: tuple[Hashable, ...]
    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    people: np.ndarray
    weight: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        first: Sequence[Hashable],
        second: Sequence[Hashable],
        outcome: Sequence[float] | np.ndarray,
        people: Sequence[Hashable] | None = None,
    ) -> Comparisons:
        """Comparisons from names.

        Args:
            first, second: the two items of each comparison.
            outcome: 1 where `first` won, 0 where `second` did, 0.5 a tie.
            people: who judged.

        Raises:
            DataError: unequal lengths, outcomes outside [0, 1], nothing at all, or an item against itself.
        """
        n = len(first)
        result = np.asarray(outcome, dtype=np.float64)
        if len(second) != n or len(result) != n or (people is not None and len(people) != n):
            raise DataError("comparisons come in equal numbers", found=f"{n}, {len(second)}, {len(result)}")
        if n == 0:
            raise DataError("there are no comparisons to aggregate")
        if not ((result >= 0) & (result <= 1)).all():
            raise DataError("an outcome lies between 0 and 1", found=repr(result[:5]))
        names: dict[Hashable, int] = {}
        a = np.array([names.setdefault(x, len(names)) for x in first], dtype=np.int64)
        b = np.array([names.setdefault(x, len(names)) for x in second], dtype=np.int64)
        if (a == b).any():
            where = int(np.flatnonzero(a == b)[0])
            raise DataError("an item is compared with itself", where=f"comparison {where}", found=first[where])
        who: dict[Hashable, int] = {}
        persons = (
            np.arange(n)
            if people is None
            else np.array([who.setdefault(x, len(who)) for x in people], dtype=np.int64)
        )
        return cls(tuple(names), a, b, result, persons)

    def wins(self) -> np.ndarray:
        """W[i, j]: how often i was preferred to j, ties as half; shape [k, k]."""
        k = len(self.items)
        return np.bincount(*self.won(), minlength=k * k).reshape(k, k)

    def won(self) -> tuple[np.ndarray, np.ndarray]:
        """Winner * k + loser, and how much of a win it is, for both sides of every comparison; shape [2n] each."""
        k, weight = len(self.items), 1.0 if self.weight is None else self.weight
        cell = np.concatenate([self.first * k + self.second, self.second * k + self.first])
        return cell, np.concatenate([self.outcome * weight, (1 - self.outcome) * weight])


def bradley_terry(wins: np.ndarray, prior: float = PRIOR, steps: int = 100) -> np.ndarray:
    """Bradley-Terry strengths (Bradley and Terry 1952), log scale, mean 0: P(i beats j) = sigmoid(r_i - r_j).

    Args:
        wins: W[i, j], shape [k, k].
        prior: wins and as many losses against an average item given to each; 0 is maximum likelihood, which is
            infinite for an item that never lost.
        steps: at most so many Newton steps.

    Raises:
        DataError: it does not converge (without a prior: the comparisons do not connect the items).
    """
    k = len(wins)
    rating, games = np.zeros(k), wins + wins.T

    def objective(r: np.ndarray) -> float:
        gap = r[:, None] - r[None, :]
        return float(
            (wins * np.logaddexp(0, -gap)).sum() + prior * (np.logaddexp(0, r) + np.logaddexp(0, -r)).sum()
        )

    value = objective(rating)
    for _ in range(steps):
        p = expit(rating[:, None] - rating[None, :])
        gradient = (games * p - wins).sum(1) + prior * (2 * expit(rating) - 1)
        curve = games * p * (1 - p)
        hessian = np.diag(curve.sum(1) + 2 * prior * expit(rating) * expit(-rating)) - curve
        step = np.linalg.lstsq(hessian, -gradient, rcond=None)[0]
        size = 1.0
        while (new := objective(rating + size * step)) > value + 1e-12 * abs(value) and size > 1e-6:
            size /= 2
        rating, value = rating + size * step, new
        if np.abs(step).max() < 1e-9:
            return rating - rating.mean()
        if np.abs(rating).max() > 50:
            break
    raise DataError(
        "Bradley-Terry has no finite solution here",
        found="items that never won or never lost, or groups of items never compared with each other",
        remedy="a prior above 0",
    )


def rank_centrality(wins: np.ndarray, prior: float = PRIOR) -> np.ndarray:
    """Rank centrality (Negahban, Oh and Shah 2012): log of the stationary law of a walk from losers to winners."""
    padded = wins + prior * (1 - np.eye(len(wins)))
    games = padded + padded.T
    chain = np.divide(padded.T, games, out=np.zeros_like(padded), where=games > 0) / max(len(wins) - 1, 1)
    np.fill_diagonal(chain, 0.0)
    np.fill_diagonal(chain, 1 - chain.sum(1))
    score = np.log(np.maximum(_stationary(chain), 1e-300))
    return score - score.mean()


def pagerank(wins: np.ndarray, damping: float = 0.85) -> np.ndarray:
    """PageRank (Brin and Page 1998) of the graph in which each loss is a link to the winner; sums to 1.

    Args:
        wins: W[i, j], shape [k, k]; any weighted graph in which W[i, j] is a vote of j for i.
        damping: probability of following a link; else the walk jumps to any item.
    """
    k, out = len(wins), wins.sum(0)
    links = np.where(out[:, None] > 0, wins.T / np.where(out > 0, out, 1)[:, None], 1 / k)
    return _stationary(damping * links + (1 - damping) / k)


def win_share(wins: np.ndarray) -> np.ndarray:
    """Share of comparisons won, ties as half; NaN for an item never compared."""
    games = (wins + wins.T).sum(1)
    return np.divide(wins.sum(1), games, out=np.full(len(wins), math.nan), where=games > 0)


def ranked_pairs(wins: np.ndarray) -> np.ndarray:
    """Ranked pairs (Tideman 1987): majorities locked in from the largest, unless they would close a circle.

    Returns:
        For each item how many items it is locked in above, directly or through others, less how many are locked
        in above it; a Condorcet winner is above all others.
    """
    k = len(wins)
    margin = wins - wins.T
    above = np.zeros((k, k), dtype=bool)
    order = [(-margin[i, j], -wins[i, j], i, j) for i in range(k) for j in range(k) if margin[i, j] > 0]
    for _, _, i, j in sorted(order):
        if not above[j, i]:
            higher = np.append(np.flatnonzero(above[:, i]), i)
            lower = np.append(np.flatnonzero(above[j]), j)
            above[np.ix_(higher, lower)] = True
    return above.sum(1).astype(np.float64) - above.sum(0)


def elo(comparisons: Comparisons, *, start: float = 1000.0, k: float = 4.0, scale: float = 400.0) -> np.ndarray:
    """Elo ratings (Elo 1978) after all comparisons in their order; unlike the others, it depends on the order."""
    ratings = [start] * len(comparisons.items)
    games = zip(comparisons.first.tolist(), comparisons.second.tolist(), comparisons.outcome.tolist())
    for a, b, result in games:
        change = k * (result - 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / scale)))
        ratings[a] += change
        ratings[b] -= change
    return np.array(ratings)


#: Methods that need the matrix of wins only.
METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bradley_terry": bradley_terry,
    "rank_centrality": rank_centrality,
    "ranked_pairs": ranked_pairs,
    "pagerank": pagerank,
    "win_share": win_share,
}


@dataclass(frozen=True)
class Standing:
    """One item in the order.

    Attributes:
        item: its name.
        score: its number under the method, with its interval over people.
        rank: 1 is best; equal scores share the better rank.
        rank_low, rank_high: where its rank lies in 95% of the resamples.
        games: how many comparisons it was in.
    """

    item: Hashable
    score: Interval
    rank: int
    rank_low: float
    rank_high: float
    games: int


def aggregate(
    comparisons: Comparisons,
    method: str = "bradley_terry",
    *,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> list[Standing]:
    """Order the items, best first, with intervals by bootstrap over people.

    Time is linear in the comparisons: they are added up per person once, and resamples weigh those sums. Elo is
    run again for each resample, with the comparisons in their order.

    Args:
        comparisons: who preferred what.
        method: a name of `METHODS`, or ``"elo"``.
        samples: resamples of people; 0 leaves the intervals NaN.
        seed: of the resampling.
        level: of the intervals.

    Raises:
        ConfigError: unknown method, negative samples, or Elo of comparisons that have weights.
    """
    if method not in METHODS and method != "elo":
        raise unknown("method", method, [*METHODS, "elo"], where="aggregate")
    if method == "elo" and comparisons.weight is not None:
        raise ConfigError(
            "Elo goes by the order of the comparisons and has no weights",
            where="aggregate",
            remedy="another method, such as bradley_terry",
        )
    if samples < 0:
        raise ConfigError("samples can't be negative", found=samples)
    score = elo(comparisons) if method == "elo" else METHODS[method](comparisons.wins())
    people = int(comparisons.people.max()) + 1
    draws = _draws(comparisons, method, samples if people > 1 else 0, people, seed)
    games = np.bincount(np.concatenate([comparisons.first, comparisons.second]), minlength=len(score))
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    bounds = np.full((2, len(score)), math.nan)
    ranks = bounds.copy()
    if len(draws):
        bounds = np.nanquantile(draws, ends, axis=0)
        ranks = np.nanquantile(np.array([_ranks(draw) for draw in draws], dtype=float), ends, axis=0)
    rank = _ranks(score)
    return [
        Standing(
            comparisons.items[i],
            Interval(float(score[i]), float(bounds[0, i]), float(bounds[1, i]), people, level),
            int(rank[i]),
            float(ranks[0, i]),
            float(ranks[1, i]),
            int(games[i]),
        )
        for i in np.argsort(rank, kind="stable")
    ]


def _draws(c: Comparisons, method: str, samples: int, people: int, seed: int) -> np.ndarray:
    """Scores under resamples of people, shape [samples, k]."""
    generator = np.random.default_rng(seed)
    k = len(c.items)
    if method == "elo":
        order = np.arange(len(c.people))
        made = []
        for _ in range(samples):
            times = np.bincount(generator.integers(people, size=people), minlength=people)[c.people]
            again = np.repeat(order, times)
            made.append(
                elo(Comparisons(c.items, c.first[again], c.second[again], c.outcome[again], c.people[again]))
            )
        return np.array(made)
    # One cell per person, winner and loser, so that a resample costs as much as there are cells.
    winner, amount = c.won()
    key, place = np.unique(np.concatenate([c.people, c.people]) * (k * k) + winner, return_inverse=True)
    cells = np.bincount(place, weights=amount)
    made = []
    for _ in range(samples):
        times = np.bincount(generator.integers(people, size=people), minlength=people)[key // (k * k)]
        wins = np.bincount(key % (k * k), weights=cells * times, minlength=k * k).reshape(k, k)
        made.append(METHODS[method](wins))
    return np.array(made)


def _stationary(chain: np.ndarray) -> np.ndarray:
    """The law that a row-stochastic chain settles on: the left eigenvector of 1, solved for directly."""
    k = len(chain)
    system = np.vstack([chain.T - np.eye(k), np.ones(k)])
    law = np.linalg.lstsq(system, np.append(np.zeros(k), 1.0), rcond=None)[0]
    return np.maximum(law, 0) / np.maximum(law, 0).sum()


def _ranks(score: np.ndarray) -> np.ndarray:
    """1 for the largest; equal scores share the better rank; NaN comes last."""
    order = np.where(np.isnan(score), -np.inf, score)
    return 1 + (order[None, :] > order[:, None] + 1e-12).sum(1)
