"""Inverse constitutional AI: the shortest list of principles that gives back the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats as scipy_stats

from accordance.analysis.embedding import Embedder, HashedText
from accordance.analysis.principles import PrincipleJudge, blind_votes, cluster
from accordance.analysis.table import PairTable
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.stats import Interval, fdr, proportion

#: The judge must see a principle apply to at least this share of the comparisons it is kept for.
RELEVANT = 0.1
#: Cosine of two principles' texts, or votes, above which they are one.
SAME = 0.95


@dataclass(frozen=True)
class Principle:
    """One principle and how the labels bear it out.

    Attributes:
        text: the principle.
        votes_for, against, abstain, invalid: comparisons in which its vote is the label, its opposite, none,
            or can't be read.
        contested: topics (or groups) on whose comparisons it is right, and those on which it is wrong, each
            beyond chance; empty where there are not both.
    """

    text: str
    votes_for: int
    against: int
    abstain: int
    invalid: int
    contested: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def kept(self) -> bool:
        """Whether it passes the filter of the paper's code."""
        seen = self.votes_for + self.against + self.abstain
        total = seen + self.invalid
        return self.votes_for > self.against and self.votes_for >= RELEVANT * total and self.invalid < seen


@dataclass(frozen=True)
class Constitution:
    """What `inverse_constitution` found.

    Attributes:
        principles: the constitution, best first.
        candidates: every principle that was voted on, best first.
        votes: of the constitution on every comparison, shape [n, principles], see `PrincipleJudge.vote`.
        weights: log-odds per vote, for the weighted judge, shape [principles]; fitted on the training part.
        train: which comparisons the constitution was made from, shape [n].
        accuracy, train_accuracy: labels given back by equal votes, held out and in training; ties count half.
        weighted_accuracy: the same held out, votes weighed.
        random_accuracy: by as many principles drawn from the candidates by chance, held out.
        ceiling: the largest share of labels that any rule over these votes could give back, all comparisons.
        conflicts: comparisons whose vote pattern has its label both ways.
    """

    principles: tuple[Principle, ...]
    candidates: tuple[Principle, ...]
    votes: np.ndarray
    weights: np.ndarray
    train: np.ndarray
    accuracy: Interval
    train_accuracy: Interval
    weighted_accuracy: Interval
    random_accuracy: Interval
    ceiling: float
    conflicts: int

    @property
    def contested(self) -> tuple[Principle, ...]:
        """Candidates that are right about some topics or groups and wrong about others."""
        return tuple(p for p in self.candidates if p.contested[0])


@system("S055", "ICAI", paper="arXiv:2406.06560")
def inverse_constitution(
    records: Records | PairTable,
    judge: PrincipleJudge,
    many: int = 5,
    *,
    per_pair: int = 3,
    clusters: int = 40,
    held_out: float = 0.0,
    embed: Embedder | None = None,
    by: Sequence[str] | None = None,
    order: Literal["sure", "net"] = "sure",
    seed: int = 0,
) -> Constitution:
    """Principles out of comparisons: propose, merge, vote blind, filter, give back the labels.

    Departs from the paper: principles are ordered by how surely they hold, (for - against) / sqrt(for + against),
    as its order by (for - against) puts a weak habit of all texts above a rule about some (``order="net"`` is the
    paper's); of principles that say or vote the same the best is kept, rather than one of each of `many`
    clusters, which merges principles that have nothing in common; conflict is looked for (`Principle.contested`,
    `ceiling`); with `held_out` 0 the constitution is tested on what made it, which `report` says.

    Args:
        records: comparisons; ties are left out.
        judge: proposes and votes; it sees the label when it proposes and never when it votes.
        many: principles in the constitution.
        per_pair: proposals asked for per comparison.
        clusters: candidates left after merging those that say the same.
        held_out: share of prompts that are kept for testing.
        embed: principles into vectors, for merging; hashed words by default.
        by: a topic per comparison, shape [n], within which principles are checked; by default the annotators'
            groups where there are two, else the prompts.
        order: of the principles, see above.
        seed: of the split, the order shown, and the clusters.

    Returns:
        The constitution; `report` tells it.

    Raises:
        ConfigError: numbers out of range.
        DataError: nothing was proposed, or nothing is left to test on.
    """
    if many < 1 or per_pair < 1 or clusters < many or not 0 <= held_out < 1:
        raise ConfigError(
            "many, per_pair >= 1, clusters >= many, 0 <= held_out < 1",
            found=f"many={many}, per_pair={per_pair}, clusters={clusters}, held_out={held_out}",
        )
    table = records if isinstance(records, PairTable) else PairTable.from_records(records)
    train = _training(table, held_out, seed)
    candidates = _candidates(table, train, judge, per_pair, clusters, embed or HashedText(), seed)
    votes = blind_votes(judge, candidates, table, seed=seed)
    agreed = votes * table.sign[:, None]
    topics = _topics(table) if by is None else np.asarray([str(topic) for topic in by])
    judged = _judged(candidates, agreed[train], topics[train])
    net = np.array([p.votes_for - p.against for p in judged], dtype=float)
    if order == "sure":
        net /= np.sqrt(np.maximum([p.votes_for + p.against for p in judged], 1))
    rank = [int(j) for j in np.argsort(-net, kind="stable")]
    chosen = _unlike([j for j in rank if judged[j].kept], candidates, votes[train], many, embed or HashedText())
    test = ~train if held_out else train
    generator = np.random.default_rng(seed)
    chance = [generator.choice(len(candidates), min(many, len(candidates)), replace=False) for _ in range(50)]
    weights = _weights(votes[:, chosen], table, train)
    pattern = np.nan_to_num(votes[:, chosen])
    ceiling, conflicts = _ceiling(pattern, table.sign)
    return Constitution(
        principles=tuple(judged[j] for j in chosen),
        candidates=tuple(judged[j] for j in rank),
        votes=votes[:, chosen],
        weights=weights,
        train=train,
        accuracy=_right(np.nan_to_num(agreed[:, chosen]).sum(1)[test]),
        train_accuracy=_right(np.nan_to_num(agreed[:, chosen]).sum(1)[train]),
        weighted_accuracy=_right((np.nan_to_num(agreed[:, chosen]) @ weights)[test]),
        random_accuracy=_right(
            np.concatenate([np.nan_to_num(agreed[:, some]).sum(1)[test] for some in chance]),
            np.tile(np.arange(int(test.sum())), len(chance)),
        ),
        ceiling=ceiling,
        conflicts=conflicts,
    )


def report(found: Constitution) -> Report:
    """A constitution as a report: principles with their votes, accuracy beside baselines, and what is contested."""
    tested = "held-out" if not found.train.all() else "the same"
    made = Report(
        "Inverse constitution",
        f"{len(found.principles)} principles give back {found.accuracy.estimate:.0%} of {tested} labels.",
    )
    made.add("accuracy", found.accuracy, label="Labels given back", unit="share", headline=True, good="high")
    made.add("weighted_accuracy", found.weighted_accuracy, label="With weighed votes", unit="share")
    made.add(
        "random_accuracy", found.random_accuracy, label="By random principles", unit="share", headline=True
    )
    made.add("train_accuracy", found.train_accuracy, unit="share")
    made.add("ceiling", found.ceiling, label="Most that any rule over these votes could", unit="share")
    made.add("conflicts", found.conflicts, label="Comparisons whose votes have the label both ways", good="low")
    columns = ["principle", "for", "against", "neither", "unreadable"]
    for title, listed in (("Constitution", found.principles), ("All candidates", found.candidates)):
        rows = [[p.text, p.votes_for, p.against, p.abstain, p.invalid] for p in listed]
        made.table(title, columns, rows)
    if found.contested:
        rows = [[p.text, "; ".join(p.contested[0]), "; ".join(p.contested[1])] for p in found.contested]
        made.table("Contested principles", ["principle", "holds for", "the opposite for"], rows)
        made.warn(
            f"{len(found.contested)} principles hold for some and their opposite for others: the data conflict"
        )
    if found.train.all():
        made.warn(
            "tested on the comparisons that the principles were made from: set held_out= for an honest number"
        )
    return made


def _training(table: PairTable, held_out: float, seed: int) -> np.ndarray:
    prompts, code = np.unique(table.prompt, return_inverse=True)
    # One prompt asked of every pair (a synthetic set) can't be split by prompt: then comparisons are.
    unit = code if len(prompts) >= 10 else np.arange(len(table))
    order = np.random.default_rng(seed).permutation(int(unit.max()) + 1)[unit]
    train = order >= held_out * (int(unit.max()) + 1)
    if not train.any() or (held_out and train.all()):
        raise DataError("too few comparisons to hold some out", found=f"{len(table)}, held_out={held_out}")
    return train


def _candidates(
    table: PairTable,
    train: np.ndarray,
    judge: PrincipleJudge,
    per_pair: int,
    clusters: int,
    embed: Embedder,
    seed: int,
) -> list[str]:
    said: Counter[str] = Counter()
    for index in np.flatnonzero(train):
        said.update(text.strip() for text in judge.propose(*table.pair(int(index)), per_pair) if text.strip())
    if not said:
        raise DataError("the judge proposed no principle", found=f"{int(train.sum())} comparisons")
    texts = [text for text, _ in said.most_common()]
    return [texts[i] for i in _distinct(texts, clusters, embed, seed)]


def _distinct(texts: list[str], many: int, embed: Embedder, seed: int) -> list[int]:
    """The first of each cluster, in order."""
    if len(texts) <= many:
        return list(range(len(texts)))
    code = cluster(embed(texts), many, seed)
    return sorted(int(np.flatnonzero(code == c)[0]) for c in np.unique(code))


def _unlike(ranked: list[int], texts: list[str], votes: np.ndarray, many: int, embed: Embedder) -> list[int]:
    """The first `many` that neither say nor vote the same as one before them."""
    if not ranked:
        return []
    said, voted = embed([texts[j] for j in ranked]), np.nan_to_num(votes[:, ranked]).T
    said, voted = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (said, voted))
    kept: list[int] = []
    for i in range(len(ranked)):
        alike = [said[i] @ said[k] > SAME or voted[i] @ voted[k] > SAME for k in kept]
        if not any(alike) and len(kept) < many:
            kept.append(i)
    return [ranked[i] for i in kept]


def _judged(texts: Sequence[str], agreed: np.ndarray, topics: np.ndarray) -> list[Principle]:
    """Counts per principle, and the topics on which it is right or wrong beyond chance."""
    names = np.unique(topics)
    p = np.ones((len(texts), len(names), 2))
    for t, name in enumerate(names):
        right, wrong = ((agreed[topics == name] == side).sum(0) for side in (1, -1))
        p[:, t, 0] = scipy_stats.binom.sf(right - 1, right + wrong, 0.5)
        p[:, t, 1] = scipy_stats.binom.sf(wrong - 1, right + wrong, 0.5)
    sure = fdr(p.ravel()).reshape(p.shape) <= 0.05
    made = []
    for j, text in enumerate(texts):
        sides = [tuple(str(n)[:60] for n in names[sure[j, :, side]]) for side in (0, 1)]
        column = agreed[:, j]
        right, wrong, neither = (int((column == value).sum()) for value in (1, -1, 0))
        split = (sides[0], sides[1]) if sides[0] and sides[1] else ((), ())
        made.append(Principle(text, right, wrong, neither, int(np.isnan(column).sum()), split))
    return made


def _topics(table: PairTable) -> np.ndarray:
    if len(np.unique(table.group[table.group >= 0])) >= 2:
        return np.array([*table.groups, "no group"])[table.group]
    prompts = np.array([p or "" for p in table.prompts.to_pylist()])
    return prompts[table.text_prompt[table.first]]


def _weights(votes: np.ndarray, table: PairTable, train: np.ndarray) -> np.ndarray:
    from accordance.analysis.regression import logit

    return logit(np.nan_to_num(votes)[train], table.label[train], ridge=1.0) if votes.shape[1] else np.zeros(0)


def _right(score: np.ndarray, clusters: np.ndarray | None = None) -> Interval:
    outcome = np.where(score == 0, 0.5, score > 0)
    return proportion(outcome, clusters=None if clusters is None else clusters.tolist())


def _ceiling(pattern: np.ndarray, sign: np.ndarray) -> tuple[float, int]:
    """Best accuracy of any odd rule over vote patterns, and the comparisons in patterns with labels both ways."""
    # A comparison and its mirror image are the same, so patterns are turned until their first vote is positive.
    first = (
        np.take_along_axis(pattern, (pattern != 0).argmax(1)[:, None], 1)[:, 0]
        if pattern.shape[1]
        else sign * 0
    )
    turn = np.where(first < 0, -1.0, 1.0)
    _, code = np.unique(pattern * turn[:, None], axis=0, return_inverse=True)
    code = code.ravel()
    plus = np.bincount(code, weights=(sign * turn > 0).astype(float))
    count = np.bincount(code)
    blank = np.bincount(code, weights=(first == 0).astype(float)) > 0
    best = np.where(blank, count / 2, np.maximum(plus, count - plus))
    mixed = ~blank & (plus > 0) & (plus < count)
    return float(best.sum() / len(sign)), int(count[mixed].sum())
