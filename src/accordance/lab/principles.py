"""Principles and personas: what asks for a manner, in words that can be read back, each with its opposite."""

from __future__ import annotations

from dataclasses import dataclass

from accordance.core.errors import unknown


@dataclass(frozen=True)
class Principle:
    """One demand on how to answer.

    Attributes:
        name: for tables and options.
        text: as it stands in a system message.
        reason: why one would hold it.
        attribute: what it is about.
        value: 1 where it asks for the attribute, 0 where it asks for its contrary.
        opposite: the name of the principle that asks for the contrary.
    """

    name: str
    text: str
    reason: str
    attribute: str
    value: float
    opposite: str


@dataclass(frozen=True)
class Persona:
    """Somebody to be answered.

    Attributes:
        name: for tables and judgments.
        text: as it stands in a system message.
        wishes: attribute -> value that the person likes.
        opposite: the name of a persona who wishes the contrary.
    """

    name: str
    text: str
    wishes: tuple[tuple[str, float], ...]
    opposite: str


_PRINCIPLES = """
courtesy|Be polite.|A kind word costs nothing.|politeness|1|bluntness
bluntness|Be blunt.|Flattery wastes time.|politeness|0|courtesy
dignity|Be formal.|A dignified tone shows respect.|formality|1|play
play|Be playful.|Laughter opens doors.|formality|0|dignity
detail|Answer in detail.|More knowledge makes people free.|elaboration|1|brevity
brevity|Be brief.|Nobody has time to lose.|elaboration|0|detail
caution|Say how sure you are.|Doubt keeps us from error.|hedging|1|confidence
confidence|Speak with confidence.|People need something to hold on to.|hedging|0|caution
"""
_PERSONAS = """
scholar|You speak to a scholar, who likes formal and detailed answers.|formality 1, elaboration 1|child
child|You speak to a child, who likes playful and brief answers.|formality 0, elaboration 0|scholar
grandmother|You speak to a grandmother, who likes polite and detailed answers.|politeness 1, elaboration 1|sailor
sailor|You speak to a sailor, who likes blunt and brief answers.|politeness 0, elaboration 0|grandmother
doctor|You speak to a doctor, who likes formal and cautious answers.|formality 1, hedging 1|gambler
gambler|You speak to a gambler, who likes playful and confident answers.|formality 0, hedging 0|doctor
"""


def _wishes(text: str) -> tuple[tuple[str, float], ...]:
    pairs = (part.split() for part in text.split(", "))
    return tuple((name, float(value)) for name, value in pairs)


#: Name -> principle.
PRINCIPLES: dict[str, Principle] = {
    name: Principle(name, text, reason, attribute, float(value), opposite)
    for name, text, reason, attribute, value, opposite in (
        line.split("|") for line in _PRINCIPLES.strip().splitlines()
    )
}
#: Name -> persona.
PERSONAS: dict[str, Persona] = {
    name: Persona(name, text, _wishes(wishes), opposite)
    for name, text, wishes, opposite in (line.split("|") for line in _PERSONAS.strip().splitlines())
}


def principle(name: str) -> Principle:
    """A principle by its name, or by its text.

    Raises:
        ConfigError: there is none.
    """
    for one in PRINCIPLES.values():
        if name in (one.name, one.text):
            return one
    raise unknown("principle", name, PRINCIPLES)


def wished(text: str) -> dict[str, float]:
    """What the principles and personas in a text ask for: attribute -> value; the later ones win."""
    asks = [(p.text, ((p.attribute, p.value),)) for p in PRINCIPLES.values()]
    asks += [(p.text, p.wishes) for p in PERSONAS.values()]
    found = sorted((text.rfind(words), wishes) for words, wishes in asks if words in text)
    return {name: value for _, wishes in found for name, value in wishes}
