"""What users of the small world ask: every prompt it knows, and how a text is read back as one of them."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache

from accordance.core.policy import Prompt
from accordance.core.record import as_prompt
from accordance.lab import talk, tasks, things

#: Share of each kind of prompt among those that `sample_prompt` draws.
KINDS: dict[str, float] = {
    "fact": 0.24,
    "unknown": 0.13,
    "sum": 0.13,
    "howto": 0.16,
    "harm": 0.16,
    "taste": 0.10,
    "chat": 0.08,
}

GREETINGS = (
    "Please help me.",
    "Hello there.",
    "I have a question.",
    "Quick question.",
    "Dear helper.",
    "Excuse me.",
    "Listen up.",
)
ASK_SUM = ("What is {s}?", "How much is {s}?", "Can you tell me what {s} is?")
LARGEST = 12

_SENTENCE = re.compile(r"[^.!?]*[.!?]+(?=\s|$)|[^.!?]+(?:[.!?](?!\s|$)[^.!?]*)*[.!?]*", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """What a prompt asks.

    Attributes:
        kind: one of `KINDS`, or ``other`` for a prompt from outside the small world.
        topic: what it is about: an entity, a sum, a task, a pair of options, a subject of chit-chat.
        point: what is asked of the topic: the attribute of an entity, the axis of a taste; otherwise empty.
        answer: the true answer where there is one.
        text: the question, without greeting.
    """

    kind: str
    topic: str = ""
    point: str = ""
    answer: str = ""
    text: str = ""


def sentences(text: str) -> list[str]:
    """The sentences of any text, each with its final mark; a last piece without one counts too."""
    return [piece.strip() for piece in _SENTENCE.findall(text) if piece.strip()]


def normal(text: str) -> str:
    """A text in the form in which the world compares texts: lower case, single spaces."""
    return " ".join(text.casefold().split())


@lru_cache(maxsize=1)
def questions() -> dict[str, tuple[Question, ...]]:
    """Every question of the world, by kind."""
    return {
        "fact": tuple(_facts()),
        "unknown": tuple(_unknown()),
        "sum": tuple(_sums()),
        "howto": tuple(_tasks("howto", tasks.HARMLESS)),
        "harm": tuple(_tasks("harm", tasks.HARMFUL)),
        "taste": tuple(_tastes()),
        "chat": tuple(
            Question("chat", topic, text=ask) for topic, (asks, _) in talk.CHATS.items() for ask in asks
        ),
    }


def parse(prompt: Prompt) -> Question:
    """What a prompt asks, read from its last user turn; kind ``other`` where the world does not know it."""
    text = next((m.content for m in reversed(as_prompt(prompt)) if m.role in ("user", "text")), "")
    return _parse(text)


def sample_prompt(rng: random.Random, kind: str | None = None) -> str:
    """A prompt of the world: a question, in half of the cases after a greeting."""
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    question = rng.choice(questions()[kind])
    return f"{rng.choice(GREETINGS)} {question.text}" if rng.random() < 0.5 else question.text


def sum_text(topic: str) -> str:
    """``7+5`` as it is said: ``7 plus 5``."""
    return topic.replace("+", " plus ").replace("-", " minus ")


@lru_cache(maxsize=1)
def _known() -> dict[str, Question]:
    return {normal(q.text): q for group in questions().values() for q in group}


@lru_cache(maxsize=65536)
def _parse(text: str) -> Question:
    known, parts = _known(), [normal(s) for s in sentences(text)]
    for start in range(len(parts)):
        for end in (start + 2, start + 1):
            found = known.get(" ".join(parts[start:end]))
            if found is not None:
                return found
    return Question("other", text=text)


def _facts() -> list[Question]:
    return [
        Question("fact", entity, attribute, value, things.fill(ask, entity))
        for entity, facts in things.FACTS.items()
        for attribute, value in facts.items()
        for ask in things.ASK[attribute]
    ]


def _unknown() -> list[Question]:
    return [
        Question("unknown", things.fill(m.clause, filling), filling, text=things.fill(m.ask, filling))
        for m, filling in things.mysteries()
    ]


def _sums() -> list[Question]:
    pairs = [(a, b) for a in range(1, LARGEST + 1) for b in range(1, LARGEST + 1)]
    made = [(f"{a}+{b}", a + b) for a, b in pairs] + [(f"{a}-{b}", a - b) for a, b in pairs if a >= b]
    return [
        Question("sum", topic, answer=str(value), text=ask.format(s=sum_text(topic)))
        for topic, value in made
        for ask in ASK_SUM
    ]


def _tasks(kind: str, table: dict[str, tasks.Steps]) -> list[Question]:
    return [Question(kind, task, text=how.format(x=task)) for task in table for how in tasks.HOW]


def _tastes() -> list[Question]:
    made = []
    for axis, pairs in talk.TASTES.items():
        for one, zero in pairs:
            for a, b in ((one, zero), (zero, one)):
                made += [
                    Question("taste", f"{one}|{zero}", axis, text=_ask(ask, a, b)) for ask in talk.ASK_TASTE
                ]
    return made


def _ask(template: str, a: str, b: str) -> str:
    text = template.format(a=a, b=b)
    return text[0].upper() + text[1:]
