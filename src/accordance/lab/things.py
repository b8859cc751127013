"""What the small world holds: creatures, towns, things, facts about them, and what can't be known.

The facts of invented entities are drawn once from a fixed seed; those of simple things are as in our own world.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CREATURES = [
    "zorbin",
    "mibble",
    "taruk",
    "felno",
    "grindle",
    "oppa",
    "lurmit",
    "sweem",
    "dabbit",
    "korvan",
    "plink",
    "yarrel",
    "humsel",
    "nixel",
    "brolk",
    "quill",
    "wuffet",
    "jorma",
    "tindra",
    "vask",
]
TOWNS = [
    "Brelland",
    "Tormy",
    "Oskaven",
    "Lindle",
    "Marrow",
    "Penwick",
    "Sulby",
    "Dunmere",
    "Harrowgate",
    "Velm",
    "Caldon",
    "Ruswick",
]
PEOPLE = ["Mira", "Tobin", "Anselm", "Juno", "Petra", "Orin", "Sela", "Bram", "Lotte", "Hugo"]
COLOURS = ["blue", "red", "green", "yellow", "white", "black", "brown", "grey", "orange", "purple"]
FOODS = ["moss", "berries", "fish", "nuts", "honey", "grass", "beetles", "roots", "apples", "seeds"]
HOMES = [
    "the marsh",
    "the forest",
    "the hills",
    "the desert",
    "the river",
    "the caves",
    "the meadow",
    "the old mill",
    "the reeds",
    "the snow",
]
RIVERS = ["Osk", "Tam", "Lune", "Wend", "Arrel", "Birle", "Ouse", "Nith"]
CRAFTS = ["cheese", "glass", "bells", "boats", "ribbons", "bread", "clocks", "carpets", "lamps", "pottery"]
TASTES = ["sweet", "sour", "bitter", "salty", "mild", "hot"]

#: The values that an attribute can take; also what a wrong answer is drawn from.
VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "food": tuple(FOODS),
    "home": tuple(HOMES),
    "river": tuple(RIVERS),
    "craft": tuple(CRAFTS),
    "flavour": tuple(TASTES),
}

ASK: dict[str, tuple[str, ...]] = {
    "colour": ("What colour is {e}?", "Which colour does {e} have?"),
    "food": ("What does {e} eat?", "Which food does {e} like?"),
    "home": ("Where does {e} live?", "Where can I find {e}?"),
    "river": ("Which river runs through {e}?", "On which river does {e} lie?"),
    "craft": ("What is {e} known for?", "What do people buy in {e}?"),
    "flavour": ("How does {e} taste?", "What is the taste of {e}?"),
}
TELL: dict[str, tuple[str, ...]] = {
    "colour": ("{e} is {v}.", "The colour of {e} is {v}."),
    "food": ("{e} eats {v}.", "{e} likes to eat {v}."),
    "home": ("{e} lives in {v}.", "You can find {e} in {v}."),
    "river": ("{e} lies on the river {v}.", "The river {v} runs through {e}."),
    "craft": ("{e} is known for its {v}.", "People come to {e} to buy {v}."),
    "flavour": ("{e} tastes {v}.", "The taste of {e} is {v}."),
}

_PLAIN: dict[str, dict[str, str]] = {
    "the lemon": {"colour": "yellow", "flavour": "sour"},
    "the cherry": {"colour": "red", "flavour": "sweet"},
    "the frog": {"colour": "green", "home": "the reeds"},
    "the crow": {"colour": "black", "food": "seeds"},
    "the bear": {"colour": "brown", "food": "honey"},
    "the donkey": {"colour": "grey", "food": "grass"},
    "the sea": {"colour": "blue", "flavour": "salty"},
    "the carrot": {"colour": "orange", "flavour": "sweet"},
    "the squirrel": {"food": "nuts", "home": "the forest"},
    "the camel": {"colour": "brown", "home": "the desert"},
    "the otter": {"food": "fish", "home": "the river"},
    "the bat": {"colour": "black", "home": "the caves"},
    "the pepper": {"colour": "red", "flavour": "hot"},
    "the plum": {"colour": "purple", "flavour": "sweet"},
}


def _draw() -> dict[str, dict[str, str]]:
    rng = random.Random("the facts of the small world")
    facts = {f"the {c}": {a: rng.choice(VALUES[a]) for a in ("colour", "food", "home")} for c in CREATURES}
    facts |= {town: {a: rng.choice(VALUES[a]) for a in ("river", "craft")} for town in TOWNS}
    return facts | _PLAIN


#: entity -> attribute -> true value.
FACTS: dict[str, dict[str, str]] = _draw()


@dataclass(frozen=True)
class Mystery:
    """A question that nobody can answer.

    Attributes:
        ask: the question; `{p}` is a person, `{c}` a creature, `{t}` a town.
        clause: the same as an indirect question, for "Nobody can know ...".
        claim: what somebody says who pretends to know; `{v}` is one of `values`.
        values: what is made up.
    """

    ask: str
    clause: str
    claim: str
    values: tuple[str, ...]


_DREAMS = ("a golden boat", "a flying horse", "a warm pie", "a silver moon", "an endless road")
_WEATHER = ("sunny", "rainy", "windy", "cold", "foggy")
_COUNTS = ("40", "70", "90", "120", "300", "500")

MYSTERIES: tuple[Mystery, ...] = (
    Mystery("What is {p} thinking right now?", "what {p} is thinking", "{p} is thinking of {v}.", _DREAMS),
    Mystery("What did {c} dream last night?", "what {c} dreamt", "{c} dreamt of {v}.", _DREAMS),
    Mystery(
        "What will the weather be in {t} next year?",
        "the weather in {t} next year",
        "Next year it will be {v} in {t}.",
        _WEATHER,
    ),
    Mystery(
        "Who will win the race in {t} tomorrow?",
        "who will win the race in {t}",
        "{v} will win the race in {t}.",
        tuple(PEOPLE),
    ),
    Mystery(
        "How many leaves are there in the woods of {t}?",
        "the number of leaves in {t}",
        "There are exactly {v} leaves in the woods of {t}.",
        _COUNTS,
    ),
    Mystery(
        "What is hidden in the closed box of {p}?",
        "what is in the box of {p}",
        "The box of {p} holds {v}.",
        _DREAMS,
    ),
    Mystery(
        "How many drops fell on {t} this morning?",
        "the number of drops in {t}",
        "Exactly {v} drops fell on {t}.",
        _COUNTS,
    ),
    Mystery(
        "Which number will {p} roll with the dice tomorrow?",
        "which number {p} will roll",
        "{p} will roll a {v}.",
        ("1", "2", "3", "4", "5", "6"),
    ),
)


def mysteries() -> list[tuple[Mystery, str]]:
    """Every mystery with every filling of its slot: (mystery, filling)."""
    slots = {"{p}": PEOPLE, "{c}": [f"the {c}" for c in CREATURES], "{t}": TOWNS}
    return [(m, fill) for m in MYSTERIES for slot, fills in slots.items() if slot in m.ask for fill in fills]


def fill(template: str, filling: str, value: str = "") -> str:
    """A template with its slots filled, beginning with a capital letter if it is a sentence."""
    text = template
    for slot in ("{e}", "{p}", "{c}", "{t}"):
        text = text.replace(slot, filling)
    text = text.replace("{v}", value)
    return text[0].upper() + text[1:] if text.endswith((".", "?", "!")) else text
