"""Feedback from the lab: prompts of the world, answers by a policy or the writer, judged by a population."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from accordance.core.errors import ConfigError
from accordance.core.policy import Policy
from accordance.core.record import Record, Records, Response, user
from accordance.lab import world
from accordance.lab.people import Population

Writer = Callable[[str, random.Random], str]


def make_records(
    writer: Policy | Writer,
    n: int,
    population: Population,
    seed: int = 0,
    *,
    responses: int = 2,
    judges: int = 1,
    max_new_tokens: int = 96,
    temperature: float = 1.0,
) -> Records:
    """Records of a seeded experiment: who answered what, and who preferred which.

    Args:
        writer: a policy, or a function of (prompt, rng) such as `world.write`.
        n: how many prompts.
        population: who judges; each judgment by a person drawn at random.
        seed: of prompts, answers and judgments.
        responses: answers per prompt, at least two.
        judges: judgments per prompt, each by another person.
        max_new_tokens: where a policy's answers are cut.
        temperature: of a policy's sampling.

    Raises:
        ConfigError: too few responses, judges or prompts, or more judges than people.
    """
    if n < 1 or responses < 2:
        raise ConfigError("needs at least one prompt and two responses", found=f"n={n}, responses={responses}")
    rng = random.Random(f"lab records {seed}")
    prompts = [world.sample_prompt(rng) for _ in range(n)]
    if isinstance(writer, Policy):
        written = writer.generate(
            prompts, n=responses, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        texts, source = [[completion.text for completion in group] for group in written], writer.name
    else:
        texts, source = [[writer(prompt, rng) for _ in range(responses)] for prompt in prompts], "writer"
    return judged(prompts, texts, population, seed, judges=judges, source=source)


def judged(
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    population: Population,
    seed: int = 0,
    *,
    judges: int = 1,
    source: str = "lab",
    span: float = 0.0,
) -> Records:
    """Records of answers that are at hand, judged now.

    Args:
        prompts: what was asked.
        texts: for each prompt, two or more answers.
        population: who judges.
        seed: of who judges what, in which order it is shown, and the noise.
        judges: judgments per prompt, each by another person.
        source: who wrote the answers.
        span: time between the first prompt and the last, for people whose tastes drift; where it is not 0, the
            time of each record stands in its extras.
    """
    if not 1 <= judges <= len(population.people):
        raise ConfigError("every judgment needs another person", where="judges", found=judges)
    rng, records = np.random.default_rng([seed, 2]), []
    for number, (prompt, answers) in enumerate(zip(prompts, texts, strict=True)):
        asked = rng.choice(len(population.people), size=judges, replace=False)
        time = span * number / max(len(prompts) - 1, 1)
        people = population.at(time)
        records.append(
            Record(
                user(prompt),
                tuple(Response.of(text, source=source) for text in answers),
                tuple(people.judge(prompt, answers, rng, people.people[int(i)]) for i in asked),
                id=f"lab-{seed}-{number}",
                origin=f"lab row {number + 1}",
                extras={"kind": world.parse(prompt).kind, **({"time": time} if span else {})},
            )
        )
    return Records.of(records, source=f"lab (seed {seed})")
