"""How the scripted writer makes up questions: of a type and about a topic, or unlike some examples."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from accordance.core.requests import Request
from accordance.lab.questions import KINDS, parse, questions, sample_prompt

#: Words of a type of question -> the kind of the world's questions that comes nearest.
NEAREST: Mapping[str, str] = {
    "calculation": "sum",
    "logic": "sum",
    "number": "sum",
    "harmful": "harm",
    "law": "harm",
    "health": "howto",
    "body": "howto",
    "opinion": "taste",
    "culture": "taste",
    "comparison": "taste",
    "recent": "unknown",
    "day to day": "unknown",
    "cause": "unknown",
    "impossible": "unknown",
    "creative": "chat",
    "itself": "chat",
}


def topics(request: Request, rng: random.Random) -> str:
    """Lines ``TOPIC:``, as many as are asked for, each a topic of the world that fits the type."""
    found = re.search(r"Name (\d+) topics", request.instructions)
    known = sorted({question.topic for question in questions()[_kind(request.parts["type"])]})
    many = min(int(found.group(1)) if found else 10, len(known))
    return "\n".join(f"TOPIC: {topic}" for topic in rng.sample(known, many))


def question(request: Request, rng: random.Random) -> str:
    """A line ``QUESTION:`` with a question of the world: of a type and topic, or of the kind of one of the examples."""
    if "type" in request.parts:
        some = questions()[_kind(request.parts["type"])]
        about = [each for each in some if each.topic == request.parts.get("topic")]
        return f"QUESTION: {rng.choice(about or some).text}"
    kinds = [parse(line).kind for line in request.parts["examples"].splitlines()]
    known = [kind for kind in kinds if kind in KINDS]
    return f"QUESTION: {sample_prompt(rng, rng.choice(known) if known else None)}"


def _kind(type: str) -> str:
    return next((kind for words, kind in NEAREST.items() if words in type), "fact")
