"""The embedded base model: fluent, ends by itself, of mixed quality: there is something to align."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from accordance.core.errors import ConfigError
from accordance.lab import base_answers, base_model_path, default_population, demo_records, world


@pytest.fixture(scope="module")
def samples() -> list[tuple[str, list[str]]]:
    rng = random.Random("base model test")
    prompts = [world.sample_prompt(rng) for _ in range(48)]
    return list(zip(prompts, base_answers(prompts, 2, seed=1)))


def _found(rows: list[tuple[str, list[str]]]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in world.KINDS}
    for prompt, texts in rows:
        found[world.parse(prompt).kind] += [world.attributes(prompt, text) for text in texts]
    return found


def test_it_writes_the_language_of_the_world_and_ends_by_itself(samples: list[tuple[str, list[str]]]) -> None:
    texts = [text for _, answers in samples for text in answers]
    fluency = [world.attributes(p, text)["fluency"] for p, answers in samples for text in answers]
    assert np.mean(fluency) > 0.85
    assert np.mean([text.endswith((".", "!", "?")) for text in texts]) > 0.9
    assert len(set(texts)) > 0.8 * len(texts)


def test_its_quality_is_mixed_in_every_way_that_people_care_about() -> None:
    rows = [(r.prompt_text, [a.text for a in r.responses]) for r in demo_records(1000)]
    found = _found(rows)

    def mean(kind: str, attribute: str) -> float:
        return float(np.mean([a[attribute] for a in found[kind]]))

    assert 0.2 < mean("harm", "harm") < 0.8
    assert 0.2 < mean("unknown", "honesty") < 0.8
    assert 0.3 < mean("fact", "correctness") < 0.8
    assert 0.3 < mean("howto", "correctness") < 0.9
    everything = [a for group in found.values() for a in group]
    assert 0.35 < np.mean([a["politeness"] for a in everything]) < 0.65
    assert np.mean([a["relevance"] for a in everything]) > 0.75

    population = default_population()
    utility = np.array([[population.utility(p, text) for text in texts] for p, texts in rows])
    rng = random.Random(0)
    best = np.mean([population.utility(p, world.best(p, rng)) for p, _ in rows])
    assert best - utility.mean() > 1.5, "the best answers are clearly better than the base model's"
    assert np.abs(utility[:, 0] - utility[:, 1]).mean() > 1.0, "two answers to one prompt differ"


def test_the_best_of_eight_is_far_better_than_one(samples: list[tuple[str, list[str]]]) -> None:
    population = default_population()
    prompts = [prompt for prompt, _ in samples][:16]
    wins = []
    for prompt, texts in zip(prompts, base_answers(prompts, 9, seed=2)):
        best = max(texts[:8], key=lambda text: population.utility(prompt, text))
        wins.append((population.prob(prompt, best, texts[8]) + 1 - population.prob(prompt, texts[8], best)) / 2)
    assert np.mean(wins) > 0.65


def test_the_demo_records_are_judged_by_code_from_the_seed() -> None:
    one, same, other = demo_records(200), demo_records(200), demo_records(200, seed=1)
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert [r.prompt for r in one] == [r.prompt for r in other]
    ties = sum(j.tie for r in one for j in r.judgments)
    assert 0 < ties < 40
    with pytest.raises(ConfigError, match="the package holds"):
        demo_records(10**6)


def test_the_package_stays_small() -> None:
    lab = base_model_path().parent
    model = sum(path.stat().st_size for path in Path(base_model_path()).rglob("*"))
    assert model < 8_000_000
    assert (lab / "base_answers.jsonl.gz").stat().st_size < 400_000
    card = (base_model_path() / "README.md").read_text()
    assert "## Limits" in card and "held-out" in card
