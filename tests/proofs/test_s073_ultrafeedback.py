"""Proof of S073, UltraFeedback: four aspects rated apart say more than one overall score, and a reward learnt from them
finds the better answers of a real (tiny) language model.

Six scripted writers of different skill answer prompts of the small world; a scripted judge rates with noise, in
whole numbers.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest

from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Record, Records, user
from accordance.core.views import pairs
from accordance.feedback.synthesis import synthesize
from accordance.feedback.ultrafeedback import (
    ASPECTS,
    UltraFeedback,
    binarise,
    guarded_overall,
    length_correlation,
)
from accordance.lab import world
from accordance.lab.assistants import LabJudge, LabWriter
from accordance.lab.attributes import ATTRIBUTES

#: What each aspect means in the small world; the true utility is their sum.
MEANING = {
    "instruction following": {"relevance": 2.0, "evasion": -2.0},
    "honesty about": {"honesty": 2.0, "hedging": -1.0},
    "truthfulness": {"correctness": 2.0, "fluency": 1.0},
    "helpfulness": {"politeness": 2.0, "harm": -2.0},
}
OVERALL = {name: w for weights in MEANING.values() for name, w in weights.items()}
SKILLS = {"correctness": 0.9, "politeness": 0.8, "honesty": 0.9, "harm": 0.8, "relevance": 1.0, "fluency": 1.0}
FEATURES = [name for name in ATTRIBUTES if name != "length"]


def truth(prompt, text: str) -> float:
    found = world.attributes(prompt, text)
    return sum(w * found[name] for name, w in OVERALL.items())


def prompts(n: int, seed: int) -> Records:
    rng = random.Random(seed)
    asked = list(dict.fromkeys(world.sample_prompt(rng) for _ in range(2 * n)))[:n]
    return Records.of([Record(user(p), id=f"{seed}-{i}") for i, p in enumerate(asked)], source=f"world {seed}")


@cache
def made() -> Records:
    models = [LabWriter(skill={name: s}, name=name) for name, s in SKILLS.items()]
    judge = PolicyJudge(LabJudge(aspects=MEANING, noise=0.45), scale=(1, 5), name="rubric judge")
    overall = PolicyJudge(LabJudge(taste=OVERALL, noise=1.0), scale=(1, 5), name="overall judge")
    return synthesize(UltraFeedback(models, judge, critique=True, overall_judge=overall), prompts(400, 0))


def features(prompt, text: str) -> np.ndarray:
    found = world.attributes(prompt, text)
    return np.array([found[name] for name in FEATURES])


def reward(x: np.ndarray, steps: int = 400) -> np.ndarray:
    """Bradley-Terry weights of feature differences (chosen - rejected), with a little ridge."""
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(x @ w)))
        w += 2.0 * (x.T @ (1 - p) / len(x) - 1e-3 * w)
    return w


@cache
def weights(shuffle: bool = False) -> np.ndarray:
    """A reward from the aspect means, or from ratings that were shuffled over the answers of each prompt."""
    found = pairs(made(), attribute=None)
    x = np.array([features(p.prompt, p.chosen.text) - features(p.prompt, p.rejected.text) for p in found])
    return reward(x * np.random.default_rng(0).choice([-1, 1], len(x))[:, None] if shuffle else x)


def test_aspect_means_tie_less_than_overall_scores_and_are_right_no_less_often():
    def judged(scores):
        """(ties, pairs, right) over the answers of every prompt."""
        ties = right = total = 0
        for record, values in scores:
            for i in range(4):
                for j in range(i):
                    gap = truth(record.prompt, record.responses[i].text) - truth(
                        record.prompt, record.responses[j].text
                    )
                    if abs(gap) < 1e-9:
                        continue
                    total += 1
                    ties += values[i] == values[j]
                    right += (values[i] > values[j]) == (gap > 0) and values[i] != values[j]
        return ties / total, right / (total - ties)

    records = list(made())
    mean = judged(
        (r, next(j.values for j in r.judgments if j.kind == "rating" and j.attribute is None)) for r in records
    )
    overall = judged((r, r.extras["overall"]["scores"]) for r in records)
    assert mean[0] <= 0.6 * overall[0] and mean[1] >= overall[1]


def test_a_reward_learnt_from_the_pairs_orders_new_answers_by_their_true_utility():
    rng, w = random.Random(5), weights()
    right, n = 0, 0
    for record in prompts(400, 9):
        p = record.prompt_text
        a, b = world.write(p, rng), world.write(p, rng)
        gap = truth(p, a) - truth(p, b)
        if gap:
            n += 1
            right += (features(p, a) @ w > features(p, b) @ w) == (gap > 0)
    assert n > 300 and right / n >= 0.80


def test_best_of_16_of_a_language_model_gains_a_standard_deviation_and_beats_shuffled_ratings():
    from accordance.lab import base_answers

    asked = [record.prompt_text for record in prompts(16, 77)]
    answers = base_answers(asked, n=16, seed=0, max_new_tokens=64)
    true = np.array([[truth(p, t) for t in texts] for p, texts in zip(asked, answers)])

    def best(w: np.ndarray) -> float:
        picked = [int(np.argmax([features(p, t) @ w for t in texts])) for p, texts in zip(asked, answers)]
        return float(true[np.arange(len(asked)), picked].mean())

    spread = float(true.std(axis=1).mean())
    assert best(weights()) >= true.mean() + spread
    assert best(weights()) >= best(weights(shuffle=True)) + 0.8 * spread


def test_a_hand_made_record_gives_six_pairs_with_their_margins_and_the_bug_is_guarded():
    record = next(r for r in made() if len({j.values for j in r.judgments if j.kind == "rating"}) > 1)
    judged = next(j for j in record.judgments if j.kind == "rating" and j.attribute is None)
    from dataclasses import replace

    hand = replace(record, judgments=(replace(judged, values=(4.25, 2.0, 3.5, 1.0)),))
    found = pairs(Records.of([hand]), attribute=None)
    assert sorted(round(p.gap, 2) for p in found) == [0.75, 1.0, 1.5, 2.25, 2.5, 3.25]
    one = binarise(Records.of([hand]))[0]
    assert one.responses[0] == hand.responses[0] and one.judgments[0].strength in (2.25, 0.75, 3.25)
    assert (
        guarded_overall(10, [1, 1, 2, 1]) == pytest.approx(1.5625) and guarded_overall(10, [1, 5, 1, 1]) == 10
    )
    assert guarded_overall(3, [2, 2, 2, 2]) == 3 and guarded_overall(1, [5, 5, 5, 5]) == 10


def test_what_was_made_is_whole():
    records = made()
    assert records.account.kept == len(records) == 400 and records.account.read == 400
    record = records[0]
    assert {j.attribute for j in record.judgments if j.kind == "rating"} == {*ASPECTS, None}
    assert sum(j.kind == "critique" for j in record.judgments) == 4
    assert (
        len({r.source for r in record.responses}) == 4
        and record.extras["provenance"]["labels"] == "rubric judge"
    )
    assert -1 <= length_correlation(records) <= 1
    assert records.account.notes["pairs with a margin"] == len(pairs(records, attribute=None))
