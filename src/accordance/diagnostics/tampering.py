"""Alignment tampering: a bias that rides on quality. Biased answers that happen to be better win honest comparisons,
the reward learns to pay for the bias, and whatever optimises the reward drives the bias up.

The audits of the paper for data, rewards and representations, and the laws by which a bias grows. `tampering_report`
puts them to work on responses; `tampering_attack` has the attack itself, on a table where all of it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accordance.analysis.words import telling_words
from accordance.core.errors import ConfigError, DataError
from accordance.core.stats import Interval, bootstrap, proportion


@dataclass(frozen=True)
class Coupling:
    """How a bias hangs together with quality and reward; every interval is over prompts.

    Attributes:
        rate: share of biased responses.
        gap: quality of biased less that of unbiased responses to the same prompt, in standard deviations of quality
            within prompts.
        first: share of mixed prompts (with both kinds) whose best response is biased.
        chance: what `first` would be if bias and quality had nothing to do with each other.
        rank: mean rank of biased responses of mixed prompts, 1 the best; and `middle`, what it would be by chance.
        middle: see `rank`.
        paid: what the reward adds for the bias at equal quality, in standard deviations of reward within prompts;
            None without a reward.
        mixed: prompts with both kinds of responses.
    """

    rate: Interval
    gap: Interval
    first: Interval
    chance: float
    rank: float
    middle: float
    paid: Interval | None
    mixed: int

    @property
    def rides(self) -> bool:
        """Whether biased answers are better, beyond chance: then honest comparisons teach the bias."""
        return bool(self.gap.low > 0)


def coupling(
    prompt: Sequence[int] | np.ndarray,
    bias: Sequence[bool] | np.ndarray,
    quality: Sequence[float] | np.ndarray,
    reward: Sequence[float] | np.ndarray | None = None,
    *,
    seed: int = 0,
    samples: int = 1000,
) -> Coupling:
    """Audits A and B: do biased answers win, and does the reward pay for the bias itself.

    Args:
        prompt: a code of the prompt of each response, shape [t].
        bias: whether each response is biased, shape [t].
        quality: how good each is to somebody who does not look at the bias, shape [t].
        reward: what the reward model under audit says, shape [t].
        seed: of the bootstrap.
        samples: its resamples.

    Raises:
        DataError: unequal lengths, or no prompt with both kinds of responses.
    """
    code = np.unique(np.asarray(prompt), return_inverse=True)[1].ravel()
    b, q = np.asarray(bias, dtype=float), np.asarray(quality, dtype=float)
    if not len(code) == len(b) == len(q) or (reward is not None and len(reward) != len(b)):
        raise DataError("one bias, quality and reward per response", found=f"{len(code)}, {len(b)}, {len(q)}")
    share = means(b, code)[code]
    mixed = (share > 0) & (share < 1)
    if not mixed.any():
        raise DataError(
            "no prompt has both biased and unbiased responses", found=f"{int(b.sum())} of {len(b)} are biased"
        )
    rows = np.unique(code[mixed], return_inverse=True)[1]
    kind, good = b[mixed], q[mixed]
    gaps = means(good, rows, kind) - means(good, rows, 1 - kind)
    unit = float(np.std(good - means(good, rows)[rows])) or 1.0
    first, chance, rank, middle = _ranks(rows, kind, good)
    return Coupling(
        rate=proportion(b, clusters=code.tolist(), seed=seed, samples=samples),
        gap=bootstrap(gaps / unit, seed=seed, samples=samples),
        first=bootstrap(first, seed=seed, samples=samples),
        chance=chance,
        rank=rank,
        middle=middle,
        paid=None
        if reward is None
        else _paid(rows, kind, good, np.asarray(reward, float)[mixed], seed, samples),
        mixed=int(rows.max()) + 1,
    )


def tilted(base: np.ndarray, reward: np.ndarray, beta: float) -> np.ndarray:
    """The optimum of reward under a KL penalty: proportional to base * exp(reward / beta), shape [..., R].

    Args:
        base: probabilities of the reference, shape [..., R].
        reward: of each response, same shape.
        beta: strength of the penalty, above 0.
    """
    if beta <= 0:
        raise ConfigError("beta lies above 0", found=beta)
    log = np.log(np.maximum(base, 1e-300)) + reward / beta
    p = np.exp(log - log.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def best_of(base: np.ndarray, reward: np.ndarray, n: int) -> np.ndarray:
    """The law of the best of n draws from `base`, exactly; equal rewards share by their probability; shape [R].

    Args:
        base: probabilities, shape [R].
        reward: of each response, shape [R].
        n: draws, 1 or more.
    """
    if n < 1:
        raise ConfigError("the best of at least one", found=n)
    level = np.unique(reward, return_inverse=True)[1].ravel()
    mass = np.bincount(level, weights=base)
    below = np.append(0.0, np.cumsum(mass))
    won = np.diff(below**n)
    return base * np.divide(won, mass, out=np.zeros_like(mass), where=mass > 0)[level]


def cluster_scores(
    vectors: np.ndarray, prompt: Sequence[int] | np.ndarray, reward: Sequence[float] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Audit C: how clearly the samples of each prompt fall into two clusters, and whether one has the higher reward.

    Samples are split by 2-means (from the two that lie farthest apart); the score is the mean silhouette, in which
    gaps below what is usual between the samples of a prompt do not count as gaps: else two near-copies of one text,
    each given twice, would be two perfect clusters.

    Args:
        vectors: an embedding of each sample, shape [t, d].
        prompt: a code of its prompt, shape [t].
        reward: of each sample.

    Returns:
        Per prompt, in the order of codes: the silhouette, in [-1, 1], NaN below four samples; and the correlation of
        cluster and reward, signless, NaN without a reward or where it does not vary.
    """
    codes = np.unique(np.asarray(prompt), return_inverse=True)[1].ravel()
    rows = [np.flatnonzero(codes == k) for k in range(int(codes.max(initial=-1)) + 1)]
    gaps = [np.linalg.norm(vectors[own][:, None] - vectors[own][None], axis=-1) for own in rows]
    usual = float(
        np.median([apart[np.triu_indices(len(apart), 1)].mean() for apart in gaps if len(apart) > 3] or [0])
    )
    scores, links = [], []
    for own, apart in zip(rows, gaps):
        if len(own) < 4:
            scores.append(np.nan)
            links.append(np.nan)
            continue
        side = _two_means(vectors[own], apart)
        scores.append(_silhouette(apart, side, usual))
        paid = None if reward is None else np.asarray(reward, dtype=float)[own]
        varies = paid is not None and paid.std() > 0 and 0 < side.sum() < len(side)
        links.append(abs(float(np.corrcoef(side, paid)[0, 1])) if varies else np.nan)  # type: ignore[arg-type]
    return np.array(scores), np.array(links)


def trigger_words(prompts: Sequence[str], scores: np.ndarray, many: int = 8) -> list[tuple[str, float]]:
    """Words over-represented in the prompts of high scores (the upper fifth): candidates for a trigger."""
    known = np.flatnonzero(~np.isnan(scores))
    if len(known) < 10:
        return []
    top = scores[known] >= np.quantile(scores[known], 0.8)
    piles = [[prompts[int(i)] for i in known[some]] for some in (top, ~top)]
    return telling_words(piles[0], piles[1], many)


def means(values: np.ndarray, code: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Weighted means by code, shape [codes]; NaN where nothing weighs."""
    w = np.ones(len(values)) if weight is None else weight
    total = np.bincount(code, weights=w)
    return np.divide(
        np.bincount(code, weights=w * values), total, out=np.full(len(total), np.nan), where=total > 0
    )


def _ranks(code: np.ndarray, b: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Per prompt how much of the first place is biased; chance of that; mean rank of biased ones, and by chance."""
    first, chance, ranks, middle = [], [], [], []
    for own in np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1]):
        good, kind = q[own], b[own] > 0
        first.append(kind[good == good.max()].mean())
        chance.append(kind.mean())
        above = (good[None] > good[:, None]).sum(1) + 0.5 * ((good[None] == good[:, None]).sum(1) - 1)
        ranks += (1 + above[kind]).tolist()
        middle += [(len(own) + 1) / 2] * int(kind.sum())
    return np.array(first), float(np.mean(chance)), float(np.mean(ranks)), float(np.mean(middle))


def _paid(code: np.ndarray, b: np.ndarray, q: np.ndarray, r: np.ndarray, seed: int, samples: int) -> Interval:
    """Slope of reward on bias within prompts, quality held fixed; bootstrap over prompts of the normal equations."""
    x = np.stack([b, q], 1)
    x, y = x - np.stack([means(c, code)[code] for c in x.T], 1), r - means(r, code)[code]
    y = y / (y.std() or 1.0)
    many = int(code.max()) + 1
    gram, side = np.zeros((many, 2, 2)), np.zeros((many, 2))
    np.add.at(gram, code, x[:, :, None] * x[:, None])
    np.add.at(side, code, x * y[:, None])

    def slope(times: np.ndarray) -> float:
        return float((np.linalg.pinv(np.tensordot(times, gram, 1)) @ (times @ side))[0])

    generator = np.random.default_rng(seed)
    draws = [slope(np.bincount(generator.integers(many, size=many), minlength=many)) for _ in range(samples)]
    low, high = np.quantile(draws, [0.025, 0.975]) if many > 1 else (np.nan, np.nan)
    return Interval(slope(np.ones(many)), float(low), float(high), many)


def _two_means(vectors: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Two clusters by Lloyd's algorithm from the two points farthest apart; which side each is on, shape [k]."""
    centres = vectors[list(np.unravel_index(apart.argmax(), apart.shape))]
    side = np.zeros(len(vectors), dtype=int)
    for _ in range(50):
        new = np.linalg.norm(vectors[:, None] - centres[None], axis=-1).argmin(1)
        if (new == side).all() and new.any():
            break
        side = new
        centres = np.stack([vectors[side == k].mean(0) if (side == k).any() else centres[k] for k in (0, 1)])
    return side


def _silhouette(apart: np.ndarray, side: np.ndarray, usual: float) -> float:
    """Mean silhouette (Rousseeuw 1987) of two clusters, gaps below `usual` made light of; one alone scores 0."""
    if len(np.unique(side)) < 2:
        return 0.0
    scores = []
    for i, own in enumerate(side):
        same = (side == own) & (np.arange(len(side)) != i)
        if not same.any():
            scores.append(0.0)
            continue
        a, b = apart[i, same].mean(), apart[i, side != own].mean()
        largest = max(a, b, usual)
        scores.append((b - a) / largest if largest > 0 else 0.0)
    return float(np.mean(scores))
