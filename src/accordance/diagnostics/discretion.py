"""Discretion: how much latitude annotators take with written principles, and whether a model takes it as they do.

Where all principles that apply agree, going against them is arbitrary; where they conflict, one has to win, and which
one is a choice that nobody wrote down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accordance.analysis.principles import PrincipleJudge
from accordance.analysis.table import PairTable
from accordance.core.aggregate import PRIOR, bradley_terry
from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.stats import Interval, proportion

#: Kinds of comparisons: principles agree, conflict, or none has anything to say.
CONSENSUS, CONFLICT, INDIFFERENCE = "consensus", "conflict", "indifference"
#: Clusters that the bootstrap of priorities draws; more are put into bundles.
_BUNDLES = 2000


@dataclass(frozen=True)
class Discretion:
    """What `discretion` found about m principles and a annotators.

    Attributes:
        principles: their texts, m of them.
        annotators: their names, a of them.
        kinds: how many comparisons the principles agree on, conflict on, and have nothing to say on.
        judged: per annotator, how many comparisons with consensus it took a side in.
        arbitrariness: per annotator, the share of those in which it went against all principles.
        errors: its standard error, shape [a].
        supremacy: P(the annotator sides with the row | the row's principle and the column's conflict), shape
            [a, m, m]; NaN where they never do. S + S' is 1.
        counts: on how many comparisons that rests, shape [a, m, m].
        priority: weight of each principle, mean 0; inf (-inf) for one that always wins (loses), NaN for one that is
            never in conflict; shape [a, m].
        priority_low, priority_high: 95% bounds by bootstrap over clusters, shape [a, m].
        prior: per annotator, whether priorities needed a prior because conflicts do not connect the principles.
        discrepancy: Kendall distance between annotators' priorities, 0 (same order) to 1, shape [a, a].
    """

    principles: tuple[str, ...]
    annotators: tuple[str, ...]
    kinds: Mapping[str, int]
    judged: tuple[int, ...]
    arbitrariness: tuple[Interval, ...]
    errors: np.ndarray
    supremacy: np.ndarray
    counts: np.ndarray
    priority: np.ndarray
    priority_low: np.ndarray
    priority_high: np.ndarray
    prior: tuple[bool, ...]
    discrepancy: np.ndarray


@system("S112", "Alignment discretion", paper="arXiv:2502.10441")
def discretion(
    votes: np.ndarray,
    annotators: Mapping[str, np.ndarray],
    principles: Sequence[str],
    *,
    clusters: np.ndarray | None = None,
    samples: int = 200,
    seed: int = 0,
) -> Discretion:
    """How arbitrary each annotator is, which principle wins with it, and how far its order is from the others'.

    Departs from the paper: priorities are found by Newton's method rather than by Adam (the problem is convex);
    bounds of priorities are by bootstrap; comparisons by one person, or of one prompt, are resampled together.

    Args:
        votes: what each principle by itself prefers, 1 the first response, -1 the second, 0 or NaN neither, shape
            [n, m]; see `oracle_votes`.
        annotators: what each annotator prefers, as 1, -1, and 0 or NaN for no preference, shape [n] each. A person,
            a group, the sign of a reward's difference, a language model's choice.
        principles: what the columns of `votes` are.
        clusters: codes of what hangs together, shape [n]; every comparison by itself by default.
        samples: resamples for the bounds of priorities; 0 leaves them NaN.
        seed: of the resampling.

    Raises:
        DataError: shapes that don't match, fewer than two principles, or numbers that are no votes.
    """
    votes, chosen = _checked(votes, annotators, principles)
    n = len(votes)
    groups = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    agreed = consensus(votes)
    conflict = (votes > 0).any(1) & (votes < 0).any(1)
    rates, errors, judged = [], [], []
    tables, orders, bounds, priors = [], [], [], []
    for name in annotators:
        own = chosen[name]
        clear = (agreed != 0) & (own != 0)
        against = (own * agreed < 0)[clear].astype(float)
        judged.append(int(clear.sum()))
        rates.append(proportion(against, clusters=groups[clear].tolist(), seed=seed))
        errors.append(_standard_error(against, groups[clear]))
        won, met = _by_cluster(votes[conflict], own[conflict], groups[conflict], seed)
        order, helped = priority(won.sum(0), met.sum(0))
        tables.append((won.sum(0), met.sum(0)))
        orders.append(order)
        priors.append(helped)
        bounds.append(_bounds(won, met, samples, seed))
    counts = np.stack([met for _, met in tables])
    wins = np.stack([won for won, _ in tables])
    share = np.divide(wins, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    low, high = (np.stack([b[side] for b in bounds]) for side in (0, 1))
    apart = np.array([[discrepancy(a, b) for b in orders] for a in orders])
    kinds = {CONSENSUS: int((agreed != 0).sum()), CONFLICT: int(conflict.sum())}
    kinds[INDIFFERENCE] = n - sum(kinds.values())
    return Discretion(
        tuple(principles), tuple(annotators), kinds, tuple(judged), tuple(rates), np.array(errors), share,
        counts, np.stack(orders), low, high, tuple(priors), apart,
    )  # fmt: skip


def consensus(votes: np.ndarray) -> np.ndarray:
    """What all principles that take a side agree on: 1, -1, or 0 where they conflict or none does; shape [n]."""
    for_first, for_second = (votes > 0).any(1), (votes < 0).any(1)
    return (for_first & ~for_second).astype(int) - (for_second & ~for_first)


def priority(wins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, bool]:
    """Weights of principles from how often each prevailed: Bradley-Terry, P(c prevails over d) = sigmoid(w_c - w_d).

    Args:
        wins: W[c, d], how often c prevailed where it conflicted with d, shape [m, m].
        counts: how often they conflicted, shape [m, m].

    Returns:
        Weights, shape [m]: mean 0 over the finite ones; inf for what always wins (also among what is left once such
        are taken out), -inf for what always loses, NaN for what is in no conflict. And whether a weak prior was
        needed, since conflicts do not connect the principles that are left.
    """
    weights = np.where(counts.sum(1) > 0, 0.0, np.nan)
    left = np.flatnonzero(counts.sum(1) > 0)
    while len(left):
        won, met = wins[np.ix_(left, left)].sum(1), counts[np.ix_(left, left)].sum(1)
        always, never = (met > 0) & (won == met), (met > 0) & (won == 0)
        if not (always | never).any():
            break
        weights[left[always]], weights[left[never]] = np.inf, -np.inf
        left = left[~(always | never)]
    if len(left) < 2:
        return weights, False
    games = wins[np.ix_(left, left)]
    try:
        weights[left] = bradley_terry(games, prior=0.0)
    except DataError:  # two camps that meet only where one of them always wins
        weights[left] = bradley_terry(games, prior=PRIOR)
        return weights, True
    return weights, False


def discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised Kendall distance: the share of pairs that two orders put the other way round, 0 to 1.

    A pair that one of them leaves tied counts half. Principles without a weight (NaN) in one of them are left out;
    NaN where fewer than two are left.
    """
    known = ~(np.isnan(one) | np.isnan(other))
    a, b = (np.greater.outer(x, x).astype(int) - np.less.outer(x, x) for x in (one[known], other[known]))
    pairs = np.triu_indices(int(known.sum()), 1)
    if not len(pairs[0]):
        return float("nan")
    apart = np.where(a * b < 0, 1.0, np.where((a == 0) != (b == 0), 0.5, 0.0))
    return float(apart[pairs].mean())


def oracle_votes(
    judge: PrincipleJudge, principles: Sequence[str], table: PairTable
) -> tuple[np.ndarray, np.ndarray]:
    """What each principle by itself prefers in each comparison, in a judge's eyes; asked in both orders.

    Each pair of responses is asked about once, however many people judged it. The paper reads option probabilities;
    here the judge names a side or neither, so that any judge can be asked.

    Args:
        judge: votes on principles; it is not told the label.
        principles: m of them.
        table: the comparisons.

    Returns:
        Votes, shape [n, m]: 1 the first, -1 the second, NaN where the judge said neither, contradicted itself
        between the orders, or could not be read. And per principle the share of pairs with a side in either order
        in which both orders agree, shape [m]; NaN without any.
    """
    pairs, place = np.unique(np.stack([table.first, table.second], 1), axis=0, return_inverse=True)
    texts, prompts = table.texts, table.prompts
    asked = [
        (prompts[int(table.text_prompt[a])].as_py(), texts[int(a)].as_py(), texts[int(b)].as_py())
        for a, b in pairs.tolist()
    ]
    straight = np.asarray(judge.vote(principles, asked), dtype=float)
    turned = -np.asarray(judge.vote(principles, [(p, b, a) for p, a, b in asked]), dtype=float)
    if straight.shape != (len(asked), len(principles)) or turned.shape != straight.shape:
        raise DataError("one vote per comparison and principle", found=f"shape {straight.shape}")
    same = (straight == turned) & (straight != 0)
    sided = np.nan_to_num(straight).astype(bool) | np.nan_to_num(turned).astype(bool)
    with np.errstate(invalid="ignore"):
        consistent = same.sum(0) / np.where(sided.any(0), sided.sum(0), np.nan)
    return np.where(same, straight, np.nan)[place.ravel()], consistent


def _checked(
    votes: np.ndarray, annotators: Mapping[str, np.ndarray], principles: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Votes and preferences as numbers, with 0 for none."""
    votes = np.nan_to_num(np.asarray(votes, dtype=float))
    if votes.ndim != 2 or votes.shape[1] != len(principles) or len(principles) < 2:
        raise DataError(
            "votes have one column per principle, of two or more",
            found=f"shape {votes.shape}, {len(principles)} principles",
        )
    if not annotators:
        raise DataError("there is no annotator", remedy="name people, groups, scorers or models")
    found = {name: np.nan_to_num(np.asarray(own, dtype=float)) for name, own in annotators.items()}
    for name, values in {"votes": votes, **found}.items():
        if not np.isin(values, (-1, 0, 1)).all():
            raise DataError("a preference is 1, -1, or 0 or NaN for none", where=name)
        if len(values) != len(votes):
            raise DataError(
                "one preference per comparison", where=name, found=len(values), expected=str(len(votes))
            )
    return votes, found


def _standard_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Of a mean, robust to clusters: what the spread of its bootstrap tends to."""
    if len(values) == 0:
        return float("nan")
    sums = np.bincount(clusters, weights=values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))


def _by_cluster(
    votes: np.ndarray, own: np.ndarray, clusters: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per bundle of clusters: how often the row's principle prevailed over the column's, and how often they met."""
    m, used = votes.shape[1], own != 0
    votes, own = votes[used], own[used]
    codes = np.unique(clusters[used], return_inverse=True)[1] if used.any() else np.zeros(0, dtype=int)
    many = min(int(codes.max(initial=-1)) + 1, _BUNDLES)
    bundle = np.random.default_rng(seed).permutation(int(codes.max(initial=-1)) + 1) % max(many, 1)
    codes = bundle[codes] if len(codes) else codes
    won, met = (np.zeros((max(many, 1), m, m)) for _ in range(2))
    for c in range(m):
        for d in range(c + 1, m):
            apart = votes[:, c] * votes[:, d] < 0
            met[:, c, d] = met[:, d, c] = np.bincount(codes[apart], minlength=max(many, 1))
            with_c = apart & (own == votes[:, c])
            won[:, c, d] = np.bincount(codes[with_c], minlength=max(many, 1))
            won[:, d, c] = met[:, c, d] - won[:, c, d]
    return won, met


def _bounds(won: np.ndarray, met: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """2.5% and 97.5% quantiles of priorities over resamples of bundles; NaN where there are not two."""
    m = won.shape[1]
    if samples < 1 or len(won) < 2:
        return np.full(m, np.nan), np.full(m, np.nan)
    generator, flat = np.random.default_rng(seed), np.concatenate([won, met], 1).reshape(len(won), -1)
    draws = []
    for _ in range(samples):
        times = np.bincount(generator.integers(len(won), size=len(won)), minlength=len(won))
        drawn = (times @ flat).reshape(2, m, m)
        draws.append(priority(drawn[0], drawn[1])[0])
    drawn = np.sort(np.array(draws), axis=0)  # NaN last; infinite weights have ranks, too
    known = (~np.isnan(drawn)).sum(0)
    at = [np.clip((share * (known - 1)).round().astype(int), 0, None) for share in (0.025, 0.975)]
    low, high = (np.where(known > 0, drawn[i, np.arange(m)], np.nan) for i in at)
    return low, high
