"""Simulated people: their groups differ, and noise, bias and ties are in the judgments as they were put in."""

from __future__ import annotations

import random

import numpy as np
import pytest

from accordance.core.errors import ConfigError
from accordance.core.scorer import PairScorer, Scorer
from accordance.core.views import pairs
from accordance.lab import SHARED, PopulationScorer, default_population, make_records, world
from accordance.lab.people import Person, Population

ASK = "What colour is the lemon?"
RIGHT, WRONG = "The lemon is yellow.", "The lemon is blue."


def _one(**manner: float) -> Population:
    person = Person(
        "ann", "all", {"correctness": 1.0}, **{"flips": 0.0, "position_bias": 0.0, "tie": 0.0} | manner
    )
    return Population([person])


def _firsts(population: Population, a: str, b: str, n: int = 2000, seed: int = 0) -> dict[str, float]:
    """Shares of judgments for what was shown first, for text `a`, and of ties."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        judgment = population.judge(ASK, [a, b], rng)
        first, second = judgment.values
        won = judgment.responses[int(second > first)]
        found.append((first > second, won == 0 and not judgment.tie, judgment.tie, judgment.responses[0] == 0))
    first, for_a, tie, shown = np.mean(found, axis=0)
    return {"first": first, "a": for_a, "tie": tie, "a_shown_first": shown}


def test_three_groups_agree_on_what_is_right_and_differ_in_taste() -> None:
    people, rng = default_population(), random.Random(0)
    assert len(people.groups) >= 3 and len(people.people) == 30
    ask = "Should I choose chess or boxing?"
    calm, lively = world.best(ask, rng, calm=1, politeness=0.5), world.best(ask, rng, calm=0, politeness=0.5)
    prefers_calm = {g: people.utility(ask, calm, g) > people.utility(ask, lively, g) for g in people.groups}
    assert prefers_calm == {"plain": False, "scholars": True, "neighbours": True}
    assert all(people.utility(ASK, RIGHT, g) - people.utility(ASK, WRONG, g) > 2 for g in people.groups)


def test_individuals_are_drawn_around_their_group() -> None:
    weights = [p.weights["correctness"] for p in Population.sample(seed=1, size=300, spread=0.25).people]
    assert np.mean(weights) == pytest.approx(SHARED["correctness"], abs=0.06)
    assert np.std(weights) == pytest.approx(0.25, abs=0.04)


def test_the_temperature_can_be_recovered_from_judgments() -> None:
    found = _firsts(_one(temperature=0.8), RIGHT, WRONG)
    assert found["a"] == pytest.approx(1 / (1 + np.exp(-1 / 0.8)), abs=0.03)
    assert found["a_shown_first"] == pytest.approx(0.5, abs=0.035)


def test_the_position_bias_can_be_recovered_from_judgments() -> None:
    found = _firsts(_one(position_bias=0.7), RIGHT, RIGHT)
    assert np.log(found["first"] / (1 - found["first"])) == pytest.approx(0.7, abs=0.15)


def test_the_share_of_flips_can_be_recovered_from_judgments() -> None:
    found = _firsts(_one(temperature=0.05, flips=0.2), RIGHT, WRONG)
    assert 1 - found["a"] == pytest.approx(0.2, abs=0.03)


def test_ties_come_where_the_difference_is_small() -> None:
    population = _one(temperature=0.05, tie=0.5)
    assert _firsts(population, RIGHT, RIGHT)["tie"] == pytest.approx(np.tanh(0.25), abs=0.03)
    assert _firsts(population, RIGHT, WRONG)["tie"] < 0.01


def test_the_probability_is_that_of_the_judgments() -> None:
    population, rng = default_population(), np.random.default_rng(3)
    texts = ["Perhaps the lemon is yellow.", "What a silly question. The lemon is yellow."]
    first = []
    for _ in range(4000):
        judgment = population.judge(ASK, texts, rng)
        if judgment.responses[0] == 0:
            first.append(0.5 + 0.5 * np.sign(judgment.values[0] - judgment.values[1]))
    assert population.prob(ASK, *texts) == pytest.approx(np.mean(first), abs=0.035)


def test_scorers_speak_the_protocols_of_core() -> None:
    scorer = PopulationScorer(default_population())
    assert isinstance(scorer, Scorer) and isinstance(scorer, PairScorer)
    good, bad = scorer.score([ASK, ASK], [RIGHT, WRONG])
    assert good is not None and bad is not None and good > bad
    assert scorer.prob([ASK], [RIGHT], [WRONG])[0] > 0.9 > scorer.prob([ASK], [WRONG], [RIGHT])[0]
    same = scorer.prob([ASK], [RIGHT], [RIGHT])[0]
    assert 0.5 < same < 0.6, "position bias favours what is shown first"
    assert PopulationScorer(default_population(), "plain").name == "population:plain"
    with pytest.raises(ConfigError, match="scholars"):
        PopulationScorer(default_population(), "scholar")


def test_a_comparison_of_four_ranks_them() -> None:
    texts = [WRONG, RIGHT, "", "Ugh, not this nonsense again! The lemon is blue."]
    rng, population = np.random.default_rng(0), default_population()
    totals = np.zeros(4)
    for _ in range(100):
        judgment = population.judge(ASK, texts, rng)
        assert sorted(judgment.responses) == [0, 1, 2, 3] and sum(judgment.values) == 6
        totals[list(judgment.responses)] += judgment.values
    assert totals.argmax() == 1 and totals[0] > totals[3]


def test_a_population_must_have_people_with_names_of_their_own_and_known_weights() -> None:
    with pytest.raises(ConfigError, match="different names"):
        Population([])
    with pytest.raises(ConfigError, match="correctness"):
        Population([Person("ann", "all", {"corectness": 1.0})])


def test_records_of_an_experiment_are_seeded_and_carry_who_judged() -> None:
    population = default_population()
    one = make_records(world.write, 40, population, seed=1, judges=3)
    assert one.fingerprint() == make_records(world.write, 40, population, seed=1, judges=3).fingerprint()
    assert one.fingerprint() != make_records(world.write, 40, population, seed=2, judges=3).fingerprint()
    names = {person.name: person.group for person in population.people}
    for record in one:
        assert len({j.annotator for j in record.judgments}) == 3
        assert all(names[j.annotator] == j.group for j in record.judgments if j.annotator)
    assert one.counts() == {"comparison": 120}
    assert len(pairs(one)) > 100
    with pytest.raises(ConfigError, match="another person"):
        make_records(world.write, 2, population, judges=31)
