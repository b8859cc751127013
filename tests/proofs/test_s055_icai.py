"""Proof of S055, ICAI: a few principles, found from labels alone, give the labels back on unseen comparisons.

400 comparisons of texts that state ten integer attributes; the annotator follows three of them, signed, with 5% of
labels turned. Then the published synthetic sets (skipped where absent).
"""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from accordance.analysis import PairTable, shuffled
from accordance.analysis.icai import Constitution, inverse_constitution, report
from accordance.analysis.principles import ScriptedJudge
from accordance.feedback import load_records

DATA = Path(__file__).parents[3] / "shared/data/icai"
PLANTED = {"more a1": 1.0, "less a4": 0.9, "more a7": 0.8}
SEEDS = range(3)


def level(attribute: int, sign: int, prompt: str, text: str) -> float:
    return sign * int(text.split()[attribute])


MEASURES = {
    f"{word} a{i}": partial(level, i, sign) for i in range(10) for word, sign in (("more", 1), ("less", -1))
}


@cache
def world(seed: int, sign: int = 1) -> PairTable:
    """`sign` -1 inverts the annotator."""
    g = np.random.default_rng(seed)
    a, b = g.integers(0, 4, size=(2, 400, 10))
    taste = np.zeros(10)
    for name, weight in PLANTED.items():
        taste[int(name[-1])] = weight if name.startswith("more") else -weight
    utility = sign * (a - b) @ taste
    label = (utility + 1e-3 * g.normal(size=400) > 0) ^ (g.random(400) < 0.05)
    texts = [[" ".join(map(str, row)) for row in side] for side in (a, b)]
    return PairTable.of([f"prompt {i}" for i in range(400)], *texts, label.astype(float))


def fitted(table: PairTable, seed: int) -> Constitution:
    return inverse_constitution(table, ScriptedJudge(MEASURES), 3, held_out=0.5, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_constitution_is_the_planted_principles_and_beats_a_random_one(seed):
    found = fitted(world(seed), seed)
    assert {p.text for p in found.principles} == set(PLANTED)
    assert found.accuracy.estimate >= 0.78 and found.random_accuracy.estimate <= 0.60


@pytest.mark.parametrize("seed", SEEDS)
def test_an_inverted_annotator_gives_the_opposite_principles_at_the_same_accuracy(seed):
    straight, inverted = fitted(world(seed), seed), fitted(world(seed, -1), seed)
    swap = {"more": "less", "less": "more"}
    assert {p.text for p in inverted.principles} == {f"{swap[n[:4]]} {n[5:]}" for n in PLANTED}
    assert abs(straight.accuracy.estimate - inverted.accuracy.estimate) < 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffled_labels_can_not_be_given_back(seed):
    real, noise = fitted(world(seed), seed), fitted(shuffled(world(seed), seed=seed), seed)
    assert 0.4 <= noise.accuracy.estimate <= 0.6
    best = [max(p.votes_for - p.against for p in c.candidates) for c in (real, noise)]
    assert best[1] < best[0] / 2


def says(*words: str):
    pattern = re.compile("|".join(words), re.IGNORECASE)
    return lambda prompt, text: float(bool(pattern.search(text)))


def words(sign: int, prompt: str, text: str) -> float:
    return sign * len(text.split())


SCRIPT = {
    "names the real capital": lambda p, t: float("Washington" in t and "Paris" not in t),
    "names a place in the UK": says("Bath", "Edinburgh", "Lake District"),
    "is glad to help": says("^(yes, )?of course"),
    "is about a cat": says(r"\bcat\b"),
    "is about blue": says(r"^[^.]*\bblue\b"),
    "is about lemon": says("lemon"),
    "is about a dog": says(r"\bdog\b"),
    "is about green": says(r"\bgreen\b"),
    "is about raspberry": says("raspberry"),
    "says cheers": says("cheers"),
    "tells what to pick": says("you should"),
    "is longer": partial(words, 1),
    "is shorter": partial(words, -1),
}
ALIGNED = ["names the real capital", "names a place in the UK", "is glad to help"]
ORTHOGONAL = ["is about a cat", "is about blue", "is about lemon"]


@pytest.mark.skipif(not DATA.exists(), reason="the published synthetic sets are not here")
@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("aligned_vqvtb", ALIGNED),
        ("orthogonal_adcbg", ORTHOGONAL),
        ("mixed_vqvtb_adcbg", [*ALIGNED, *ORTHOGONAL]),
    ],
)
def test_published_sets_planted_principles_are_found_and_give_back_the_labels(name, planted):
    records = load_records(str(DATA / f"synthetic_data_{name}.csv"))
    found = inverse_constitution(records, ScriptedJudge(SCRIPT), len(planted))
    assert {p.text for p in found.principles} == set(planted)
    assert found.accuracy.estimate >= 0.95 > found.random_accuracy.estimate + 0.2


@pytest.mark.skipif(not DATA.exists(), reason="the published synthetic sets are not here")
def test_published_sets_conflict_is_reported_where_labels_are_mixed():
    """Length is right about some prompts and wrong about others; and two annotators of opposite taste conflict."""
    mixed = load_records(str(DATA / "synthetic_data_mixed_vqvtb_adcbg.csv"))
    found = inverse_constitution(mixed, ScriptedJudge(SCRIPT), 6)
    assert {p.text for p in found.contested} == {"is longer", "is shorter"}
    one = PairTable.from_records(load_records(str(DATA / "synthetic_data_orthogonal_adcbg.csv")))
    rows = [one.pair(i) for i in range(len(one))]
    both = PairTable.of(
        [p for p, _, _ in rows] * 2,
        [a for _, a, _ in rows] * 2,
        [b for _, _, b in rows] * 2,
        [1.0] * 30 + [0.0] * 30,
        group=["them"] * 30 + ["the others"] * 30,
    )
    found = inverse_constitution(both, ScriptedJudge(SCRIPT), 6)
    assert found.ceiling < 0.6
    assert set(ORTHOGONAL) <= {p.text for p in found.contested}
    assert any("conflict" in warning for warning in report(found).warnings)
