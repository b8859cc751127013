"""Who took part and whom they stand for: profiles, ratings by person, census weights, sampling plans (PRISM)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from accordance.core.aggregate import METHODS
from accordance.core.errors import ConfigError, DataError, unknown
from accordance.core.record import Records
from accordance.core.stats import Interval
from accordance.feedback.files import rows_of

Scaling = Literal["zscore", "rank", "centre"]
Margins = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RatedTurn:
    """The responses of one turn of a conversation, rated by one person.

    Attributes:
        person: who rated.
        models: who wrote the responses.
        scores: one per response, higher is better, in the person's own units unless `scaled`.
        chosen: index of the response with which the conversation went on, where known.
        kind: of conversation (``unguided``, ``values guided``, ``controversy guided``), where known.
    """

    person: str
    models: tuple[str, ...]
    scores: tuple[float, ...]
    chosen: int | None = None
    kind: str | None = None


def load_profiles(
    source: str | Path | Iterable[Mapping[str, Any]], id: str = "user_id"
) -> dict[str, dict[str, str]]:
    """What people said of themselves, by person: answers as text; lists and nested answers are left out.

    PRISM nests some answers, such as ``{"age": ..., "ethnicity": {"simplified": "White"}}``: of those the entry
    ``simplified`` is taken where there is one.

    Args:
        source: a survey as json, jsonl, csv or parquet, or rows.
        id: the column that names the person.

    Raises:
        DataError: a row without a person, or one person twice.
    """
    found: dict[str, dict[str, str]] = {}
    for where, row in rows_of(source):
        person = row.get(id)
        if person is None or str(person) in found:
            raise DataError(
                f"each row of a survey has a {id} of its own",
                where=where,
                found=person,
                expected="every person once",
            )
        flat = {k: v.get("simplified") if isinstance(v, Mapping) else v for k, v in row.items() if k != id}
        plain = (str, int, float, bool)
        found[str(person)] = {
            k: str(v) for k, v in flat.items() if isinstance(v, plain) and str(v) not in ("", "nan")
        }
    return found


def rated_turns(records: Records) -> list[RatedTurn]:
    """Ratings of responses of named models by named people; one turn per record and rating of two or more.

    Raises:
        DataError: there are none.
    """
    made = []
    for record in records:
        for judgment in record.judgments:
            sources = [record.responses[i].source for i in judgment.responses]
            if judgment.kind != "rating" or judgment.annotator is None or not all(sources):
                continue
            picked, kind = record.extras.get("chosen"), record.extras.get("conversation_type")
            place = judgment.responses.index(picked) if picked in judgment.responses else None
            models = tuple(str(source) for source in sources)
            made.append(RatedTurn(judgment.annotator, models, judgment.values, place, kind and str(kind)))
    if not made:
        raise DataError(
            "nobody rated models here",
            where=records.source,
            expected="ratings by named people of responses whose source is known, such as PRISM's utterances",
        )
    return made


def scaled(turns: Sequence[RatedTurn], how: Scaling, *, by_kind: bool = False) -> list[RatedTurn]:
    """Scores in units that people share: sliders are used differently.

    Args:
        turns: as rated.
        how: ``zscore`` (each person to mean 0 and deviation 1; who gave one score everywhere gets 0), ``rank``
            (each person's ratings by their share of lower ones, ties half, in [0, 1]), or ``centre`` (each person
            to mean 0, in points).
        by_kind: before that, take out the mean of each kind of conversation, since some prompts are harder.
    """
    if how not in ("zscore", "rank", "centre"):
        raise unknown("scaling", how, ["zscore", "rank", "centre"])
    held = list(turns)
    if by_kind:
        held = _moved(held, lambda turn: turn.kind, lambda x: x - x.mean())

    def rank(x: np.ndarray) -> np.ndarray:
        ordered = np.sort(x)
        return (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")) / (2 * len(x))

    def zscore(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / x.std() if x.std() > 1e-9 else np.zeros_like(x)

    return _moved(
        held, lambda turn: turn.person, {"rank": rank, "zscore": zscore}.get(how, lambda x: x - x.mean())
    )


def model_scores(
    turns: Sequence[RatedTurn],
    method: str = "rank_centrality",
    *,
    tie_band: float = 0.0,
    weights: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """How people rank models, from comparisons within turns, which no person's use of the slider can tilt.

    Args:
        turns: within each, i beats j where its score is higher by more than `tie_band`; else it is a tie.
        method: a name of `core.aggregate.METHODS`, or ``mean`` for the mean score of each model, which only makes
            sense of `scaled` turns.
        tie_band: in the units of the scores.
        weights: of people, such as `rake` gives; 1 for each by default.

    Returns:
        A number per model, higher is better.
    """
    if method not in METHODS and method != "mean":
        raise unknown("method", method, [*METHODS, "mean"])
    models = sorted({model for turn in turns for model in turn.models})
    place = {model: i for i, model in enumerate(models)}
    wins, total, count = np.zeros((len(models), len(models))), np.zeros(len(models)), np.zeros(len(models))
    for turn in turns:
        weight = 1.0 if weights is None else weights.get(turn.person, 0.0)
        at, scores = np.array([place[model] for model in turn.models]), np.array(turn.scores)
        np.add.at(total, at, weight * scores)
        np.add.at(count, at, weight)
        _count_wins(wins, at, scores, tie_band, weight)
    means = np.divide(total, count, out=np.full(len(models), np.nan), where=count > 0)
    return dict(zip(models, (means if method == "mean" else METHODS[method](wins)).tolist()))


def kendall_distance(first: Mapping[Any, float], second: Mapping[Any, float]) -> float:
    """Share of pairs that two rankings order differently, a tie in one of them as half; over what both rank."""
    both = sorted(set(first) & set(second))
    a, b = (np.array([ranking[name] for name in both]) for ranking in (first, second))
    upper = np.triu_indices(len(both), 1)
    signs = [np.sign(x[:, None] - x[None, :])[upper] for x in (a, b)]
    return float(np.mean(np.abs(signs[0] - signs[1]) / 2)) if len(both) > 1 else float("nan")


def group_distance(
    turns: Sequence[RatedTurn],
    groups: tuple[set[str], set[str]],
    method: str = "rank_centrality",
    *,
    samples: int = 200,
    seed: int = 0,
) -> Interval:
    """Kendall distance between two groups' rankings of models, with a bootstrap over the people of each."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    models = sorted({model for turn in turns for model in turn.models})
    wins: dict[str, np.ndarray] = {}  # of each person, so that a resample is a sum
    for turn in turns:
        held = wins.setdefault(turn.person, np.zeros((len(models), len(models))))
        _count_wins(
            held, np.array([models.index(model) for model in turn.models]), np.array(turn.scores), 0.0, 1.0
        )
    sides = [np.array([wins[person] for person in sorted(group) if person in wins]) for group in groups]
    if not all(map(len, sides)):
        raise DataError("a group that rated nothing", found=[len(side) for side in sides])
    generator = np.random.default_rng(seed)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        both = [i for i in range(len(models)) if a[i].sum() + a[:, i].sum() and b[i].sum() + b[:, i].sum()]
        scores = [METHODS[method](each[np.ix_(both, both)]) for each in (a, b)]
        return kendall_distance(dict(enumerate(scores[0].tolist())), dict(enumerate(scores[1].tolist())))

    estimate = distance(*(side.sum(0) for side in sides))
    made = []
    for _ in range(samples):
        drawn = [np.bincount(generator.integers(len(s), size=len(s)), minlength=len(s)) for s in sides]
        made.append(distance(*(np.tensordot(many, side, 1) for many, side in zip(drawn, sides))))
    low, high = np.nanquantile(made, [0.025, 0.975]) if made else (float("nan"), float("nan"))
    return Interval(estimate, float(low), float(high), min(map(len, sides)))


def rake(
    people: Mapping[str, Mapping[str, str]], margins: Margins, *, steps: int = 200, tolerance: float = 1e-6
) -> dict[str, float]:
    """Weights with which people match a census on each question (raking, Deming and Stephan 1940); their mean is 1.

    Args:
        people: what each person answered.
        margins: for each question the share of each answer in the population; shares sum to 1.
        steps: rounds at most.
        tolerance: largest difference of a share at which it stops.

    Raises:
        DataError: somebody gave an answer of which the census says nothing, nobody gave one that it has, shares
            don't sum to 1, or no weights match all margins.
    """
    names = list(people)
    codes = {}
    for question, shares in margins.items():
        if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
            raise DataError("shares sum to 1", where=question, found=dict(shares))
        answers = list(shares)
        given = [people[name].get(question) for name in names]
        strange = sorted({str(answer) for answer in given if answer not in shares})
        absent = [answer for answer in answers if shares[answer] > 0 and answer not in given]
        if strange or absent:
            raise DataError(
                f"people and census differ in their answers to {question!r}",
                found=f"not in the census: {strange}; nobody in the sample: {absent}",
                remedy="merge answers, or leave those people out",
            )
        codes[question] = (
            np.array([answers.index(str(answer)) for answer in given]),
            np.array(list(shares.values())),
        )
    weights, worst = np.ones(len(names)), float("inf")
    for _ in range(steps):
        for code, target in codes.values():
            now = np.bincount(code, weights, minlength=len(target)) / weights.sum()
            weights = weights * np.divide(target, now, out=np.zeros_like(target), where=now > 0)[code]
        shares = [np.bincount(code, weights, minlength=len(t)) / weights.sum() for code, t in codes.values()]
        worst = max((float(np.abs(s - t).max()) for s, (_, t) in zip(shares, codes.values())), default=0.0)
        if worst < tolerance:
            return dict(zip(names, (weights / weights.mean()).tolist()))
    raise DataError(
        "no weights match all margins", found=f"a share is off by {worst:.3g}", remedy="merge answers"
    )


def effective_size(weights: Mapping[str, float]) -> float:
    """How many equally weighted people the weighted ones are worth (Kish 1965)."""
    w = np.array(list(weights.values()))
    return float(w.sum() ** 2 / (w**2).sum())


def plan_sample(
    pool: Mapping[str, Mapping[str, str]], margins: Margins, size: int, *, seed: int = 0
) -> list[str]:
    """Whom to ask, out of a pool, so that they look like the census without weights.

    People are drawn in proportion to their raking weights by systematic sampling, sorted by their answers, so that
    each kind of person comes as often as it should, up to one.

    Raises:
        ConfigError: more people than the pool can give in these proportions.
        DataError: see `rake`.
    """
    weights = rake(pool, margins)
    names = sorted(pool, key=lambda name: ([pool[name].get(q, "") for q in margins], name))
    share = np.array([weights[name] for name in names]) * size / len(names)
    if size < 1 or share.max() > 1:
        most = int(len(names) / max(weights.values()))
        raise ConfigError(
            "the pool can't give so many people in these proportions",
            found=size,
            expected=f"1 .. {most}",
            remedy="recruit more of the people who are rare in it",
        )
    start = np.random.default_rng(seed).random()
    ends = np.concatenate([[0.0], np.cumsum(share)])
    picks = np.floor(ends[1:] - start + 1e-9) > np.floor(ends[:-1] - start + 1e-9)
    return [name for name, picked in zip(names, picks) if picked]


def _count_wins(wins: np.ndarray, at: np.ndarray, scores: np.ndarray, tie_band: float, weight: float) -> None:
    """Add the comparisons of one turn; a model against itself (a later turn's two samples) says nothing."""
    gap = scores[:, None] - scores[None, :]
    won = weight * ((gap > tie_band) + 0.5 * (np.abs(gap) <= tie_band)) * (at[:, None] != at[None, :])
    np.add.at(wins, (at[:, None], at[None, :]), won)


def _moved(turns: Sequence[RatedTurn], key: Any, change: Any) -> list[RatedTurn]:
    """The turns with the scores of each key's turns changed together."""
    places: dict[Any, list[int]] = defaultdict(list)
    for i, turn in enumerate(turns):
        places[key(turn)].append(i)
    made = list(turns)
    for some in places.values():
        new = iter(change(np.concatenate([np.asarray(turns[i].scores, float) for i in some])).tolist())
        for i in some:
            made[i] = replace(turns[i], scores=tuple(next(new) for _ in turns[i].scores))
    return made
