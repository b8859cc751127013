"""Causes: what decided a simulated judgment is known; drift, principles and cycles are what they say."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch

from accordance.core import games
from accordance.core.errors import ConfigError
from accordance.core.record import Judgment, Record, Response, user
from accordance.core.scorer import PairScorer, Scorer
from accordance.lab import CycleScorer, cyclic_population, default_population, judged, make_records, world
from accordance.lab.cycles import CIRCLE
from accordance.lab.people import Group, Person, Population
from accordance.lab.principles import PRINCIPLES, wished

ASK = "What colour is the lemon?"
RIGHT, WRONG = "The lemon is yellow.", "The lemon is blue."
POLITE, FORMAL = (
    "The lemon is yellow. I hope this helps you.",
    "The lemon is yellow. Thus the matter is concluded.",
)


def _record(*texts: str, **extras: float) -> Record:
    return Record(user(ASK), tuple(Response.of(text) for text in texts), extras=extras)


def test_causes_agree_with_judgments_as_often_as_their_chances_say() -> None:
    people = default_population()
    made = make_records(world.write, 300, people, seed=4)
    causes = [people.cause(record, record.judgments[0]) for record in made]
    assert {cause.outcome for cause in causes} == {-1, 0, 1}
    kinds = Counter(cause.kind for cause in causes)
    assert kinds["taste"] > 0.75 * len(causes) > 10 * kinds["noise"] > 0
    # How likely each was to be said is calibrated: what was said had the chance that its alternatives lacked.
    decided = [cause for cause in causes if cause.outcome]
    for low, high in ((0.0, 0.75), (0.75, 0.97), (0.97, 1.0)):
        sure = [c for c in decided if low <= max(c.chance, 1 - c.chance) < high]
        held = np.mean([c.chance > 0.5 for c in sure])
        assert held == pytest.approx(np.mean([max(c.chance, 1 - c.chance) for c in sure]), abs=0.08)


def test_chances_of_all_that_could_be_said_add_up_to_one() -> None:
    person = Person("ann", "all", {"correctness": 0.3}, 0.4, 0.1, 0.2, 0.3)
    people, record = Population([person]), _record(RIGHT, WRONG)
    said = [Judgment("comparison", (0, 1), v, annotator="ann") for v in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))]
    chances = [people.cause(record, judgment).chance for judgment in said]
    assert sum(chances) == pytest.approx(1)
    rng, found = np.random.default_rng(0), Counter()
    for _ in range(6000):
        judgment = people.judge(ASK, [RIGHT, WRONG], rng)
        if judgment.responses == (0, 1):
            found[judgment.values] += 1
    shares = [found[judgment.values] / found.total() for judgment in said]
    assert shares == pytest.approx(chances, abs=0.03)


def test_the_decisive_attribute_is_the_one_that_differs() -> None:
    person = Person("ann", "all", {"correctness": 3.0, "politeness": 1.0}, position_bias=0.3)
    people = Population([person])

    def cause(values: tuple[float, float], *texts: str):
        return people.cause(_record(*texts), Judgment("comparison", (0, 1), values, annotator="ann"))

    assert (cause((1, 0), RIGHT, WRONG).kind, cause((1, 0), RIGHT, WRONG).decisive) == ("taste", "correctness")
    assert cause((0, 1), RIGHT, POLITE).decisive == "politeness"
    assert cause((1, 0), WRONG, RIGHT).kind == "noise" and cause((1, 0), WRONG, RIGHT).chance < 0.05
    assert cause((1, 0), RIGHT, RIGHT).kind == "position", "what was shown first won a draw"
    assert cause((0, 1), RIGHT, RIGHT).kind == "noise"
    assert cause((0.5, 0.5), RIGHT, RIGHT).kind == "tie"


def test_a_judgment_by_a_stranger_has_no_cause_here() -> None:
    with pytest.raises(ConfigError, match="stranger"):
        default_population().cause(
            _record(RIGHT, WRONG), Judgment("comparison", (0, 1), (1, 0), annotator="a stranger")
        )


def test_a_principle_decides_in_place_of_taste_and_its_opposite_decides_the_contrary() -> None:
    people, rng = default_population(), np.random.default_rng(0)
    for name, liked in (("courtesy", 0), ("bluntness", 1)):
        texts = [POLITE, "What a silly question. The lemon is yellow."]
        rule = PRINCIPLES[name]
        made = [people.judge(ASK, texts, rng, rule=rule) for _ in range(60)]
        record = _record(*texts)
        causes = [people.cause(record, judgment) for judgment in made]
        assert np.mean([j.responses[int(np.argmax(j.values))] == liked for j in made]) > 0.9
        assert {j.principle for j in made} == {rule.text}
        assert {c.decisive for c in causes if c.kind == "principle"} == {"politeness"}
        assert all(set(c.terms) == {"politeness"} for c in causes)


def test_every_principle_has_an_opposite_that_wants_the_contrary_and_can_be_read_back() -> None:
    for one in PRINCIPLES.values():
        other = PRINCIPLES[one.opposite]
        assert other.opposite == one.name and (other.attribute, other.value) == (one.attribute, 1 - one.value)
        assert wished(f"You are a helper. {one.text}") == {one.attribute: one.value}
    assert wished("Be polite. Be blunt.") == {"politeness": 0.0}, "the later one wins"


def test_tastes_drift_with_time_and_causes_know_the_time() -> None:
    groups = {"turncoats": Group(1.0, {"politeness": 2.0}, drift={"politeness": -4.0})}
    people = Population.sample(0, size=5, groups=groups, shared={}, spread=0.0)
    rude = "What a silly question. The lemon is yellow."
    assert people.utility(ASK, POLITE) > people.utility(ASK, rude)
    assert people.at(1.0).utility(ASK, POLITE) < people.at(1.0).utility(ASK, rude)
    made = judged([ASK] * 101, [[POLITE, rude]] * 101, people, span=1.0)
    early, late = list(made)[:30], list(made)[-30:]
    liked = [np.mean([_best(r) == 0 for r in some]) for some in (early, late)]
    assert liked[0] > 0.75 and liked[1] < 0.25
    assert late[-1].extras["time"] == 1.0
    causes = [people.cause(r, r.judgments[0]) for r in late]
    assert Counter(c.kind for c in causes)["taste"] > 20
    assert "time" not in judged([ASK], [[POLITE, rude]], people)[0].extras


def test_majorities_run_in_a_circle_though_nobody_does() -> None:
    judge = CycleScorer()
    assert isinstance(judge, PairScorer) and not isinstance(judge, Scorer)
    rng = random.Random(0)
    plain = {"politeness": 0.5, "formality": 0.5, "elaboration": 0.0, "hedging": 0.0}
    texts = [world.best(ASK, rng, **(plain | {name: 1.0})) for name, _ in CIRCLE]
    table = [[judge.prob([ASK], [a], [b])[0] for b in texts] for a in texts]
    for place in range(3):
        assert 0.64 < table[place][(place + 1) % 3] < 2 / 3
        assert table[place][place] == pytest.approx(0.5)
    for person in judge.population.people:
        worth = sorted(person.utility(ASK, text) for text in texts)
        assert worth[0] < worth[1] - 1 < worth[2] - 2, "each person ranks them strictly"
    game = judge.game([ASK], [texts])
    torch.testing.assert_close(game.preference[0], torch.tensor(table, dtype=torch.float64))
    assert games.nash_equilibrium(game.preference)[0].tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_no_manner_and_no_mixture_of_manners_wins_against_all_others() -> None:
    judge, rng = CycleScorer(cyclic_population(strength=3.0)), random.Random(1)
    values = (0.0, 0.5, 1.0)
    manners = [(p, f, e) for p in values for f in values for e in (0.0, 1.0)]
    names = [name for name, _ in CIRCLE]
    texts = [world.best(ASK, rng, hedging=0.0, **dict(zip(names, manner))) for manner in manners]
    table = judge.game([ASK], [texts]).preference[0]
    assert (table.amin(1) < 0.45).all(), "every manner loses to some other"
    assert judge.prob([ASK], [WRONG], [RIGHT])[0] < 0.01, "what is right is no matter of manner"


def _best(record: Record) -> int:
    judgment = record.judgments[0]
    return judgment.responses[int(np.argmax(judgment.values))]
