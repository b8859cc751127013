"""Acts: what each sentence of an answer does. Every sentence of the world is listed once, with its act.

The writer takes sentences from here and the attribute functions read them back, so that what was asked for and
what is measured agree. A sentence that stands nowhere in the list has no act.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from accordance.lab import talk, tasks, things
from accordance.lab.questions import GREETINGS, LARGEST, Question, normal, questions, sentences, sum_text


@dataclass(frozen=True)
class Act:
    """What a sentence does.

    Attributes:
        kind: ``claim``, ``header``, ``step``, ``harm_step``, ``prefer``, ``balance``, ``reason``, ``reply``,
            ``refuse``, ``ignorance``, ``support``, ``hedge`` or ``frame``.
        topic: what it is about; empty where it fits any question.
        point: the attribute or axis it is about.
        value: the value claimed, the number of the step, or the pole taken (1 or 0).
        polite: 1 polite, -1 rude.
        register: 1 formal, -1 playful.
    """

    kind: str
    topic: str = ""
    point: str = ""
    value: str = ""
    polite: int = 0
    register: int = 0


@dataclass(frozen=True)
class Said:
    """One sentence of a text as it was read: its words, its act (None: not of this world), its hedges."""

    text: str
    act: Act | None
    hedges: int = 0


Line = tuple[str, Act]

_ANSWER = re.compile(r"the answer is (\d+)\.")
_SUM = re.compile(r"(\d+) (plus|minus) (\d+) (?:is|makes) (\d+)\.")
_LEADS = tuple(normal(lead) + " " for lead in (*talk.HEDGE_LEADS, *tasks.ORDER))
_HEDGE_LEADS = frozenset(normal(lead) + " " for lead in talk.HEDGE_LEADS)
_WORD = re.compile(r"[\w']+")


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def claims(question: Question, value: str) -> list[Line]:
    """Sentences that answer a fact, a sum or a mystery with `value`, right or wrong."""
    if question.kind == "fact":
        act = Act("claim", question.topic, question.point, value)
        return [(things.fill(t, question.topic, value), act) for t in things.TELL[question.point]]
    if question.kind == "sum":
        said = sum_text(question.topic)
        act = Act("claim", question.topic, value=value)
        return [(f"{said} is {value}.", act), (f"{said} makes {value}.", act), (f"The answer is {value}.", act)]
    mystery = next(m for m, f in things.mysteries() if things.fill(m.clause, f) == question.topic)
    return [(things.fill(mystery.claim, question.point, value), Act("claim", question.topic, value=value))]


def values(question: Question) -> tuple[str, ...]:
    """Everything that could be claimed in answer to a fact, a sum or a mystery."""
    if question.kind == "fact":
        return things.VALUES[question.point]
    if question.kind == "sum":
        right = int(question.answer)
        return tuple(str(v) for v in range(max(0, right - 4), right + 5))
    return next(m for m, f in things.mysteries() if things.fill(m.clause, f) == question.topic).values


def headers(task: str) -> list[Line]:
    """Sentences that announce the steps of a task."""
    return [(h.format(x=task), Act("header", task)) for h in tasks.HEADERS]


def steps(task: str) -> list[Line]:
    """The three steps of a task, without ordinals."""
    harmful = task in tasks.HARMFUL
    table = tasks.HARMFUL if harmful else tasks.HARMLESS
    kind = "harm_step" if harmful else "step"
    return [(f"{step}.", Act(kind, task, value=str(i))) for i, step in enumerate(table[task])]


def preferences(question: Question, pole: int | None) -> list[Line]:
    """Sentences that take one side of a matter of taste (pole 1 or 0), or both (None)."""
    one, zero = question.topic.split("|")
    if pole is None:
        act = Act("balance", question.topic, question.point)
        return [(capital(t.format(a=one, b=zero)), act) for t in talk.BALANCE]
    act = Act("prefer", question.topic, question.point, str(pole))
    return [(t.format(x=one if pole else zero), act) for t in talk.PREFER]


def reasons(axis: str, pole: int) -> list[Line]:
    """Why one would take that side."""
    return [(text, Act("reason", point=axis, value=str(pole))) for text in talk.REASONS[axis, pole]]


def replies(topic: str) -> list[Line]:
    """Answers to chit-chat; an answer of several sentences is one line."""
    return [(text, Act("reply", topic)) for text in talk.CHATS[topic][1]]


def refusals(question: Question) -> list[Line]:
    """Sentences that refuse, naming the task where there is one."""
    named = [(t.format(x=question.topic), Act("refuse", question.topic)) for t in tasks.REFUSE]
    return [*(named if question.kind in ("howto", "harm") else []), *_plain("refuse", talk.REFUSE_PLAIN)]


def ignorance(question: Question) -> list[Line]:
    """Sentences that own not to know, naming the mystery where it is one."""
    named = [(t.format(x=question.topic), Act("ignorance", question.topic)) for t in talk.DONT_KNOW_WHAT]
    return [*(named if question.kind == "unknown" else []), *_plain("ignorance", talk.DONT_KNOW)]


def support(mode: str, topic: str) -> list[Line]:
    """Sentences that lengthen an answer of this mode (a key of `talk.SUPPORT`)."""
    about = topic if mode == "fact" else ""
    return [(capital(t.format(x=about)), Act("support", about)) for t in talk.SUPPORT[mode]]


def frames(place: str, polite: int, register: int) -> list[Line]:
    """Opening or closing phrases of this politeness and register."""
    found = [f for f in talk.FRAMES if (f.place, f.polite, f.register) == (place, polite, register)]
    return [(f.text, Act("frame", polite=f.polite, register=f.register)) for f in found]


def hedges() -> list[Line]:
    """Sentences that take back some certainty."""
    return _plain("hedge", talk.HEDGES)


def read(text: str) -> list[Said]:
    """The acts of any text, sentence by sentence."""
    return [_read(sentence) for sentence in sentences(text)]


def words(text: str) -> list[str]:
    """The words of any text, in lower case."""
    return _WORD.findall(text.casefold())


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Every word of the world: of its prompts and of its answers."""
    found = {word for line in _index() for word in words(line)}
    found |= {word for group in questions().values() for q in group for word in words(q.text)}
    found |= {word for lead in (*_LEADS, *GREETINGS) for word in words(lead)}
    return frozenset(found | {str(n) for n in range(2 * LARGEST + 5)})


@lru_cache(maxsize=1)
def _index() -> dict[str, Act]:
    index: dict[str, Act] = {}
    for line, act in _lines():
        for sentence in sentences(line):
            index.setdefault(normal(sentence), act)
    return index


def _lines() -> Iterator[Line]:
    for group in questions().values():
        for question in group:
            yield from refusals(question)
            yield from ignorance(question)
            if question.kind in ("fact", "unknown"):
                for value in values(question):
                    yield from claims(question, value)
            if question.kind == "fact":
                yield from support("fact", question.topic)
            if question.kind in ("howto", "harm"):
                yield from headers(question.topic)
                yield from steps(question.topic)
            if question.kind == "taste":
                for pole in (0, 1, None):
                    yield from preferences(question, pole)
            if question.kind == "chat":
                yield from replies(question.topic)
    for mode in talk.SUPPORT.keys() - {"fact"}:
        yield from support(mode, "")
    for axis, pole in talk.REASONS:
        yield from reasons(axis, pole)
    for f in talk.FRAMES:
        yield f.text, Act("frame", polite=f.polite, register=f.register)
    yield from hedges()


@lru_cache(maxsize=65536)
def _read(sentence: str) -> Said:
    rest, hedged = normal(sentence), 0
    while True:
        act = _index().get(rest) or _sum(rest)
        lead = next((lead for lead in _LEADS if rest.startswith(lead)), None)
        if act is not None or lead is None:
            return Said(sentence, act, hedged)
        rest, hedged = rest[len(lead) :], hedged + (lead in _HEDGE_LEADS)


def _sum(sentence: str) -> Act | None:
    if found := _ANSWER.fullmatch(sentence):
        return Act("claim", point="sum", value=found[1])
    if found := _SUM.fullmatch(sentence):
        sign = "+" if found[2] == "plus" else "-"
        return Act("claim", f"{found[1]}{sign}{found[3]}", "sum", found[4])
    return None


def _plain(kind: str, texts: tuple[str, ...]) -> list[Line]:
    return [(text, Act(kind)) for text in texts]
