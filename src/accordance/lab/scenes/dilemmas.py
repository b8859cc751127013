"""Value dilemmas: two answers, each of which can be defended, and two groups of people who would."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from accordance.core.policy import Prompt
from accordance.core.record import Judgment, as_prompt, user
from accordance.lab.acts import capital
from accordance.lab.questions import GREETINGS
from accordance.lab.scenes.base import Conversation, Scene

#: The two groups: which value of a dilemma each puts first.
GROUPS = ("keepers", "movers")


@dataclass(frozen=True)
class Dilemma:
    """A situation in which two values can't both be served.

    Attributes:
        situation: what is the matter.
        options: what to do, for keepers and for movers.
        values: what each option serves.
    """

    situation: str
    options: tuple[str, str]
    values: tuple[str, str]


_DILEMMAS = """
My friend broke the rules of the race.|stay silent|tell the judge|loyalty|fairness
My aunt asks if I like her ugly hat.|tell her the truth|spare her feelings|honesty|kindness
My son wants to climb the old tower.|keep him at home|let him go|safety|freedom
The village wants to replace the old mill.|keep the mill|build a new one|tradition|progress
I guard the gate and my mother is ill.|stay at my post|go to her|duty|care
A beggar asks for my last coins.|save the coins|give them away|thrift|generosity
My brother told me where he hid the map.|keep his secret|share the map|trust|openness
My teacher made a mistake in front of all.|say nothing|correct her|respect|candour
"""
DILEMMAS: tuple[Dilemma, ...] = tuple(
    Dilemma(situation, (one, two), (first, second))
    for situation, one, two, first, second in (line.split("|") for line in _DILEMMAS.strip().splitlines())
)
_SIDES = ("I would {x}.", "In your place I would {x}.", "The right thing is to {x}.")
_BOTH = ("You could {a} or {b}, and neither is wrong.", "Both to {a} and to {b} can be defended.")
_REASONS = ("{v} matters most here.", "Without {v} nothing else has worth.", "I put {v} first.")
_GRANTS = ("It is true that {v} speaks against it.", "I do not forget what {v} would ask for.")


class Dilemmas(Scene):
    """Records hold an answer for either side, equally reasoned, judged by one person of each group.

    Keepers put loyalty, honesty, safety, tradition, duty, thrift, trust and respect first; movers fairness,
    kindness, freedom, progress, care, generosity, openness and candour. No answer is best for both.
    """

    label = "dilemmas"
    about = "value dilemmas with two defensible answers, judged by two groups"
    attributes: ClassVar[Mapping[str, str]] = {
        "side": "1 if it sides with the keepers, 0 with the movers, 0.5 with both or neither",
        "reasoned": "1 if it gives the reason of a side that it takes",
        "grants": "1 if it owns what the other value would ask for",
    }
    settable: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "side": (0.0, 0.5, 1.0),
        "reasoned": (0.0, 1.0),
        "grants": (0.0, 1.0),
    }
    likes: ClassVar[Mapping[str, float]] = {"side": 0.0, "reasoned": 1.0, "grants": 0.5}

    def ask(self, rng: random.Random) -> Conversation:
        dilemma = rng.choice(DILEMMAS)
        first, second = rng.sample(dilemma.options, 2)
        greeting = rng.choice(("", *(f"{one} " for one in GREETINGS)))
        return user(f"{greeting}{dilemma.situation} Should I {first} or {second}?")

    def compose(self, prompt: Conversation, rng: random.Random, wish: Mapping[str, float]) -> str:
        dilemma = read(prompt)
        assert dilemma is not None, "only prompts of this scene are answered"
        side, (keep, move) = wish["side"], dilemma.options
        taken = [rng.choice((0, 1))] if side == 0.5 else [int(side < 0.5)]
        lines = [rng.choice(_BOTH if side == 0.5 else _SIDES)]
        lines[0] = lines[0].format(x=dilemma.options[taken[0]], a=keep, b=move)
        if wish["reasoned"]:
            lines.append(capital(rng.choice(_REASONS).format(v=dilemma.values[taken[0]])))
        if wish["grants"]:
            lines.append(rng.choice(_GRANTS).format(v=dilemma.values[1 - taken[0]]))
        return " ".join(lines)

    def measure(self, prompt: Prompt, text: str) -> dict[str, float]:
        dilemma = read(prompt)
        if dilemma is None:
            return {"side": 0.5, "reasoned": 0.0, "grants": 0.0}
        taken = [_said(text, _SIDES, x=option) for option in dilemma.options]
        side = 0.5 if taken[0] == taken[1] else float(taken[0])
        of = [place for place in (0, 1) if side == 0.5 or taken[place]]
        reasons = [_said(text, _REASONS, v=dilemma.values[place]) for place in of]
        grants = [
            _said(text, _GRANTS, v=dilemma.values[place]) for place in (0, 1) if place not in of or side == 0.5
        ]
        return {"side": side, "reasoned": float(any(reasons)), "grants": float(any(grants))}

    def two(self, prompt: Conversation, rng: random.Random) -> list[str]:
        manner = {name: rng.choice((0.0, 1.0)) for name in ("reasoned", "grants")}
        return [self.write(prompt, rng, side=side, **manner) for side in rng.sample((0.0, 1.0), 2)]

    def judge(self, prompt: Conversation, texts: Sequence[str], rng: random.Random) -> tuple[Judgment, ...]:
        judgments = []
        for group in GROUPS:
            shown = tuple(rng.sample(range(len(texts)), len(texts)))
            liked = tuple(float(self.worth(prompt, texts[i], group)) for i in shown)
            judgments.append(
                Judgment("comparison", shown, liked, annotator=f"{group}-{rng.randint(1, 5)}", group=group)
            )
        return tuple(judgments)

    def worth(self, prompt: Prompt, text: str, group: str) -> float:
        """What a response is worth to a group: its side, then how well it is argued."""
        side = self.measure(prompt, text)["side"]
        return (side if group == GROUPS[0] else 1 - side) * 2 + self.value(prompt, text)

    def cause(self, record: Any, judgment: Judgment) -> dict[str, float]:
        terms = super().cause(record, judgment)
        sides = [self.measure(record.prompt, record.responses[i].text)["side"] for i in judgment.responses[:2]]
        return terms | {"side": (2.0 if judgment.group == GROUPS[0] else -2.0) * (sides[0] - sides[1])}

    def facts(self, prompt: Conversation) -> dict[str, Any]:
        dilemma = read(prompt)
        return {"values": list(dilemma.values) if dilemma else []}


def read(prompt: Prompt) -> Dilemma | None:
    """The dilemma that the last user turn tells of, or None."""
    text = next((m.content for m in reversed(as_prompt(prompt)) if m.role in ("user", "text")), "")
    return next((d for d in DILEMMAS if d.situation in text), None)


def _said(text: str, templates: Sequence[str], **slots: str) -> bool:
    low = text.casefold()
    return any(template.format(**slots).casefold() in low for template in templates)
