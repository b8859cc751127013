"""What the scripted writer does with notes in its context, told how to weigh them, and how the judge rates that."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping

from accordance.core.requests import Request, one
from accordance.lab.acts import claims, values
from accordance.lab.questions import Question, parse
from accordance.lab.scenes.evidence import DISAGREE, RELIABLE, Evidence, told

#: Words of an instruction -> the way of weighing notes against memory that it asks for.
WAYS: Mapping[str, str] = {
    "by what the passages say": "context",
    "by what you knew before": "memory",
    "what most of them say": "majority",
    "best supported": "source",
    "as the thesis": "both",
}
_ANSWER, _REASONING = "final answer is the one in the notes", "whether the reasoning is sound"


def weigh(prompt: str, instruction: str, knowledge: float, seed: int, rng: random.Random) -> str | None:
    """An answer to a question of fact, by the way of weighing that is asked for; None where none is asked for.

    Memory holds a share `knowledge` of the facts, and something false for the others. The answer ends with a line
    ``ANSWER:``. Whoever weighs sources takes the almanac's word, and says so where the notes disagree; whoever also
    has a thesis keeps to it where there is no almanac.
    """
    way = next((way for words, way in WAYS.items() if words in instruction), None)
    question = parse(prompt)
    if way is None or question.kind != "fact":
        return None
    said, known = told(prompt), _memory(question, knowledge, seed)
    found = list(said.values())
    if way == "memory" or not found:
        value = known
    elif way == "context":
        value = rng.choice(found)
    elif way == "majority":
        most = max(Counter(found).values())
        value = rng.choice([v for v in dict.fromkeys(found) if found.count(v) == most])
    else:
        value = said.get(RELIABLE, found[0] if way == "source" else known)
    warned = way in ("source", "both") and len(set(found)) > 1
    lines = [rng.choice(DISAGREE)] * warned + [rng.choice(claims(question, value))[0]]
    return f"{' '.join(lines)}\nANSWER: {value}"


def rated(request: Request, text: str) -> float | None:
    """How right or how sound an answer over notes is, in [0, 1]; None where the request asks for neither."""
    asked = request.instructions.casefold()
    if _ANSWER in asked and "notes" in request.parts:
        true = request.parts["notes"].rpartition(":")[2].strip().casefold()
        said = (one(text, "ANSWER") or text).casefold()
        return float(bool(true) and re.search(rf"(?<!\w){re.escape(true)}(?!\w)", said) is not None)
    if _REASONING in asked:
        return Evidence().measure(request.parts["prompt"], text)["apt"]
    return None


def _memory(question: Question, knowledge: float, seed: int) -> str:
    own = random.Random(f"remembers {seed} {question.topic} {question.point}")
    if own.random() < knowledge:
        return question.answer
    return own.choice([value for value in values(question) if value != question.answer])
