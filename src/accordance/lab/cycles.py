"""People of whom each has consistent tastes while their majorities run in a circle (Condorcet's paradox)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from accordance.core.errors import ConfigError
from accordance.core.policy import Prompt
from accordance.lab.people import SHARED, Group, Population

if TYPE_CHECKING:
    from accordance.lab.games import PreferenceGame

#: The circle: most people prefer each manner to the next, and the last to the first. Each is an attribute and its
#: scale, which makes a full show of it worth 1.
CIRCLE: tuple[tuple[str, float], ...] = (("politeness", 2.0), ("formality", 2.0), ("elaboration", 1.0))


def cyclic_population(
    *, strength: float = 2.0, temperature: float = 0.4, each: int = 1, quality: float = 1.0
) -> Population:
    """Three groups of equal size, each with another manner first, whose majority preference is a cycle.

    A group's weights on the three manners are 1, 0 and -1 times `strength`, turned round by one from group to group.
    They add up to zero over the groups, so that no mixture of manners is best either. What is right and harmless all
    of them like alike. Nobody errs, has a position bias or calls anything a tie, so that probabilities are exact.

    Args:
        strength: of the manners, in units of utility.
        temperature: of each person; small against strength, two of three people prefer each manner to the next.
        each: people in a group, all alike.
        quality: weight of what everybody likes (`SHARED`, politeness left out).

    Raises:
        ConfigError: strength or temperature is not above 0, or quality is negative.
    """
    if not (strength > 0 and temperature > 0 and quality >= 0):
        raise ConfigError("out of range", found=f"{strength=}, {temperature=}, {quality=}")
    names = [name for name, _ in CIRCLE]
    groups = {}
    for place, first in enumerate(names):
        turned = {(place + step) % len(CIRCLE): liking for step, liking in enumerate((1.0, 0.0, -1.0))}
        weights = {names[k]: strength * CIRCLE[k][1] * liking for k, liking in turned.items()}
        groups[f"{first} first"] = Group(1.0, weights)
    shared = {name: quality * weight for name, weight in SHARED.items() if name not in names}
    exact = {"spread": 0.0, "flips": 0.0, "position_bias": 0.0, "tie": 0.0}
    people = Population.sample(0, size=3 * each, groups=groups, shared=shared, temperature=temperature, **exact)
    return Population([replace(person, temperature=temperature) for person in people.people])


class CycleScorer:
    """The majority of `cyclic_population` as a general preference: a PairScorer, and deliberately no Scorer.

    Args:
        population: whose preference it is.
    """

    def __init__(self, population: Population | None = None) -> None:
        self.population = population or cyclic_population()
        self.name = "cycle"

    def prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], **columns: object
    ) -> list[float]:
        """The probability that a random person prefers the first answer; see `PairScorer.prob`."""
        return [self.population.prob(p, a, b) for p, a, b in zip(prompts, first, second, strict=True)]

    def game(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> PreferenceGame:
        """The exact game between some answers to each prompt, as many to each: what a policy should play is known."""
        import torch

        from accordance.lab.games import PreferenceGame

        rows = [
            [[self.population.prob(prompt, a, b) for b in answers] for a in answers]
            for prompt, answers in zip(prompts, texts, strict=True)
        ]
        return PreferenceGame(torch.tensor(rows, dtype=torch.float64))
