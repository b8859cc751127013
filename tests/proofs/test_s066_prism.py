"""Proof of S066: ratings traced to people say who likes which model, and whom it hurts when others choose.

1,500 people in four groups (.4/.3/.2/.1), 21 models, tastes by group; every person uses the slider in their own way.
One model is liked by the large groups and disliked by the smallest; another is liked by all.
"""

from __future__ import annotations

import numpy as np
import pytest

from accordance.core.views import pairs
from accordance.feedback import load_records
from accordance.feedback.participation import (
    RatedTurn,
    effective_size,
    kendall_distance,
    load_profiles,
    model_scores,
    plan_sample,
    rake,
    rated_turns,
    scaled,
)
from accordance.feedback.welfare import Scheme, standard_schemes, welfare

MODELS, SHARES = [f"m{i:02d}" for i in range(21)], {"A": 0.4, "B": 0.3, "C": 0.2, "D": 0.1}
SPLIT, LIKED = "m03", "m07"


def tastes(seed: int = 0) -> dict[str, np.ndarray]:
    """Mean rating of each model by each group, in points; models lie about two points apart."""
    g = np.random.default_rng(seed)
    shared = np.linspace(-15, 10, 21)
    made = {name: shared[g.permutation(21)] for name in SHARES}
    for name, taste in made.items():
        taste[3], taste[7] = (-14.0 if name == "D" else 24.0), 12.0
    return made


def population(
    people: int, seed: int, *, only: str | None = None, lean: bool = False
) -> tuple[list[RatedTurn], dict]:
    """Turns of four models each; offsets (sd 25) and scales (0.5 to 2) of the slider differ by person.

    `lean`: people who rate high meet other models than people who rate low, as where models come and go.
    """
    g, taste, turns, groups = np.random.default_rng(seed), tastes(), [], {}
    names = list(SHARES)
    for n in range(people):
        group = only or names[int(g.choice(4, p=list(SHARES.values())))]
        groups[f"p{n}"] = group
        offset, scale = g.normal(scale=25), float(np.exp(g.uniform(np.log(0.5), np.log(2))))
        weights = np.exp(np.where(np.arange(21) % 2 == (offset > 0), 1.5, 0.0)) if lean else np.ones(21)
        for _ in range(6):
            which = g.choice(21, 4, replace=False, p=weights / weights.sum())
            felt = taste[group][which] + g.normal(scale=8, size=4)
            scores = tuple((50 + offset + scale * felt).tolist())
            turns.append(RatedTurn(f"p{n}", tuple(MODELS[i] for i in which), scores, int(felt.argmax())))
    return turns, groups


def rows(turns: list[RatedTurn]) -> list[dict]:
    """The turns as PRISM's utterances."""
    return [
        {
            "utterance_id": f"u{n}-{i}", "conversation_id": f"c{n}", "user_id": turn.person, "turn": 0,
            "user_prompt": f"question {n}", "model_response": f"answer {i} by {model}", "model_name": model,
            "score": score, "if_chosen": i == turn.chosen, "conversation_type": "unguided",
        }
        for n, turn in enumerate(turns)
        for i, (model, score) in enumerate(zip(turn.models, turn.scores))
    ]  # fmt: skip


def test_rows_become_turns_and_pairs_with_nothing_lost() -> None:
    turns, _ = population(40, 1)
    records = load_records(rows(turns))
    back = rated_turns(records)
    assert back == [RatedTurn(t.person, t.models, t.scores, t.chosen, b.kind) for t, b in zip(turns, back)]
    assert len(pairs(records)) == len(turns) * 6, "four models a turn, no two scores equal"
    people = load_profiles([{"user_id": t, "age": "25-34", "ethnicity": {"simplified": "x"}, "list": [1]}
                            for t in {t.person for t in turns}])  # fmt: skip
    assert people["p0"] == {"age": "25-34", "ethnicity": "x"}


@pytest.mark.parametrize("group", list(SHARES))
@pytest.mark.parametrize("method", ["rank_centrality", "bradley_terry"])
def test_the_order_of_models_is_found_for_each_group(group: str, method: str) -> None:
    turns, _ = population(200, 2, only=group, lean=True)
    true = dict(zip(MODELS, tastes()[group]))
    assert kendall_distance(model_scores(turns, method), true) <= 0.1


def test_without_regard_to_how_people_use_the_slider_the_order_is_lost() -> None:
    raw, even = [], []
    for group in SHARES:
        turns, _ = population(200, 2, only=group, lean=True)
        true = dict(zip(MODELS, tastes()[group]))
        raw.append(kendall_distance(model_scores(turns, "mean"), true))
        even.append(kendall_distance(model_scores(scaled(turns, "zscore"), "mean"), true))
    assert min(raw) > 0.1, raw
    assert max(even) <= 0.1, even


def test_who_is_asked_decides_who_fares_well() -> None:
    turns, groups = population(1500, 3)
    schemes = [
        Scheme("largest", {"A": 1.0}, 200),
        Scheme("pooled", SHARES, 200),
        Scheme("equal", dict.fromkeys(SHARES, 0.25), 200),
        Scheme("equal, worst group", dict.fromkeys(SHARES, 0.25), 200, "worst_group"),
    ]
    found = welfare(turns, groups, schemes, draws=40)
    smallest = found.groups.index("D")
    largest, pooled, equal, fair = found.regret[:, smallest]
    assert largest >= 10, largest
    assert fair <= 0.3 * largest, (fair, largest)
    assert min(pooled, equal) > 0.7 * largest, "without the rule, more seats alone do not help"
    assert found.harmed[0, smallest] > 0.9 and found.harmed[3].max() < 0.1
    assert found.picked[0].get(SPLIT, 0) >= 36 and found.picked[3].get(LIKED, 0) >= 36
    assert len(standard_schemes(groups, 100)) == 7


def test_raking_and_plans_give_back_the_population() -> None:
    g = np.random.default_rng(4)
    census = {"age": {"young": 0.3, "middle": 0.5, "old": 0.2}, "gender": {"f": 0.51, "m": 0.49},
              "ethnicity": {"x": 0.8, "y": 0.2}}  # fmt: skip
    skewed = {"age": [0.6, 0.3, 0.1], "gender": [0.35, 0.65], "ethnicity": [0.6, 0.4]}
    people = {f"p{n}": {q: str(g.choice(list(census[q]), p=skewed[q])) for q in census} for n in range(1500)}
    worth = {"young": 10.0, "middle": 40.0, "old": 90.0, "f": 5.0, "m": 0.0, "x": 0.0, "y": 20.0}
    value = {name: sum(worth[a] for a in answers.values()) for name, answers in people.items()}
    true = sum(share * worth[a] for shares in census.values() for a, share in shares.items())
    weights = rake(people, census)
    raked = sum(weights[n] * value[n] for n in people) / sum(weights.values())
    assert abs(np.mean(list(value.values())) / true - 1) > 0.1, "the sample is off without weights"
    assert abs(raked / true - 1) < 0.01
    assert 300 < effective_size(weights) < 1500
    asked = plan_sample(people, census, 300)
    assert len(asked) == len(set(asked)) == 300
    assert abs(np.mean([value[n] for n in asked]) / true - 1) < 0.03
