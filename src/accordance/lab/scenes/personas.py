"""System messages with principles and personas, and two domains whose norms are opposed."""

from __future__ import annotations

import random
from typing import Any

from accordance.core.policy import Prompt
from accordance.core.record import Judgment, Message, Record, as_prompt
from accordance.lab.principles import PERSONAS, PRINCIPLES, Persona, Principle, wished
from accordance.lab.questions import sentences
from accordance.lab.scenes.base import Conversation, Heeding, asked_plainly, written

_OPENINGS = ("You are a small helper.", "You are a helpful assistant.", "")


class Personas(Heeding):
    """A principle or a persona in the system message decides between two right answers.

    Records come in twins: the same question and answers under the opposite principle or persona, with the opposite
    judgment, so that nothing but the system message can be its cause.
    """

    label = "personas"
    about = "system messages with principles and personas; twins under the opposite one"

    def ask(self, rng: random.Random) -> Conversation:
        return self._under(rng.choice(_holders()), rng.choice(_OPENINGS), asked_plainly(rng))

    def wishes(self, prompt: Prompt) -> dict[str, float]:
        return wished(" ".join(m.content for m in as_prompt(prompt) if m.role == "system"))

    def some(self, rng: random.Random) -> list[Record]:
        one, opening, question = rng.choice(_holders()), rng.choice(_OPENINGS), asked_plainly(rng)
        other = (PRINCIPLES if isinstance(one, Principle) else PERSONAS)[one.opposite]
        texts = self.opposed(self._under(one, opening, question), rng)
        rng.shuffle(texts)
        return [self._judged(self._under(it, opening, question), it, texts, rng) for it in (one, other)]

    def _judged(
        self, prompt: Conversation, holder: Principle | Persona, texts: list[str], rng: random.Random
    ) -> Record:
        kind = "principle" if isinstance(holder, Principle) else "persona"
        said = holder.text if isinstance(holder, Principle) else holder.name
        judgment: Judgment = self.compared(prompt, texts, rng, **{kind: said})
        return Record(prompt, written(texts), (judgment,), extras={kind: holder.name})

    @staticmethod
    def _under(holder: Principle | Persona, opening: str, question: str) -> Conversation:
        return (Message("system", f"{opening} {holder.text}".strip()), Message("user", question))


#: Place -> (what is said of it, what is good manners there).
DOMAINS: dict[str, tuple[str, dict[str, float]]] = {
    "court": ("We are at the royal court.", {"formality": 1.0, "elaboration": 1.0}),
    "fair": ("We are at the village fair.", {"formality": 0.0, "elaboration": 0.0}),
}


class Domains(Heeding):
    """The royal court wants formal and full answers, the village fair playful and short ones.

    The place is named before the question and stands in the extras as ``domain``; the people of a place judge what
    is said there, and are a group.
    """

    label = "domains"
    about = "two places with opposed norms: the royal court and the village fair"

    def ask(self, rng: random.Random) -> Conversation:
        said, _ = DOMAINS[rng.choice(list(DOMAINS))]
        return (Message("user", f"{said} {asked_plainly(rng)}"),)

    def wishes(self, prompt: Prompt) -> dict[str, float]:
        place = domain(prompt)
        return DOMAINS[place][1] if place else {}

    def judge(self, prompt: Conversation, texts: Any, rng: random.Random) -> tuple[Judgment, ...]:
        place = domain(prompt)
        return (self.compared(prompt, texts, rng, annotator=f"{place}-{rng.randint(1, 5)}", group=place),)

    def facts(self, prompt: Conversation) -> dict[str, Any]:
        return {"domain": domain(prompt)}


def domain(prompt: Prompt) -> str | None:
    """The place that the last user turn names, or None."""
    text = next((m.content for m in reversed(as_prompt(prompt)) if m.role in ("user", "text")), "")
    said = set(sentences(text))
    return next((name for name, (words, _) in DOMAINS.items() if words in said), None)


def _holders() -> list[Principle | Persona]:
    return [*PRINCIPLES.values(), *PERSONAS.values()]
