"""What scripted assistants share: a `Policy` whose every answer is a function of the conversation and the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import ClassVar

from accordance.core.errors import ConfigError, unknown
from accordance.core.policy import Completion, Prompt, check_sampling
from accordance.core.record import Message, as_prompt
from accordance.core.requests import Request
from accordance.lab.attributes import ATTRIBUTES, attributes

#: Weights of attributes, or any function of (prompt, response): how good somebody finds a response.
Taste = Mapping[str, float] | Callable[[str, str], float]

#: Words by which a text asks for an attribute: "be polite", "more politeness", "less politeness".
HEARD: dict[str, tuple[str, float]] = {
    **{f"more {name}": (name, 1.0) for name in ATTRIBUTES},
    **{f"less {name}": (name, 0.0) for name in ATTRIBUTES},
    "be polite": ("politeness", 1.0),
    "be kind": ("politeness", 1.0),
    "be formal": ("formality", 1.0),
    "be playful": ("formality", 0.0),
    "be brief": ("elaboration", 0.0),
    "in detail": ("elaboration", 1.0),
    "comprehensive": ("elaboration", 1.0),
    "helpful": ("relevance", 1.0),
    "be correct": ("correctness", 1.0),
    "truthful": ("correctness", 1.0),
    "honest": ("honesty", 1.0),
    "harmless": ("harm", 0.0),
    "how sure": ("hedging", 0.5),
}


class Scripted:
    """A `Policy` from a function of (conversation, generator).

    Args:
        seed: of its own noise; two assistants with other seeds disagree where they are unsure.
        unreadable: share of answers to requests that come out in no form that can be read.
        name: what reports call it.
    """

    role: ClassVar[str] = "assistant"

    def __init__(self, *, seed: int = 0, unreadable: float = 0.0, name: str = "") -> None:
        if not 0 <= unreadable <= 1:
            raise ConfigError("a share lies in [0, 1]", where="unreadable", found=unreadable)
        self.seed, self.unreadable = seed, unreadable
        self.name = name or f"lab {self.role}"
        #: Conversations answered, for tests and accounts of cost.
        self.answered = 0

    @property
    def identity(self) -> str:
        """What tells it from others: its kind and every setting."""
        settings = {k: _told(v) for k, v in sorted(vars(self).items()) if k != "answered"}
        return f"{type(self).__name__} {settings}"

    def tasks(self) -> Mapping[str, Callable[[Request, random.Random], str]]:
        """What it does with requests, by their task."""
        return {}

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What it says in a conversation that is no request.

        Raises:
            ConfigError: it only answers requests.
        """
        raise ConfigError(
            "this scripted assistant answers requests only",
            where=self.name,
            found=" ".join(m.content for m in messages)[:200],
            expected=f"a request to {', '.join(self.tasks())}",
        )

    def answer(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What it says to a conversation."""
        self.answered += 1
        request = Request.read(messages)
        if request is None:
            return self.reply(messages, rng)
        tasks = self.tasks()
        if request.task not in tasks:
            raise unknown(f"task for the {self.name}", request.task, tasks)
        if rng.random() < self.unreadable:
            return "On the whole, there is something to be said for all of this."
        return tasks[request.task](request, rng)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[Completion]]:
        """See `accordance.core.policy.Policy.generate`.

        A word counts as a token where an answer is cut. At temperature 0 the same conversation always gets the
        same answer, whatever the seed; there is no nucleus.

        Raises:
            ConfigError: fewer than one response or token is asked for.
        """
        check_sampling(n, max_new_tokens, temperature, top_p)
        made = []
        for prompt in prompts:
            messages = as_prompt(prompt)
            texts = [
                self.answer(messages, self._rng(messages, seed + number if temperature else None))
                for number in range(n)
            ]
            made.append([_cut(text, max_new_tokens) for text in texts])
        return made

    def _rng(self, messages: Sequence[Message], seed: int | None) -> random.Random:
        said = "\0".join(f"{m.role}\0{m.content}" for m in messages)
        return random.Random(f"{self.role} {self.seed} {seed} {said}".encode("utf-8", "surrogatepass"))


def likes(taste: Taste, prompt: str, text: str) -> float:
    """How good somebody with this taste finds a response."""
    if callable(taste):
        return float(taste(prompt, text))
    found = attributes(prompt, text)
    return sum(weight * found[name] for name, weight in taste.items())


def check_taste(taste: Taste, where: str) -> None:
    """Raise ConfigError where weights are on attributes that are none."""
    for name in taste if isinstance(taste, Mapping) else ():
        if name not in ATTRIBUTES:
            raise unknown("attribute", name, ATTRIBUTES, where=where)


def heard(text: str) -> dict[str, float]:
    """The attributes that a text asks for, by the words of `HEARD`; later words win."""
    low = text.casefold()
    places = sorted((low.rfind(words), wish) for words, wish in HEARD.items() if words in low)
    return dict(wish for _, wish in places)


def wished(name: str) -> dict[str, float]:
    """The attribute that a quality is in the lab, and which way is better: ``honesty``, ``harmlessness``; or none."""
    return {name: 1.0} if name in ATTRIBUTES and name != "harm" else heard(name)


def _told(value: object) -> object:
    """A setting as it is written in an identity: functions by their name, which stays the same between runs."""
    if isinstance(value, Mapping):
        return {key: _told(item) for key, item in sorted(value.items())}
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, FunctionType) else value


def _cut(text: str, limit: int) -> Completion:
    pieces = text.split(" ")
    return Completion(" ".join(pieces[:limit]), len(pieces) <= limit)
