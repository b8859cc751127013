"""Proof of S161: a student beats its weak teacher by whatever metric fits the task, with labels and with texts.

Labels: a margin m ~ N(0, 1) decides; the weak learner sees four noisy copies, the strong one a clean copy among
directions that carry the weak one's errors (so that it can imitate them) and nuisance. Texts: token tables with
a known toxicity, where the weak one keeps some of its bad habits and its texts are chosen by a cheap scorer.
Bootstrapping is measured, not asserted: the middle learner here is as good as the student (prints with -s).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from accordance.lab.tabular import TokenTable, descend
from accordance.objectives import sft
from accordance.training.weak_to_strong import (
    METRICS,
    Logistic,
    Splits,
    Transfer,
    WeakToStrong,
    accuracy,
    expected_maximum,
    share_reaching,
)

SEEDS = range(5)
NOISE = {"wide": 2.0, "narrow": 1.0}
MIX = np.random.default_rng(99).normal(size=(4, 6)) / 2


def make(seed: int) -> Logistic:
    return Logistic()


def confident(seed: int) -> Logistic:
    return Logistic(confidence=0.5)


def world(gap: str, seed: int) -> Splits:
    """Columns: four of the weak learner, seventeen of the strong one."""
    g = np.random.default_rng(seed)
    margin, wrong = g.normal(size=9000), g.normal(size=(9000, 4)) * NOISE[gap]
    clean = 2 * margin[:, None] + 0.5 * g.normal(size=(9000, 1))
    errors = 0.25 * wrong @ MIX + 0.6 * g.normal(size=(9000, 6))
    items = np.concatenate([margin[:, None] + wrong, clean, errors, g.normal(size=(9000, 10))], 1)
    return Splits.of(items, (margin > 0.3).astype(float), (2000, 4000, 3000), seed)


@cache
def outcome(gap: str, seed: int, **options: object) -> Transfer:
    views = {"weak_view": lambda X: X[:, :4], "strong_view": lambda X: X[:, 4:]}
    return WeakToStrong(make, options.pop("strong", make), **views | options).run(world(gap, seed))  # type: ignore[arg-type]


def score(gap: str, who: str, **options: object) -> float:
    return float(np.mean([outcome(gap, seed, **options).scores(accuracy)[who] for seed in SEEDS]))


@pytest.mark.parametrize("gap", NOISE)
@pytest.mark.parametrize("metric", METRICS)
def test_a_good_part_of_the_gap_is_recovered_by_every_metric(gap, metric):
    found = [outcome(gap, seed).recovered(METRICS[metric]) for seed in SEEDS]
    assert 0.2 <= np.mean(found) <= 0.8
    assert min(found) > 0.05


def test_the_student_is_above_its_teacher_and_below_the_ceiling():
    weak, student, ceiling = (score("wide", who) for who in ("weak", "student", "ceiling"))
    assert weak + 0.03 < student < ceiling - 0.03


def test_certain_labels_are_right_more_often_and_do_not_lower_the_student():
    accuracies = np.mean([outcome("wide", seed, threshold=0.75).label_accuracy for seed in SEEDS], 0)
    assert accuracies[1] > accuracies[0] + 0.05
    assert score("wide", "student", threshold=0.75) > score("wide", "student") - 0.01


def test_the_confidence_loss_does_not_lower_the_student():
    assert score("wide", "student", strong=confident) > score("wide", "student") - 0.01


def test_a_student_that_sees_what_its_teacher_sees_recovers_nothing():
    same = [
        WeakToStrong(make, make, weak_view=lambda X: X[:, :4], strong_view=lambda X: X[:, :4]).run(
            world("wide", seed)
        )
        for seed in SEEDS
    ]
    assert abs(np.mean([t.scores(accuracy)["student"] - t.scores(accuracy)["weak"] for t in same])) < 0.01


def test_bootstrapping_is_measured():
    direct, through = score("wide", "student"), score("wide", "student", middle=make)
    print(f"student {direct:.3f}, through a middle learner {through:.3f}")
    assert through > score("wide", "weak")


# A teacher of texts. Tokens 0-5 are clean, 6 and 7 toxic, 8 ends the text.

STEPS, VOCABULARY, PROMPTS = 8, 9, 6


def toxicity(texts: Tensor) -> np.ndarray:
    """Toxic tokens of each text, as a share of the longest text's tokens."""
    return (((texts == 6) | (texts == 7)).sum(-1) / STEPS).numpy()


def sample(policy: TokenTable, each: int, seed: int) -> tuple[Tensor, Tensor]:
    prompts = torch.arange(PROMPTS).repeat_interleave(each)
    return prompts, policy.sample(prompts, generator=torch.Generator().manual_seed(seed))


def imitate(policy: TokenTable, prompts: Tensor, texts: Tensor, steps: int) -> TokenTable:
    objective = sft()
    descend(
        policy,
        lambda: objective(policy.single(prompts, texts)).sum() / (texts >= 0).sum(),
        steps=steps,
        learning_rate=0.05,
    )
    return policy


@cache
def texts(seed: int, candidates: int = 4) -> dict[str, tuple[float, float, float]]:
    """Expected maximum toxicity and its probability over 25 samples, and perplexity under the people's own table."""
    g = torch.Generator().manual_seed(seed)
    habit = torch.zeros(VOCABULARY)
    habit[6:8] = 0.5
    speech = torch.randn(PROMPTS, STEPS, VOCABULARY + 1, VOCABULARY, generator=g)
    base = TokenTable(speech * 0.3 + habit)
    people = TokenTable(speech - 40 * habit)
    weak = imitate(TokenTable(base.logits), *sample(people, 100, seed), 25)
    prompts, written = sample(weak, 100 * candidates, seed + 1)
    rows = written.view(-1, candidates, STEPS)
    best = torch.tensor(toxicity(rows)).argmin(-1)
    kept = rows[torch.arange(len(rows)), best]
    made = {
        "base": base,
        "weak": weak,
        "student": imitate(TokenTable(base.logits), prompts[::candidates], kept, 150),
        "ceiling": imitate(TokenTable(base.logits), *sample(people, 100, seed + 2), 150),
    }
    found = {}
    for name, policy in made.items():
        asked, said = sample(policy, 25, seed + 3)
        scores = toxicity(said).reshape(PROMPTS, 25)
        fluent = (
            toxicity(said) == 0
        )  # the third table gives toxic tokens no chance: compare fluency without them
        surprise = -people.token_logps(asked, said)[fluent].sum() / (said[fluent] >= 0).sum()
        found[name] = expected_maximum(scores), share_reaching(scores), surprise.exp().item()
    return found


def mean_texts(who: str, column: int, **options: int) -> float:
    return float(np.mean([texts(seed, **options)[who][column] for seed in SEEDS]))


def test_texts_of_a_weak_teacher_make_the_strong_less_toxic_than_base_and_teacher():
    base, weak, student, ceiling = (mean_texts(w, 0) for w in ("base", "weak", "student", "ceiling"))
    assert base > weak > student + 0.1 and student >= ceiling
    assert mean_texts("student", 1) < mean_texts("weak", 1) - 0.1


def test_the_student_is_as_fluent_as_its_teacher():
    assert mean_texts("student", 2) == pytest.approx(mean_texts("weak", 2), rel=0.15)


def test_without_the_choice_among_texts_the_student_is_as_toxic_as_its_teacher():
    plain = mean_texts("student", 0, candidates=1)
    assert plain > mean_texts("student", 0) + 0.1
