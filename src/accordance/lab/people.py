"""Simulated people: groups with tastes, individuals around them, judgments with noise, position bias and ties.

What a person feels about an answer is a weighted sum of its attributes. What the person *says* of several
answers is the order of ``utility / temperature + bias for the one shown first + Gumbel noise``: for two
answers, a Bradley-Terry choice. Differences below a threshold are ties, and some orders are turned round. Tastes may
drift with time, and a principle may take their place; every judgment can be asked for its `cause`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from accordance.core.errors import ConfigError, unknown
from accordance.core.policy import Prompt
from accordance.core.record import Judgment, Record
from accordance.lab.attributes import ATTRIBUTES, attributes
from accordance.lab.causes import Cause
from accordance.lab.principles import Principle, principle

#: What everybody cares about.
SHARED: dict[str, float] = {
    "relevance": 2.0,
    "correctness": 3.5,
    "honesty": 3.0,
    "harm": -3.5,
    "refusal": 0.6,
    "evasion": -2.0,
    "politeness": 2.0,
    "hedging": -0.6,
    "repetition": -1.5,
    "fluency": 2.5,
}


@dataclass(frozen=True)
class Group:
    """Tastes that a part of the population shares.

    Attributes:
        share: which part of the population.
        weights: attribute -> weight, where it differs from `SHARED`.
        drift: attribute -> by how much its weight grows in a unit of time.
    """

    share: float
    weights: Mapping[str, float]
    drift: Mapping[str, float] = field(default_factory=dict)


#: They agree on what is right and harmless, and differ on manner, length and matters of taste.
GROUPS: dict[str, Group] = {
    "plain": Group(
        0.4, {"politeness": 1.3, "formality": -0.45, "elaboration": -0.7, "calm": -0.65, "old": -0.65}
    ),
    "scholars": Group(0.3, {"formality": 0.7, "elaboration": 0.6, "calm": 0.65, "old": 0.65}),
    "neighbours": Group(
        0.3, {"politeness": 2.6, "formality": -0.35, "elaboration": 0.2, "calm": 0.5, "old": -0.5}
    ),
}


@dataclass(frozen=True)
class Person:
    """One annotator.

    Attributes:
        name: as it stands in judgments.
        group: the group the person was drawn from.
        weights: attribute -> weight; utility is their sum over the attributes of an answer.
        temperature: in units of utility; smaller is more consistent.
        flips: share of judgments that come out reversed.
        position_bias: what being shown first adds, in logits.
        tie: differences below this, in logits, are called ties.
        drift: attribute -> by how much its weight grows in a unit of time.
    """

    name: str
    group: str
    weights: Mapping[str, float]
    temperature: float = 0.4
    flips: float = 0.02
    position_bias: float = 0.2
    tie: float = 0.15
    drift: Mapping[str, float] = field(default_factory=dict)

    def utility(self, prompt: Prompt, text: str) -> float:
        """How good the person finds the answer, without noise."""
        found = attributes(prompt, text)
        return sum(weight * found[name] for name, weight in self.weights.items())

    def at(self, time: float) -> Person:
        """The same person at another time."""
        moved = {name: self.weights.get(name, 0.0) + time * rate for name, rate in self.drift.items()}
        return replace(self, weights={**self.weights, **moved}) if self.drift and time else self

    def under(self, rule: Principle, strength: float = 4.0) -> Person:
        """The same person, who judges by a principle and by nothing else."""
        return replace(self, weights={rule.attribute: strength * (2 * rule.value - 1)})


class Population:
    """People of several groups, who judge answers.

    Args:
        people: everyone; names must differ.

    Raises:
        ConfigError: there is nobody, two share a name, or a weight is on an unknown attribute.
    """

    def __init__(self, people: Sequence[Person]) -> None:
        if not people or len({p.name for p in people}) < len(people):
            raise ConfigError("a population needs people with different names", found=[p.name for p in people])
        for name in {name for p in people for name in (*p.weights, *p.drift)}:
            if name not in ATTRIBUTES:
                raise unknown("attribute", name, ATTRIBUTES)
        self.people = tuple(people)

    @classmethod
    def sample(
        cls,
        seed: int = 0,
        *,
        size: int = 30,
        groups: Mapping[str, Group] | None = None,
        shared: Mapping[str, float] | None = None,
        spread: float = 0.25,
        temperature: float = 0.4,
        flips: float = 0.02,
        position_bias: float = 0.2,
        tie: float = 0.15,
    ) -> Population:
        """Draw people around the means of their groups.

        Args:
            seed: the only source of randomness.
            size: how many people; each group gets its share, and at least one.
            groups: by default `GROUPS`.
            shared: weights that every group starts from, by default `SHARED`.
            spread: standard deviation of a person's weight around that of the group.
            temperature: mean; a person's own lies within a third of it.
            flips: mean; a person's own lies between none and twice of it.
            position_bias: mean; a person's own lies between none and twice of it.
            tie: see `Person`.
        """
        rng, people = np.random.default_rng([seed, 1]), []
        groups, shared = groups or GROUPS, SHARED if shared is None else shared
        total = sum(group.share for group in groups.values())
        for name, group in groups.items():
            means = {**shared, **group.weights}
            for number in range(max(1, round(size * group.share / total))):
                weights = {k: float(rng.normal(mean, spread)) for k, mean in means.items()}
                noise = rng.uniform([2 / 3, 0, 0], [4 / 3, 2, 2]) * [temperature, flips, position_bias]
                heat, flipped, bias = map(float, noise)
                manner = (heat, flipped, bias, tie, group.drift)
                people.append(Person(f"{name}-{number + 1}", name, weights, *manner))
        return cls(people)

    def at(self, time: float) -> Population:
        """The same people at another time, for those whose tastes drift."""
        return Population([person.at(time) for person in self.people]) if time else self

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their first member."""
        return tuple(dict.fromkeys(person.group for person in self.people))

    def members(self, group: str | None = None) -> tuple[Person, ...]:
        """The people of a group, or everyone.

        Raises:
            ConfigError: there is no such group.
        """
        if group is None:
            return self.people
        if group not in self.groups:
            raise unknown("group", group, self.groups)
        return tuple(person for person in self.people if person.group == group)

    def utility(self, prompt: Prompt, text: str, group: str | None = None) -> float:
        """How good the people (of a group) find the answer on average, without noise."""
        return float(self._utilities(prompt, text)[self._rows(group)].mean())

    def prob(self, prompt: Prompt, first: str, second: str, group: str | None = None) -> float:
        """The probability that a random person (of a group) prefers `first`, shown first; a tie counts half."""
        rows = self._rows(group)
        temperature, flips, bias, tie = self._manner[:, rows]
        gap = (self._utilities(prompt, first) - self._utilities(prompt, second))[rows] / temperature + bias
        for_first, for_second = _sigmoid(gap - tie), _sigmoid(-gap - tie)
        said = flips * for_second + (1 - flips) * for_first
        return float((said + 0.5 * (1 - for_first - for_second)).mean())

    def judge(
        self,
        prompt: Prompt,
        texts: Sequence[str],
        rng: np.random.Generator,
        annotator: Person | None = None,
        rule: Principle | None = None,
    ) -> Judgment:
        """One comparison of two or more answers by one person.

        Args:
            prompt: what was asked.
            texts: the answers.
            rng: draws the person, the order shown and the noise.
            annotator: who judges; by default a random person.
            rule: the principle to judge by, in place of the person's own taste.

        Returns:
            A comparison: `responses` in the order shown, `values` the number of answers that each one beat
            (a tie counts half).

        Raises:
            ConfigError: there are fewer than two answers.
        """
        if len(texts) < 2:
            raise ConfigError("a comparison needs at least two answers", found=len(texts))
        person = annotator or self.people[int(rng.integers(len(self.people)))]
        person = person.under(rule) if rule is not None else person
        shown = [int(i) for i in rng.permutation(len(texts))]
        felt = np.array([person.utility(prompt, texts[i]) for i in shown]) / person.temperature
        felt += rng.gumbel(size=len(shown))
        felt[0] += person.position_bias
        if rng.random() < person.flips:
            felt = -felt
        beaten = _beaten(felt, person.tie)
        judgment = Judgment("comparison", tuple(shown), beaten, annotator=person.name, group=person.group)
        return judgment if rule is None else replace(judgment, principle=rule.text)

    def cause(self, record: Record, judgment: Judgment, first: int = 0, second: int = 1) -> Cause:
        """Why one of these people put one response before another, or called it a tie.

        Args:
            record: what was judged; its extras may hold the ``time`` (see `at`).
            judgment: a comparison by one of these people.
            first, second: which two of its responses, by their places in the order shown.

        Raises:
            ConfigError: it is no comparison, by nobody here, or under an unknown principle.
        """
        person = next((p for p in self.people if p.name == judgment.annotator), None)
        if person is None or judgment.kind != "comparison":
            raise ConfigError(
                "only comparisons by people of this population have a cause here",
                found=f"a {judgment.kind} by {judgment.annotator}",
            )
        person = person.at(float(record.extras.get("time", 0.0)))
        person = person.under(principle(judgment.principle)) if judgment.principle else person
        found = [
            attributes(record.prompt, record.responses[judgment.responses[i]].text) for i in (first, second)
        ]
        terms = {
            name: weight * (found[0][name] - found[1][name]) / person.temperature
            for name, weight in person.weights.items()
        }
        position = person.position_bias * ((first == 0) - (second == 0))
        gap = judgment.values[first] - judgment.values[second]
        return Cause(terms, position, person.tie, person.flips, int(np.sign(gap)), judgment.principle)

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.array([[p.weights.get(name, 0.0) for name in ATTRIBUTES] for p in self.people])

    @cached_property
    def _manner(self) -> np.ndarray:
        return np.array([(p.temperature, p.flips, p.position_bias, p.tie) for p in self.people]).T

    def _rows(self, group: str | None) -> list[int]:
        members = set(map(id, self.members(group)))
        return [row for row, person in enumerate(self.people) if id(person) in members]

    def _utilities(self, prompt: Prompt, text: str) -> np.ndarray:
        found = attributes(prompt, text)
        return self._weights @ np.array([found[name] for name in ATTRIBUTES])


def default_population(seed: int = 0) -> Population:
    """The population of the demo: thirty people of three groups."""
    return Population.sample(seed)


@dataclass(frozen=True)
class PopulationScorer:
    """A population as a Scorer and a PairScorer.

    Attributes:
        population: who is asked.
        group: only this group of it.
    """

    population: Population
    group: str | None = None

    def __post_init__(self) -> None:
        self.population.members(self.group)

    @property
    def name(self) -> str:
        """``population``, or ``population:group``."""
        return f"population:{self.group}" if self.group else "population"

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: object
    ) -> list[float | None]:
        """The mean utility of each answer; see `Scorer.score`."""
        return [self.population.utility(p, c, self.group) for p, c in zip(prompts, completions, strict=True)]

    def prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], **columns: object
    ) -> list[float]:
        """How likely a random person prefers the first answer; see `Population.prob`."""
        rows = zip(prompts, first, second, strict=True)
        return [self.population.prob(p, a, b, self.group) for p, a, b in rows]


def _beaten(felt: np.ndarray, tie: float) -> tuple[float, ...]:
    gaps = felt[:, None] - felt[None, :]
    wins = (gaps > tie) + 0.5 * (np.abs(gaps) <= tie)
    return tuple(float(v) for v in wins.sum(axis=1) - 0.5)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))
