"""Scenes: sorts of prompts of the small world beyond single questions, each with a writer, a measure and records.

In go a name and a seed; out come prompts, answers with chosen attributes, records with judgments whose causes are
known. To add one: a class under `Scene` in a file here, and its name in `SCENES`.
"""

from accordance.core.errors import unknown
from accordance.lab.scenes.base import Scene
from accordance.lab.scenes.critiques import Critiques
from accordance.lab.scenes.dialogues import Dialogues
from accordance.lab.scenes.dilemmas import Dilemmas
from accordance.lab.scenes.evidence import Evidence, Unknowns
from accordance.lab.scenes.instructions import Instructions
from accordance.lab.scenes.personas import Domains, Personas
from accordance.lab.scenes.steps import Steps

#: Every scene by its name; records and scorers are called ``lab:`` and the name.
SCENES: dict[str, Scene] = {
    made.label: made
    for made in (
        Critiques(),
        Steps(),
        Dialogues(),
        Instructions(),
        Personas(),
        Domains(),
        Unknowns(),
        Evidence(),
        Dilemmas(),
    )
}


def scene(name: str) -> Scene:
    """A scene by its name, with or without ``lab:``.

    Raises:
        ConfigError: there is none of that name.
    """
    label = name.removeprefix("lab:")
    if label not in SCENES:
        raise unknown("scene of the lab", label, SCENES)
    return SCENES[label]


__all__ = [
    "SCENES",
    "Critiques",
    "Dialogues",
    "Dilemmas",
    "Domains",
    "Evidence",
    "Instructions",
    "Personas",
    "Scene",
    "Steps",
    "Unknowns",
    "scene",
]
