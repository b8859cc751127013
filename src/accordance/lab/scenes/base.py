"""What the lab's scenes share: prompts of one sort, a writer of chosen attributes, a measure, feedback on it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from accordance.core.errors import ConfigError, unknown
from accordance.core.policy import Prompt
from accordance.core.record import Judgment, Message, Record, Records, Response, as_prompt
from accordance.lab import world
from accordance.lab.acts import read
from accordance.lab.attributes import attributes as of_world
from accordance.lab.questions import Question, parse

Conversation = tuple[Message, ...]


class Scene(ABC):
    """One sort of prompt of the small world, with everything about it that is known.

    A scene asks, writes answers with chosen attributes, measures the attributes of any answer, and makes records of
    answers judged by what it likes. It is also a `Scorer`, so that ``lab:`` and its name can be a reward.

    Attributes:
        label: its name after ``lab:``.
        about: one line on what it shows.
        attributes: each attribute and what it means; all lie in [0, 1].
        settable: those that can be asked of `write`, each with its possible values.
        likes: how much each attribute adds to what a response is worth; judgments follow it without noise.
    """

    label: ClassVar[str]
    about: ClassVar[str]
    attributes: ClassVar[Mapping[str, str]]
    settable: ClassVar[Mapping[str, tuple[float, ...]]]
    likes: ClassVar[Mapping[str, float]]

    @abstractmethod
    def ask(self, rng: random.Random) -> Conversation:
        """A prompt."""

    @abstractmethod
    def compose(self, prompt: Conversation, rng: random.Random, wish: Mapping[str, float]) -> str:
        """An answer with all of `settable` as wished."""

    @abstractmethod
    def measure(self, prompt: Prompt, text: str) -> dict[str, float]:
        """Every attribute of any text as an answer to any prompt; pure and deterministic."""

    def write(self, prompt: Prompt, rng: random.Random, **wanted: float) -> str:
        """An answer with the attributes wanted; the others are drawn.

        Raises:
            ConfigError: an attribute, or a value of one, that can't be chosen here.
        """
        for name, value in wanted.items():
            if name not in self.settable:
                raise unknown(f"attribute of {self.name}", name, self.settable)
            if value not in self.settable[name]:
                choices = ", ".join(f"{choice:g}" for choice in self.settable[name])
                raise ConfigError(f"can't write with {name}={value}", expected=f"one of: {choices}")
        wish = {name: rng.choice(values) for name, values in self.settable.items()} | wanted
        return self.compose(as_prompt(prompt), rng, wish)

    def ordinary(self, prompt: Prompt, rng: random.Random, care: float = 0.5) -> str:
        """An answer as an unaligned writer gives it: what is liked is mostly there, and often is not.

        Args:
            prompt: of this scene.
            rng: the only source of randomness.
            care: how often each attribute that is liked is made as it should be; else it is drawn evenly, as are
                those that nobody likes.
        """
        wish = {name: rng.choice(values) for name, values in self.settable.items()}
        for name, values in self.settable.items():
            weight = self.likes.get(name, 0.0)
            if weight and rng.random() < care:
                wish[name] = max(values) if weight > 0 else min(values)
        return self.write(prompt, rng, **wish)

    @property
    def name(self) -> str:
        """What commands and reports call it."""
        return f"lab:{self.label}"

    def value(self, prompt: Prompt, text: str) -> float:
        """What a response is worth."""
        found = self.measure(prompt, text)
        return sum(weight * found[name] for name, weight in self.likes.items())

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`."""
        return [self.value(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]

    def cause(self, record: Record, judgment: Judgment) -> dict[str, float]:
        """What each attribute added to the difference between the first two responses of a comparison.

        Of a judgment of one response: what each attribute of it was worth.
        """
        found = [self.measure(record.prompt, record.responses[i].text) for i in judgment.responses[:2]]
        other = found[1] if len(found) > 1 else dict.fromkeys(found[0], 0.0)
        return {name: weight * (found[0][name] - other[name]) for name, weight in self.likes.items()}

    def records(self, n: int, seed: int = 0) -> Records:
        """Records of seeded prompts, answers and judgments.

        Args:
            n: how many, at least 1.
            seed: of everything.

        Raises:
            ConfigError: n is below 1.
        """
        if n < 1:
            raise ConfigError("needs at least one record", where=self.name, found=f"n={n}")
        rng, made = random.Random(f"{self.name} {seed}"), []
        while len(made) < n:
            made += self.some(rng)
        named = (self._named(record, seed, number) for number, record in enumerate(made[:n]))
        return Records.of(named, source=f"{self.name} (seed {seed})")

    def some(self, rng: random.Random) -> list[Record]:
        """One or more records that belong together: by default one, with two answers compared."""
        prompt = self.ask(rng)
        texts = self.two(prompt, rng)
        return [Record(prompt, written(texts), self.judge(prompt, texts, rng), extras=self.facts(prompt))]

    def two(self, prompt: Conversation, rng: random.Random) -> list[str]:
        """Two answers, of different worth where a few attempts find them."""
        first = self.write(prompt, rng)
        for _ in range(8):
            second = self.write(prompt, rng)
            if self.value(prompt, first) != self.value(prompt, second):
                break
        return [first, second]  # pyright: ignore[reportPossiblyUnboundVariable]

    def judge(self, prompt: Conversation, texts: Sequence[str], rng: random.Random) -> tuple[Judgment, ...]:
        """What is said of some answers to a prompt."""
        return (self.compared(prompt, texts, rng),)

    def compared(
        self, prompt: Conversation, texts: Sequence[str], rng: random.Random, **fields: Any
    ) -> Judgment:
        """A comparison by what the scene likes, shown in random order."""
        shown = rng.sample(range(len(texts)), len(texts))
        values = tuple(round(self.value(prompt, texts[i]), 6) for i in shown)
        who: dict[str, Any] = {"annotator": "lab"}
        return Judgment("comparison", tuple(shown), values, **(who | fields))

    def facts(self, prompt: Conversation) -> dict[str, Any]:
        """What is known of a prompt, for the record's extras."""
        return {}

    def _named(self, record: Record, seed: int, number: int) -> Record:
        return Record(
            record.prompt,
            record.responses,
            record.judgments,
            id=f"{self.label}-{seed}-{number}",
            origin=f"{self.name} row {number + 1}",
            extras={"scene": self.label, **record.extras},
        )


class Heeding(Scene):
    """A scene in which something in the prompt asks for a manner: a reaction, a principle, a persona, a place.

    Its answers are those of the small world to a question about a fact or a sum.
    """

    attributes: ClassVar[Mapping[str, str]] = {
        "heeds": "the share of what the prompt asks for in manner that the answer shows",
        "correctness": "1 right, 0 wrong, 0.5 where nothing was claimed",
        "relevance": "1 if it speaks of what was asked",
    }
    settable: ClassVar[Mapping[str, tuple[float, ...]]] = {"heeds": (0.0, 1.0), "correctness": (0.0, 1.0)}
    likes: ClassVar[Mapping[str, float]] = {"heeds": 1.0, "correctness": 1.5, "relevance": 1.0}

    @abstractmethod
    def wishes(self, prompt: Prompt) -> dict[str, float]:
        """The attributes of the world that a prompt asks for, read from its text."""

    def question(self, prompt: Prompt) -> str:
        """The turn that holds the last question of the small world; empty where there is none."""
        turns = (m.content for m in reversed(as_prompt(prompt)) if m.role in ("user", "text"))
        return next((turn for turn in turns if parse(turn).kind != "other"), "")

    def compose(self, prompt: Conversation, rng: random.Random, wish: Mapping[str, float]) -> str:
        asked = {name: value if wish["heeds"] else 1 - value for name, value in self.wishes(prompt).items()}
        return world.write(self.question(prompt), rng, correctness=wish["correctness"], **asked)

    def measure(self, prompt: Prompt, text: str) -> dict[str, float]:
        found, asked = of_world(self.question(prompt), text), self.wishes(prompt)
        met = [meets(found, name, value) for name, value in asked.items()]
        heeds = sum(met) / len(met) if met else 1.0
        return {"heeds": heeds, "correctness": found["correctness"], "relevance": found["relevance"]}

    def opposed(self, prompt: Conversation, rng: random.Random) -> list[str]:
        """Two right answers of which only the first does as the prompt asks."""
        return [self.write(prompt, rng, heeds=heeds, correctness=1.0) for heeds in (1.0, 0.0)]


def meets(found: Mapping[str, float], name: str, value: float) -> bool:
    """Whether an answer shows an attribute as it was wished, up to a third."""
    return abs(found[name] - value) < 0.4


def asked_plainly(rng: random.Random, *kinds: str) -> str:
    """A question of one of these kinds, by default with a known answer (a fact or a sum)."""
    return world.sample_prompt(rng, rng.choice(kinds or ("fact", "sum")))


def written(texts: Sequence[str]) -> tuple[Response, ...]:
    """Texts as responses by the lab's writer."""
    return tuple(Response.of(text, source="writer") for text in texts)


def claimed(question: Question, text: str) -> list[str]:
    """What a text claims in answer to a question, in order."""
    acts = [said.act for said in read(text)]
    return [
        act.value
        for act in acts
        if act
        and act.kind == "claim"
        and (act.topic == question.topic or (question.kind == "sum" and not act.topic))
        and question.point in ("", act.point)
    ]
