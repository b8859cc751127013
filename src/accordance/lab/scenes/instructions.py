"""Several instructions in one prompt, each of which exact code can verify."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from accordance.core.constraints import Constraint, instructions
from accordance.core.policy import Prompt
from accordance.core.record import as_prompt, user
from accordance.lab import world
from accordance.lab.attributes import attributes as of_world
from accordance.lab.scenes.base import Conversation, Scene, asked_plainly

#: Words that can be demanded; nothing else in the world says them.
WORDS = ("lantern", "harvest", "feather", "orchard")
_WORD, _WORDINGS = "anyword", 3


@dataclass(frozen=True)
class _Edit:
    """How a text is made to follow an instruction, and to break it."""

    follow: Callable[[str, Constraint], str]
    break_: Callable[[str, Constraint], str]


def _same(text: str, constraint: Constraint) -> str:
    return text


#: In the order in which they are made: what comes later may not undo what came before.
_EDITS: dict[str, _Edit] = {
    "no_comma": _Edit(lambda text, c: text.replace(",", ""), lambda text, c: f"{text} Well, that is that."),
    "title": _Edit(lambda text, c: f"{text} <<An answer>>.", _same),
    "keyword": _Edit(lambda text, c: f"{text} Think of the {c.arguments['word']}.", _same),
    "question": _Edit(lambda text, c: f"{text} Is that clear?", _same),
    "lowercase": _Edit(lambda text, c: text.lower(), lambda text, c: f"So be it. {text}"),
}


class Instructions(Scene):
    """A question with two to four verifiable instructions; the better answer follows more of them.

    The instructions are read back from the prompt's text, so that any text can be measured under any prompt.
    """

    label = "instructions"
    about = "several verifiable instructions in one prompt"
    attributes: ClassVar[Mapping[str, str]] = {
        "followed": "the share of the instructions that it follows",
        "correctness": "1 right, 0 wrong, 0.5 where nothing was claimed",
    }
    settable: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "followed": (0.0, 0.5, 1.0),
        "correctness": (0.0, 1.0),
    }
    likes: ClassVar[Mapping[str, float]] = {"followed": 2.0, "correctness": 1.0}

    def ask(self, rng: random.Random) -> Conversation:
        kinds = rng.sample(list(_EDITS), rng.choice((2, 4)))
        made = [
            Constraint(
                kind,
                {"word": rng.choice(WORDS), "relation": "least", "count": 1} if kind == "keyword" else {},
                rng.randrange(_WORDINGS),
            )
            for kind in kinds
        ]
        return user(f"{asked_plainly(rng)} {instructions(made)}")

    def compose(self, prompt: Conversation, rng: random.Random, wish: Mapping[str, float]) -> str:
        demands = asked(prompt)
        few = rng.sample(demands, round(wish["followed"] * len(demands)))
        text = world.best(
            prompt, rng, correctness=wish["correctness"], formality=0.5, politeness=0.5, hedging=0.0
        )
        for kind, edit in _EDITS.items():
            for demand in demands:
                if demand.kind == kind:
                    text = (edit.follow if demand in few else edit.break_)(text, demand)
        return text

    def measure(self, prompt: Prompt, text: str) -> dict[str, float]:
        demands = asked(prompt)
        met = [demand.met(text) for demand in demands]
        share = sum(met) / len(met) if met else 1.0
        return {"followed": share, "correctness": of_world(prompt, text)["correctness"]}

    def facts(self, prompt: Conversation) -> dict[str, Any]:
        return {"instructions": [{"kind": c.kind, **c.arguments} for c in asked(prompt)]}


def asked(prompt: Prompt) -> list[Constraint]:
    """The instructions in the last user turn, in the order in which they stand there."""
    text = next((m.content for m in reversed(as_prompt(prompt)) if m.role in ("user", "text")), "")
    found = []
    for kind, wording, pattern in _patterns():
        for match in pattern.finditer(text):
            arguments: dict[str, Any] = {}
            if kind == "keyword":
                arguments = {"word": match["word"], "relation": "least", "count": int(match["count"])}
            found.append((match.start(), Constraint(kind, arguments, wording)))
    return [constraint for _, constraint in sorted(found, key=lambda item: item[0])]


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, int, re.Pattern[str]]]:
    """Each wording of each kind as a pattern, made from what `core.constraints` itself would say."""
    made: dict[str, tuple[str, int, re.Pattern[str]]] = {}
    for kind in _EDITS:
        sample = {"word": _WORD, "relation": "least", "count": 77} if kind == "keyword" else {}
        for wording in range(_WORDINGS):
            told = re.escape(Constraint(kind, sample, wording).instruction)
            told = told.replace(_WORD, r"(?P<word>[^\"]+)").replace("77", r"(?P<count>\d+)")
            told = re.sub(r"times(?=\\?\.)", "times?", told)
            made.setdefault(told, (kind, wording, re.compile(told)))
    return list(made.values())
