"""A policy that is a table of probabilities, so that every number of an evaluation is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accordance.core.policy import Completion
from accordance.core.record import Judgment, Message, Record, Records, Response, as_prompt, user


class Table:
    """Answers every prompt from one table of texts and probabilities."""

    def __init__(
        self, name: str, probs: Mapping[str, float], *, cut: Sequence[str] = (), ids: bool = False
    ) -> None:
        self.name, self.probs, self.cut, self.ids = name, dict(probs), set(cut), ids
        self.asked: list[str] = []

    def generate(
        self,
        prompts: Sequence[Any],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[Completion]]:
        generator = np.random.default_rng(seed)
        texts, weights = list(self.probs), np.array(list(self.probs.values()))
        self.asked += [as_prompt(prompt)[-1].content for prompt in prompts]
        return [[self._write(texts[i]) for i in generator.choice(len(texts), n, p=weights)] for _ in prompts]

    def _write(self, text: str) -> Completion:
        ids = tuple(hash(word) % 1000 for word in text.split()) if self.ids else ()
        return Completion(text, text not in self.cut, ids)

    def logprobs(self, records: Records | Sequence[Record]) -> list[dict[str, Any]]:
        return [
            {
                "record": i,
                "response": j,
                "logprob": math.log(self.probs[response.text]) if self.probs.get(response.text) else -math.inf,
                "tokens": len(response.text.split()),
            }
            for i, record in enumerate(records)
            for j, response in enumerate(record.responses)
        ]


class Speechless:
    """A policy that writes but can't say how likely anything is, as most servers."""

    name = "server"

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, prompts: Sequence[Any], *, n: int = 1, **_: Any) -> list[list[Completion]]:
        return [[Completion(self.text)] * n for _ in prompts]


class Wordcount:
    """Scores by the number of words."""

    name = "word count"

    def score(self, prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float | None]:
        return [float(len(text.split())) for text in completions]


class Prefers:
    """A judge with a planted taste and a planted advantage of the first place."""

    name = "judge"

    def __init__(self, word: str, first: float = 0.0) -> None:
        self.word, self.first = word, first

    def prob(
        self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str], **_: Any
    ) -> list[float]:
        taste = [(self.word in a) - (self.word in b) for a, b in zip(first, second)]
        return [min(1.0, max(0.0, 0.5 + 0.4 * t + self.first)) for t in taste]


def pair(prompt: str, chosen: str, rejected: str, **judgment: Any) -> Record:
    return Record(
        user(prompt),
        (Response.of(rejected), Response.of(chosen)),
        (Judgment("comparison", (0, 1), (0.0, 1.0), **judgment),),
    )


def tie(prompt: str, a: str, b: str) -> Record:
    return Record(user(prompt), (Response.of(a), Response.of(b)), (Judgment("comparison", (0, 1), (1.0, 1.0)),))


def conversation(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(*turn) for turn in turns)
