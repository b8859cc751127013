"""Where prompts come from when they are not given once and for all: a pool that grows where there is most to learn.

The parts of eva (S130): how informative a prompt is, a pool with lineage, and evolvers, which write new prompts from
old ones. Items of a pool are of any kind; the loop `evolve` fills it with records.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Literal, TypeVar

import numpy as np

from accordance.core.errors import DataError
from accordance.core.policy import Policy
from accordance.core.requests import Request
from accordance.curation.sampling import in_proportion, largest

Item = TypeVar("Item")
Information = Literal["min", "avg", "duel"]
Choice = Literal["proportion", "top", "uniform"]
#: From texts of prompts, how many new ones of each, and a seed, to the texts of the new ones.
Evolver = Callable[[Sequence[str], int, int], Sequence[Sequence[str]]]

#: Ways to make a new prompt of an old one, as an evolver is told them: in depth, and in breadth.
WAYS = (
    "Add one more constraint or requirement that the answer has to meet.",
    "Ask about the same thing in more depth.",
    "Replace something general in it by something specific and concrete.",
    "Change it so that answering takes more steps of reasoning.",
    "Write another prompt of the same domain and about as difficult, on something rarer.",
)


def informativeness(scores: np.ndarray, kind: Information = "min") -> np.ndarray:
    """How much there is to be learned from a prompt: an estimate of the policy's regret on it.

    Where all answers are equally good, or equally bad, that is nothing. Rewards are taken as they are: brought to
    one scale within each prompt, all prompts would look alike.

    Args:
        scores: rewards of the policy's own answers to each prompt, shape [n, K].
        kind: the best answer less the worst (``min``), the mean (``avg``), or the second best (``duel``).

    Returns:
        Shape [n], at least 0.

    Raises:
        DataError: there are less than two answers to a prompt, or a reward is not finite.
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise DataError(
            "informativeness needs finite rewards of two or more answers to each prompt",
            found=f"shape {list(scores.shape)}",
        )
    ordered = np.sort(scores, axis=1)
    rest = {"min": ordered[:, 0], "avg": ordered.mean(1), "duel": ordered[:, -2]}[kind]
    return np.maximum(ordered[:, -1] - rest, 0.0)


class PromptPool(Generic[Item]):
    """All prompts so far, each with the one it was made from.

    Args:
        seeds: the prompts to begin with.
        key: what makes two prompts the same one.

    Attributes:
        items: the prompts, in the order in which they came.
        parents: for each the place of the one that it was made from; None for seeds.
        left_out: why prompts were not taken in, and how many.
    """

    def __init__(self, seeds: Sequence[Item], key: Callable[[Item], Hashable]) -> None:
        self.items: list[Item] = []
        self.parents: list[int | None] = []
        self.left_out: Counter[str] = Counter()
        self._key, self._known = key, set[Hashable]()
        for item in seeds:
            self._add(item, None)

    def __len__(self) -> int:
        return len(self.items)

    def add(
        self, parent: int, children: Sequence[Item], why_not: Callable[[Item], str | None] | None = None
    ) -> list[int]:
        """Take in what was made of one prompt, but for what is in the pool already.

        Args:
            parent: place of the prompt.
            children: made of it.
            why_not: the reason to leave one out, or None to take it in.

        Returns:
            The places of those that were taken in.
        """
        taken = []
        for item in children:
            reason = why_not(item) if why_not is not None else None
            if reason is not None:
                self.left_out[reason] += 1
            elif (place := self._add(item, parent)) is not None:
                taken.append(place)
        return taken

    def lineage(self, place: int) -> list[int]:
        """The places from a prompt back to its seed, itself first."""
        line = [place]
        while (parent := self.parents[line[-1]]) is not None:
            line.append(parent)
        return line

    def mixed(self, new: Sequence[int], size: int, replay: float, seed: int) -> list[int]:
        """What to train on: of the new prompts and, a share `replay`, of all older ones, each at random.

        Fewer than `size` where there are not as many.
        """
        g = np.random.default_rng(seed)
        older = sorted(set(range(len(self))) - set(new))
        again = min(round(size * replay), len(older))
        fresh = min(size - again, len(new))
        chosen = [*g.choice(np.array(new, int), fresh, replace=False), *g.choice(older, again, replace=False)]
        return [int(place) for place in chosen]

    def _add(self, item: Item, parent: int | None) -> int | None:
        key = self._key(item)
        if key in self._known:
            self.left_out["known already"] += 1
            return None
        self._known.add(key)
        self.items.append(item)
        self.parents.append(parent)
        return len(self.items) - 1


def choose(information: np.ndarray, count: int, how: Choice = "proportion", seed: int = 0) -> np.ndarray:
    """Which prompts to make new ones of.

    Args:
        information: of each prompt, shape [n], at least 0.
        count: how many; all where there are fewer.
        how: drawn without replacement in ``proportion`` to their information (where none has any, uniformly), the
            ``top`` of them, or ``uniform``, whatever they tell.
        seed: of the draw.

    Returns:
        Indices, ascending.
    """
    count = min(count, len(information))
    if how == "top":
        return largest(information, count)
    if how == "uniform" or not information.any():
        return in_proportion(np.ones(len(information)), count, seed)
    drawn = in_proportion(information, count, seed)
    return drawn[information[drawn] > 0]


class PolicyEvolver:
    """A language model that writes new prompts from old ones, each in one of several ways.

    Args:
        policy: who writes.
        ways: what it is told to do, one of these at a time, in turn.
        max_new_tokens: where an answer is cut.
        temperature: of sampling.

    Attributes:
        unreadable: answers in which no new prompt was found.
    """

    def __init__(
        self,
        policy: Policy,
        ways: Sequence[str] = WAYS,
        *,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
    ) -> None:
        self.policy, self.ways = policy, tuple(ways)
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        self.unreadable = 0

    def __call__(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """At most `n` new prompts of each."""
        asked = [
            Request("evolve", self._told(seed + number), {"prompt": prompt}, note=str(number)).messages()
            for prompt in prompts
            for number in range(n)
        ]
        answers = self.policy.generate(asked, seed=seed, **self.options) if asked else []  # type: ignore[arg-type]
        read = [_written(group[0].text) for group in answers]
        self.unreadable += sum(text is None for text in read)
        rows = [read[start : start + n] for start in range(0, len(read), n)]
        return [[text for text in row if text is not None] for row in rows]

    def _told(self, number: int) -> str:
        way = self.ways[number % len(self.ways)]
        return (
            f"Write a new prompt from the one between the marks. {way} It must be reasonable, answerable without "
            "anything that it does not say, and no longer than needed. Answer with PROMPT: and then the new prompt "
            "alone; do not answer it."
        )


def _written(answer: str) -> str | None:
    """What stands after ``PROMPT:``, to the end; None where that is nothing, or stands there twice."""
    parts = re.split(r"^[ \t*]*PROMPT[ \t*]*:", answer, flags=re.MULTILINE)
    return parts[1].strip(" \t\n*") or None if len(parts) == 2 else None
