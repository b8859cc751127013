"""The lab: a small world whose truth is known, a base model of it, and people with known tastes.

In go seeds; out come prompts, answers with chosen attributes, judgments by simulated people, and the embedded
base model. Scenes (`scenes`) are sorts of prompts beyond single questions: dialogues, critiques, solutions in steps.
What is best in tables of rewards, `optima` says exactly. A new kind of question goes into `questions` and `writer`,
a new attribute into `attributes`, a new group of people into `people.GROUPS`, a new scene into `scenes`. The base
model is made by `accordance.lab.pretrain.pretrain`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from accordance.lab import world
from accordance.lab.causes import Cause
from accordance.lab.cycles import CycleScorer, cyclic_population
from accordance.lab.people import (
    GROUPS,
    SHARED,
    Group,
    Person,
    Population,
    PopulationScorer,
    default_population,
)

if TYPE_CHECKING:
    from accordance.lab.collect import judged, make_records
    from accordance.lab.embedded import base_answers, base_model_path, demo_records
    from accordance.lab.scenes import SCENES, Scene, scene
    from accordance.lab.tokenizer import build_tokenizer

# These load torch or transformers, which the world itself does without.
_HOMES = {
    "base_answers": "embedded",
    "base_model_path": "embedded",
    "build_tokenizer": "tokenizer",
    "demo_records": "embedded",
    "judged": "collect",
    "make_records": "collect",
    "SCENES": "scenes",
    "Scene": "scenes",
    "scene": "scenes",
}

__all__ = [
    "GROUPS",
    "SCENES",
    "SHARED",
    "Cause",
    "CycleScorer",
    "Group",
    "Person",
    "Population",
    "PopulationScorer",
    "Scene",
    "base_answers",
    "base_model_path",
    "build_tokenizer",
    "cyclic_population",
    "default_population",
    "demo_records",
    "judged",
    "make_records",
    "scene",
    "world",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'accordance.lab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"accordance.lab.{_HOMES[name]}"), name)
