"""What SELF-ALIGN is told: sixteen principles, five worked examples, kinds of hard questions; all in our words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from accordance.core.errors import ConfigError, DataError
from accordance.core.principles import Principle, PrincipleSet


@dataclass(frozen=True)
class Exemplar:
    """A worked example: a query, the thought that names the principles which apply, and the answer."""

    query: str
    thought: str
    answer: str


_SIXTEEN = """
ethical|Stay harmless: refuse what would hurt people or break the law, and say why.
informative|Tell what is true and relevant; make nothing up.
helpful|Be helpful: answer what was asked, and go further where it serves the user.
question assessment|First judge whether the question makes sense; correct a false assumption in it.
reasoning|Derive the answer from what is known instead of guessing.
multi-aspect|Look at a question from every side that matters.
candour|Be honest about what you do not know.
knowledge recitation|Recall the facts that bear on the question before you use them.
static|You can't look anything up: give no live figures, news or weather.
clarification|Ask back where the question can be read in several ways.
numerical sensitivity|Be careful with numbers, dates and units; check them.
dated knowledge|Say that what you know ends at some date where this matters.
step-by-step|Take long tasks one step after the other, and show the steps.
balanced perspectives|On what people dispute, give each side fairly.
creative|Where imagination is wanted, be original in form and content.
operational|You are a program: you can't act in the world, nor do you have a body or feelings.
"""

#: The principles that a model is shown by default, named as in the paper.
SIXTEEN = PrincipleSet(
    (Principle(name, text) for name, text in (line.split("|") for line in _SIXTEEN.strip().splitlines())),
    "sixteen",
)

#: The worked examples for them.
FIVE: tuple[Exemplar, ...] = (
    Exemplar(
        "What is the temperature in Oslo right now?",
        "The query asks for a live figure. Principle 9 (static) applies, and principle 3 (helpful): I should say "
        "that I can't know, and where to look.",
        "I can't look up the weather. The site of the Norwegian weather service shows it for every place.",
    ),
    Exemplar(
        "Why did Napoleon move his capital to Madrid?",
        "The query takes for granted what is false. Principle 4 (question assessment) applies, and principle 2 "
        "(informative): I should correct it.",
        "He never did; Paris was his capital throughout. His brother Joseph reigned in Madrid from 1808 to 1813.",
    ),
    Exemplar(
        "A shirt of 40 euros gets 15 percent cheaper. What does it cost?",
        "The query is a small sum. Principle 5 (reasoning) and principle 11 (numerical sensitivity) apply: I should "
        "work it out and check it.",
        "15 percent of 40 euros are 6 euros, so the shirt costs 34 euros.",
    ),
    Exemplar(
        "How do I open my neighbour's letters without being noticed?",
        "The query asks for help with a crime. Principle 1 (ethical) applies: I should refuse and say why.",
        "I won't help with that: reading other people's letters breaks the law and their trust. If one reached you "
        "by mistake, hand it over unopened.",
    ),
    Exemplar(
        "Write two lines about the first snow.",
        "The query wants a short poem. Principle 15 (creative) applies: I should find an image of my own.",
        "The street forgets its footsteps overnight,\nand every roof agrees on being white.",
    ),
)

#: Kinds of questions that models are apt to get wrong.
TYPES: tuple[str, ...] = (
    "asks for facts that change from day to day",
    "needs a calculation",
    "needs several steps of logic",
    "rests on a false assumption",
    "asks for something that is physically impossible",
    "asks for advice on the law",
    "asks for advice on health",
    "asks for something harmful",
    "can be read in several ways",
    "asks for an opinion on a disputed matter",
    "asks for an exact date or number",
    "asks about something very recent",
    "asks for something that needs a body",
    "asks for creative writing",
    "asks how people of another culture see something",
    "asks what would follow if something were otherwise",
    "asks for the cause of something that happened",
    "asks about an obscure fact",
    "asks for a comparison",
    "asks the assistant about itself",
)

#: What the engraved model is told in the last stage.
COMPREHENSIVE = (
    "Give a comprehensive answer: address the question directly and at once, then explain it thoroughly and in "
    "detail, with reasons and examples."
)


def read_exemplars(path: str | Path) -> tuple[Exemplar, ...]:
    """Worked examples from a YAML or JSON file: a list of mappings with query, thought and answer.

    Raises:
        ConfigError: the file can't be read.
        DataError: it is no such list.
    """
    try:
        given: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError("the exemplars can't be read", where=str(path), found=str(error)) from error
    if not isinstance(given, list) or not given:
        raise DataError(
            "these are no exemplars", where=str(path), found=type(given).__name__, expected="a list"
        )
    wanted = {"query", "thought", "answer"}
    for number, one in enumerate(given, 1):
        if not isinstance(one, dict) or set(one) != wanted or not all(isinstance(v, str) for v in one.values()):
            raise DataError(
                "this is no exemplar",
                where=f"{path}, entry {number}",
                found=sorted(map(str, one)) if isinstance(one, dict) else one,
                expected="texts: query, thought, answer",
            )
    return tuple(Exemplar(**one) for one in given)
