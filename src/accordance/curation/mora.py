"""MORA: find prompts that can earn one kind of reward only, and rewrite them so that they call for several."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Policy
from accordance.core.record import Judgment, Record, Records, Response, as_prompt
from accordance.core.scorer import Scorer


class Rewriter(Protocol):
    """Rewrites prompts so that they call for more."""

    def rewrite(self, prompts: Sequence[str], missing: Sequence[Sequence[str]], attempt: int) -> list[str]:
        """Each prompt with the same core need, such that answers can also differ in its missing dimensions.

        Args:
            prompts: those that can earn one kind of reward at most.
            missing: names of the dimensions that are not active on each.
            attempt: 1 for the first time that they are asked for, and so on.
        """
        ...


@dataclass(frozen=True)
class Scale:
    """Mean and spread of each reward over a pool of samples; frozen, so that later samples stay comparable."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, rewards: np.ndarray) -> Scale:
        """The scale of a reward table of shape [p, n, k]; a reward that is the same everywhere keeps its own unit."""
        flat = rewards.reshape(-1, rewards.shape[-1])
        spread = flat.std(0)
        return cls(flat.mean(0), np.where(spread > 1e-9 * np.abs(flat).max(0), spread, 1.0))

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        return (rewards - self.mean) / self.spread


@dataclass(frozen=True)
class Diagnosis:
    """What the sampled answers to each of p prompts can earn, in each of k dimensions.

    Attributes:
        reach: 90% quantile less 10% quantile of the normalised reward, shape [p, k].
        top: the 90% quantile, shape [p, k].
        active: whether a dimension can vary and be good, shape [p, k].
        diversity: volume that the samples dominate above the worst corner of the pool, as a share of the pool's
            box; 1 is one answer that is best in everything; shape [p].
        conflict: mean correlation of two rewards within a prompt, shape [p]; negative is conflict; NaN where fewer
            than two dimensions vary.
    """

    reach: np.ndarray
    top: np.ndarray
    active: np.ndarray
    diversity: np.ndarray
    conflict: np.ndarray

    @property
    def single(self) -> np.ndarray:
        """Prompts that can earn at most one kind of reward, shape [p]."""
        return self.active.sum(1) <= 1


def diagnose(
    rewards: np.ndarray, *, reach: float = 0.5, top: float = 0.0, scale: Scale | None = None
) -> Diagnosis:
    """Which rewards each prompt can earn.

    Range and top are both asked for, since reward models often score any refusal as safe: a dimension that is high
    for every answer, or that varies below average only, is not one that the prompt can be improved in. Correlations
    are taken within prompts; across prompts they show what prompts are about, not conflict.

    Args:
        rewards: of n answers to each prompt, shape [p, n, k]; higher is better.
        reach: least range of an active dimension, in standard deviations of the pool.
        top: least 90% quantile of an active dimension, in standard deviations above the pool's mean.
        scale: of the pool; by default that of these rewards.

    Raises:
        DataError: fewer than two answers, or rewards that are not finite.
    """
    table = np.asarray(rewards, dtype=np.float64)
    if table.ndim != 3 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise DataError("a diagnosis needs finite rewards of shape [prompts, answers >= 2, dimensions]",
                        found=f"shape {table.shape}")  # fmt: skip
    z = (scale or Scale.of(table))(table)
    low, high = np.quantile(z, 0.1, axis=1), np.quantile(z, 0.9, axis=1)
    active = (high - low >= reach) & (high >= top)
    floor, ceiling = z.reshape(-1, z.shape[-1]).min(0), z.reshape(-1, z.shape[-1]).max(0)
    unit = (z - floor) / np.maximum(ceiling - floor, 1e-12)
    return Diagnosis(
        high - low,
        high,
        active,
        np.array([_dominated(points) for points in unit]),
        np.array([_correlation(points) for points in z]),
    )


@dataclass(frozen=True)
class Rewrite:
    """What became of one single-reward prompt.

    Attributes:
        index: which of the prompts.
        prompt: the rewrite, or the prompt as it was where none was good enough.
        kept: whether it is a rewrite.
        tries: how many were asked for.
        reason: why the last one was refused, or empty.
        similarity: of the rewrite to the prompt, from 0 to 1.
        gained: dimensions that became active.
    """

    index: int
    prompt: str
    kept: bool
    tries: int
    reason: str
    similarity: float
    gained: tuple[str, ...]


@dataclass(frozen=True)
class Expansion:
    """Prompts after expansion, with the diagnosis before and what was rewritten.

    Attributes:
        prompts: one per prompt given: it, or its rewrite.
        before, after: diagnosis of both, on one scale.
        rewrites: what became of each single-reward prompt.
        rewards: of the sampled answers to `prompts`, normalised, shape [p, n, k].
        answers: the sampled answers to `prompts`.
        dimensions: names of the rewards.
    """

    prompts: list[str]
    before: Diagnosis
    after: Diagnosis
    rewrites: list[Rewrite]
    rewards: np.ndarray
    answers: list[list[str]]
    dimensions: tuple[str, ...]

    def training_pairs(self) -> Records:
        """Best against worst answer by mean normalised reward, of prompts that can earn two kinds of reward or more.

        These are for simultaneous alignment; `protecting` says which of them are for which step of a sequence.
        """
        made = []
        for index in np.flatnonzero(~self.after.single).tolist():
            mean = self.rewards[index].mean(1)
            best, worst = int(mean.argmax()), int(mean.argmin())
            low, high = sorted((best, worst))
            judged = Judgment("comparison", (0, 1), (float(mean[low]), float(mean[high])), annotator="mora")
            made.append(
                Record(
                    as_prompt(self.prompts[index]),
                    (Response.of(self.answers[index][low]), Response.of(self.answers[index][high])),
                    (judged,),
                    id=f"mora-{index}",
                    origin=f"prompt {index}",
                    extras={"active": [d for d, on in zip(self.dimensions, self.after.active[index]) if on]},
                )
            )
        return Records.of(made, source="mora")

    def protecting(self, order: Sequence[str]) -> list[np.ndarray]:
        """For sequential alignment: per dimension the prompts on which it and all earlier ones are active.

        Training on those, a step sees what it would cost the dimensions aligned before it.

        Raises:
            ConfigError: a dimension that is none.
        """
        for name in order:
            if name not in self.dimensions:
                raise ConfigError("unknown dimension", found=name, expected=", ".join(self.dimensions))
        places = [self.dimensions.index(name) for name in order]
        return [np.flatnonzero(self.after.active[:, places[: n + 1]].all(1)) for n in range(len(places))]


@system("S144", "MORA", paper="arXiv:2605.11679")
def expand(
    prompts: Sequence[str],
    policy: Policy,
    scorers: Mapping[str, Scorer],
    rewriter: Rewriter,
    *,
    samples: int = 16,
    reach: float = 0.5,
    top: float = 0.0,
    similar: float = 0.6,
    loss: float = 0.2,
    tries: int = 3,
    similarity: Callable[[str, str], float] | None = None,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
) -> Expansion:
    """Rewrite the prompts that can earn only one kind of reward, and check by sampling that the rewrites earn more.

    A rewrite is kept if it is similar enough to its prompt, more dimensions are active on it, and no dimension's top
    falls by more than `loss`; else the next try, else the prompt stays. Thresholds and the rewriting protocol are
    our reading of the abstract. Rewrites must not be let near an evaluation set that holds their prompts.

    Args:
        prompts: what is asked.
        policy: writes the answers that are sampled.
        scorers: the rewards by name; higher is better. Normalised over all answers to the prompts given.
        rewriter: a model or a rule.
        samples: answers per prompt, the same number before and after, since a range grows with it.
        reach, top: see `diagnose`.
        similar: least similarity of a rewrite.
        loss: how far the top of a dimension may fall, in standard deviations.
        tries: rewrites asked for, per prompt.
        similarity: of two prompts, from 0 to 1; by default of their words (`difflib.SequenceMatcher`).
        max_new_tokens: where answers are cut.
        temperature, seed: of the sampling.

    Raises:
        ConfigError: fewer than two rewards, or numbers out of range.
        DataError: a scorer has nothing to say of an answer.
    """
    if len(scorers) < 2 or samples < 2 or tries < 1 or not 0 <= similar <= 1:
        raise ConfigError(
            "an expansion needs two rewards, two samples, one try, and a similarity from 0 to 1",
            found=f"{len(scorers)} rewards, samples={samples}, tries={tries}, similar={similar}",
        )
    near, names = similarity or word_similarity, tuple(scorers)

    def sample(texts: Sequence[str], attempt: int) -> tuple[list[list[str]], np.ndarray]:
        how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed + attempt}
        written = policy.generate(list(texts), n=samples, **how)
        answers = [[completion.text for completion in group] for group in written]
        return answers, _table(texts, answers, scorers)

    chosen = list(prompts)
    answers, raw = sample(chosen, 0)
    scale = Scale.of(raw)
    before = diagnose(raw, reach=reach, top=top, scale=scale)
    rewards, missing = scale(raw), np.flatnonzero(before.single).tolist()
    found: dict[int, Rewrite] = {}
    for attempt in range(1, tries + 1):
        asked: dict[int, str] = {}
        lacks = [[n for n, on in zip(names, before.active[index]) if not on] for index in missing]
        texts = rewriter.rewrite([prompts[index] for index in missing], lacks, attempt) if missing else []
        for index, text in zip(missing, texts, strict=True):
            like = near(prompts[index], text)
            found[index] = Rewrite(index, prompts[index], False, attempt, "too far from the prompt", like, ())
            if like >= similar and text.strip() != prompts[index].strip():
                asked[index] = text
            elif like >= similar:
                found[index] = replace(found[index], reason="not rewritten")
        if not asked:
            continue
        new_answers, new_raw = sample(list(asked.values()), attempt)
        now = diagnose(new_raw, reach=reach, top=top, scale=scale)
        for place, (index, text) in enumerate(asked.items()):
            more = now.active[place].sum() > before.active[index].sum()
            fell = (before.top[index] - now.top[place]).max() > loss
            if more and not fell:
                gained = tuple(
                    n for n, b, a in zip(names, before.active[index], now.active[place]) if a and not b
                )
                found[index] = replace(found[index], prompt=text, kept=True, reason="", gained=gained)
                chosen[index], answers[index], rewards[index] = text, new_answers[place], scale(new_raw[place])
                missing.remove(index)
            else:
                why = "a dimension's top fell" if more else "no further dimension became active"
                found[index] = replace(found[index], reason=why)
    identity = Scale(np.zeros(len(names)), np.ones(len(names)))
    after = diagnose(rewards, reach=reach, top=top, scale=identity)
    return Expansion(chosen, before, after, [found[i] for i in sorted(found)], rewards, answers, names)


def word_similarity(a: str, b: str) -> float:
    """Share of words that two texts have in common, in order."""
    return difflib.SequenceMatcher(None, a.casefold().split(), b.casefold().split(), autojunk=False).ratio()


def _table(
    prompts: Sequence[str], answers: Sequence[Sequence[str]], scorers: Mapping[str, Scorer]
) -> np.ndarray:
    asked = [prompt for prompt, group in zip(prompts, answers) for _ in group]
    said = [text for group in answers for text in group]
    columns = []
    for name, scorer in scorers.items():
        given = scorer.score(asked, said)
        if any(value is None for value in given):
            raise DataError(
                "a reward has nothing to say of an answer", where=name, found=said[given.index(None)]
            )
        columns.append(np.array(given, dtype=np.float64))
    return np.stack(columns, 1).reshape(len(prompts), -1, len(scorers))


def _dominated(points: np.ndarray, draws: int = 512) -> float:
    """Share of the unit box that lies below some point; exact for one and two dimensions, else by a fixed draw."""
    if points.shape[1] == 1:
        return float(points.max())
    if points.shape[1] == 2:
        order = points[np.argsort(-points[:, 0])]
        best = np.maximum.accumulate(order[:, 1])
        width = order[:, 0] - np.append(order[1:, 0], 0.0)
        return float(width @ best)
    place = np.random.default_rng(0).random((draws, points.shape[1]))
    below = (points[None] >= place[:, None]).all(axis=-1)
    return float(below.any(axis=-1).mean())


def _correlation(points: np.ndarray) -> float:
    varying = points[:, points.std(0) > 1e-9]
    if varying.shape[1] < 2:
        return float("nan")
    among = np.corrcoef(varying.T)
    return float(among[np.triu_indices(len(among), 1)].mean())
