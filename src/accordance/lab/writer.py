"""The writer: answers to prompts of the small world with the attributes that one asks for."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accordance.core.errors import ConfigError, unknown
from accordance.core.policy import Prompt
from accordance.lab import acts, talk, tasks
from accordance.lab.acts import Line, capital
from accordance.lab.questions import Question, parse, questions

#: The values that can be asked for, and how often a writer of mixed quality takes each.
MIXTURE: dict[str, dict[float, float]] = {
    "relevance": {1: 0.93, 0: 0.07},
    "refusal": {1: 0.06, 0: 0.94},
    "ignorance": {1: 0.06, 0: 0.94},
    "correctness": {1: 0.5, 0: 0.5},
    "honesty": {1: 0.4, 0: 0.6},
    "harm": {1: 0.55, 0: 0.45},
    "calm": {1: 0.4, 0.5: 0.2, 0: 0.4},
    "old": {1: 0.4, 0.5: 0.2, 0: 0.4},
    "politeness": {1: 0.3, 0.5: 0.4, 0: 0.3},
    "formality": {1: 0.25, 0.5: 0.5, 0: 0.25},
    "hedging": {1: 0.1, 0.5: 0.2, 0: 0.7},
    "elaboration": {0: 0.4, 1 / 3: 0.25, 2 / 3: 0.2, 1: 0.15},
    "repetition": {0: 0.95, 0.5: 0.05},
    "fluency": {1: 0.98, 0: 0.02},
}
HOWTO = {1: 0.5, 2 / 3: 0.2, 1 / 3: 0.1, 0: 0.2}
_FRAMED = ("politeness", "formality", "hedging", "elaboration", "repetition", "fluency")

#: The attributes that can be asked for, by kind of prompt.
SETTABLE: dict[str, tuple[str, ...]] = {
    "fact": ("relevance", "refusal", "ignorance", "correctness", *_FRAMED),
    "sum": ("relevance", "refusal", "ignorance", "correctness", *_FRAMED),
    "howto": ("relevance", "refusal", "ignorance", "correctness", *_FRAMED),
    "unknown": ("relevance", "refusal", "honesty", *_FRAMED),
    "harm": ("relevance", "ignorance", "harm", *_FRAMED),
    "taste": ("relevance", "refusal", "ignorance", "calm", "old", *_FRAMED),
    "chat": ("relevance", "refusal", "ignorance", *_FRAMED),
}


@dataclass(frozen=True)
class Core:
    """The heart of an answer: its sentences, what can support it, whether a hedge can stand before it."""

    lines: tuple[str, ...]
    support: Sequence[Line]
    hedgeable: bool = False


def write(prompt: Prompt, rng: random.Random, **wanted: float) -> str:
    """An answer to a prompt of the world with the attributes wanted.

    What is not asked for is drawn from `MIXTURE`, and never contradicts what is: ``write(prompt, rng)`` is a
    writer of mixed quality. Asked for ``fluency=0`` it shuffles the words of its sentences, which makes
    the fluency low (below 0.5) and leaves nothing of the other attributes.

    Args:
        prompt: a prompt that `sample_prompt` could draw.
        rng: the only source of randomness.
        **wanted: attributes of `SETTABLE` for this kind of prompt, each with one of its values in `MIXTURE`.

    Raises:
        ConfigError: the prompt is not of this world, an attribute can't be chosen for it, or two of those
            chosen exclude each other.
    """
    question = parse(prompt)
    wish = _wish(question, rng, wanted)
    core = _core(question, wish, rng)
    body = _body(core, wish, rng)
    twice = wish["repetition"] and ("repetition" in wanted or len(body) <= 4)
    text = " ".join(capital(sentence) for sentence in (body * 2 if twice else body))
    return text if wish["fluency"] else _shuffled(text, rng)


def best(prompt: Prompt, rng: random.Random, **wanted: float) -> str:
    """An answer that is relevant, right, honest, harmless and fluent; otherwise like `write`."""
    good = {
        "relevance": 1.0,
        "correctness": 1.0,
        "honesty": 1.0,
        "harm": 0.0,
        "repetition": 0.0,
        "fluency": 1.0,
    }
    able = SETTABLE.get(parse(prompt).kind, ())
    neither = {"refusal": 0.0, "ignorance": 0.0}
    return write(prompt, rng, **{k: v for k, v in (good | neither).items() if k in able} | wanted)


def _wish(question: Question, rng: random.Random, wanted: Mapping[str, float]) -> dict[str, float]:
    if question.kind not in SETTABLE:
        raise ConfigError(
            "the writer answers only prompts of the small world",
            found=question.text,
            remedy="draw prompts with accordance.lab.world.sample_prompt(rng)",
        )
    able = SETTABLE[question.kind]
    for name, value in wanted.items():
        if name not in able or (name in talk.AXES and name != question.point):
            raise unknown(f"attribute for a {question.kind} prompt", name, able)
        allowed = HOWTO if (name, question.kind) == ("correctness", "howto") else MIXTURE[name]
        if not any(abs(value - choice) < 1e-9 for choice in allowed):
            choices = ", ".join(f"{choice:.3g}" for choice in sorted(allowed))
            raise ConfigError(f"can't write with {name}={value}", expected=f"one of: {choices}")
    return _settle(question.kind, {n: _draw(n, question.kind, rng) for n in MIXTURE}, wanted)


#: Attributes that say what the core of an answer does; of these, one rules.
_MODES = ("relevance", "refusal", "ignorance", "honesty", "harm", "correctness", "calm", "old")


def _settle(kind: str, drawn: dict[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """What was drawn, bent so that it does not contradict what is wanted."""
    special = [f"{n}={wanted[n]:g}" for n in ("refusal", "ignorance") if wanted.get(n)]
    special += ["relevance=0"] * (wanted.get("relevance", 1) == 0)
    content = [f"{n}={wanted[n]:g}" for n in ("honesty", "harm", "correctness", "calm", "old") if n in wanted]
    if len(special) + bool(content) > 1:
        raise ConfigError("an answer can't have these at once", found=", ".join([*special, *content]))
    if wanted.keys() & set(_MODES):
        drawn |= {"relevance": 1.0, "refusal": 0.0, "ignorance": 0.0}
    if wanted:
        drawn |= {"repetition": 0.0, "fluency": 1.0}
    if kind in ("unknown", "harm"):
        # Here owning not to know is honesty, and refusing is the absence of harm.
        drawn |= {"ignorance": 0.0} if kind == "unknown" else {"refusal": 0.0}
    return drawn | dict(wanted)


def _draw(name: str, kind: str, rng: random.Random) -> float:
    table = HOWTO if (name, kind) == ("correctness", "howto") else MIXTURE[name]
    return rng.choices(list(table), list(table.values()))[0]


def _core(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    if wish["relevance"] == 0:
        return _off_topic(question, wish, rng)
    if wish["refusal"]:
        return _one(acts.refusals(question), acts.support("refused", ""), rng)
    if wish["ignorance"]:
        return _one(acts.ignorance(question), acts.support("ignorance", ""), rng)
    return _CORES[question.kind](question, wish, rng)


def _one(lines: Sequence[Line], support: Sequence[Line], rng: random.Random, hedgeable: bool = False) -> Core:
    return Core((rng.choice(lines)[0],), support, hedgeable)


def _claim(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    wrong = [value for value in acts.values(question) if value != question.answer]
    value = question.answer if wish["correctness"] else rng.choice(wrong)
    support = acts.support(question.kind, question.topic)
    return _one(acts.claims(question, value), support, rng, hedgeable=True)


def _mystery(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    if wish["honesty"]:
        return _one(acts.ignorance(question), acts.support("ignorance", ""), rng)
    value = rng.choice(acts.values(question))
    return _one(acts.claims(question, value), acts.support("pretence", ""), rng, hedgeable=True)


def _howto(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    own = [text for text, _ in acts.steps(question.topic)]
    for place in rng.sample(range(3), 3 - round(3 * wish["correctness"])):
        other = rng.choice([task for task in tasks.HARMLESS if task != question.topic])
        own[place] = acts.steps(other)[place][0]
    return Core((rng.choice(acts.headers(question.topic))[0], *_ordered(own)), acts.support("howto", ""))


def _harm(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    if not wish["harm"]:
        return _one(acts.refusals(question), acts.support("refused", ""), rng)
    lines = _ordered([text for text, _ in acts.steps(question.topic)])
    return Core((rng.choice(acts.headers(question.topic))[0], *lines), acts.support("complied", ""))


def _taste(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    stance = wish[question.point]
    pole = None if stance == 0.5 else int(stance)
    support = acts.support("balance", "") if pole is None else acts.reasons(question.point, pole)
    return _one(acts.preferences(question, pole), support, rng, hedgeable=True)


def _chat(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    return _one(acts.replies(question.topic), acts.support("chat", ""), rng)


_CORES: dict[str, Callable[[Question, Mapping[str, float], random.Random], Core]] = {
    "fact": _claim,
    "sum": _claim,
    "unknown": _mystery,
    "howto": _howto,
    "harm": _harm,
    "taste": _taste,
    "chat": _chat,
}


def _off_topic(question: Question, wish: Mapping[str, float], rng: random.Random) -> Core:
    """The core of an answer to some other question, about a fact or in chit-chat."""
    pool = questions()[rng.choice(("fact", "chat"))]
    other = rng.choice([q for q in pool if q.topic != question.topic])
    return _CORES[other.kind](other, wish, rng)


def _ordered(lines: Sequence[str]) -> list[str]:
    return [lead + line for lead, line in zip(tasks.ORDER, lines)]


def _body(core: Core, wish: Mapping[str, float], rng: random.Random) -> list[str]:
    """The core with its support, hedges and frames around it."""
    lines, hedged = list(core.lines), round(2 * wish["hedging"])
    if core.hedgeable and hedged and rng.random() < 0.5:
        lead = rng.choice(talk.HEDGE_LEADS)
        lines[0], hedged = lead + _lowered(lines[0]), hedged - 1
    support = rng.sample(list(core.support), round(3 * wish["elaboration"]))
    hedges = rng.sample(acts.hedges(), hedged)
    opening, closing = _frames(wish, rng)
    return [*opening, *lines, *(t for t, _ in support), *(t for t, _ in hedges), *closing]


def _frames(wish: Mapping[str, float], rng: random.Random) -> tuple[list[str], list[str]]:
    polite, register = (round(2 * wish[name] - 1) for name in ("politeness", "formality"))
    if not polite and not register:
        return [], []
    places = rng.choice((("open",), ("open",), ("close",), ("open", "close")))
    picked = {place: rng.choice(acts.frames(place, polite, register))[0] for place in places}
    return [picked[p] for p in ("open",) if p in picked], [picked[p] for p in ("close",) if p in picked]


def _lowered(text: str) -> str:
    """The sentence as it goes on after a lead: names and "I" keep their capital letter."""
    first = text.split(maxsplit=1)[0]
    return text if first in _PROPER or first.startswith("I'") else text[0].lower() + text[1:]


_PROPER = frozenset({"I", *acts.things.TOWNS, *acts.things.PEOPLE})


def _shuffled(text: str, rng: random.Random) -> str:
    """The words of the text in another order: no sentence of the world is left."""
    words = text.split()
    for _ in range(20):
        rng.shuffle(words)
        if not any(said.act for said in acts.read(" ".join(words))):
            break
    return " ".join(words)
