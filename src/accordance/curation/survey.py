"""The survey's map: what data an alignment needs, where each part of it stands here, and recipes to start from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accordance.core.catalogue import system


@dataclass(frozen=True)
class Entry:
    """One line of the map.

    Attributes:
        room: of the house.
        branch: of the survey: where data come from, how they are managed, how one trains and evaluates.
        name: what it is.
        where: ``module:name`` of what does it here; empty where nothing does yet.
        how: how to use it, or what is missing.
    """

    room: str
    branch: str
    name: str
    where: str
    how: str

    @property
    def there(self) -> bool:
        """Whether what `where` names can be imported."""
        if not self.where:
            return False
        module, _, name = self.where.partition(":")
        try:
            return hasattr(importlib.import_module(module), name)
        except ImportError:
            return False


@dataclass(frozen=True)
class Recipe:
    """Data makers, a trainer and an evaluation, as data for `accord curate`, `accord align` and `accord evaluate`.

    Attributes:
        name: of the recipe.
        purpose: when to take it.
        needs: what the records must hold.
        curate: steps, as `Pipeline.of` takes them.
        align: options, as a recipe of `accord align` has them; model, records and folder are the user's.
    """

    name: str
    purpose: str
    needs: str
    curate: tuple[str | Mapping[str, Any], ...]
    align: Mapping[str, Any] = field(default_factory=dict)


_CLEAN = ("drop_duplicates", {"drop_similar": {"limit": 0.7}})
RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "imitate",
        "a first model from demonstrations: few, clean, diverse",
        "demonstrations",
        _CLEAN,
        {"objective": "sft"},
    ),
    Recipe(
        "imitate the best",
        "a round of reward-ranked fine-tuning (RAFT): imitate the best of k",
        "ratings or rankings of several responses",
        (*_CLEAN, "keep_best"),
        {"objective": "sft"},
    ),
    Recipe(
        "preferences",
        "pairs by people, without what contradicts itself or only says that longer is better",
        "comparisons",
        ("drop_ties", "drop_cycles", "drop_duplicates", "length_balance"),
        {"objective": "dpo"},
    ),
    Recipe(
        "preferences by a crowd",
        "several judgments of each pair: their weighted vote, without what stays disputed",
        "comparisons by several named annotators",
        ("drop_disputed", {"relabel": {"least": 0.6}}, "drop_ties"),
        {"objective": "dpo"},
    ),
    Recipe(
        "a fraction of the pairs",
        "a tenth of the data, chosen for quality and information (S116)",
        "comparisons",
        ("drop_ties", {"select": {"budget": 0.1}}),
        {"objective": "dpo"},
    ),
    Recipe(
        "easy to hard",
        "pairs of rated responses in the order of their gap (S124)",
        "ratings of several responses",
        ("curry_pairs", "curriculum"),
        {"objective": "dpo"},
    ),
    Recipe(
        "whole rankings",
        "rankings as they are, list-wise (S076)",
        "rankings",
        ("drop_duplicates",),
        {"objective": "pro"},
    ),
    Recipe(
        "good and bad in words",
        "both responses, each after a cue that says which it is (S075)",
        "comparisons",
        ("drop_ties",),
        {"objective": "coh"},
    ),
    Recipe(
        "preferences, few weights",
        "an adapter of low rank in place of all weights",
        "comparisons",
        ("drop_ties", "drop_cycles"),
        {"objective": "dpo", "use_peft": True, "lora_r": 8},
    ),
)

_C, _T, _E = "accordance.curation", "accordance.training", "accordance.evaluation"
_CHECKLIST: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "feedback",
        "from people",
        "hand-written sets",
        "accordance.feedback:load_records",
        "any format; kind demonstration",
    ),
    (
        "feedback",
        "from people",
        "user chats",
        "accordance.feedback.wild:WildFeedback",
        "S022: feedback out of logs",
    ),
    ("feedback", "from people", "benchmarks as instructions", "", "templates over NLP benchmarks: not there"),
    (
        "curation",
        "from strong models",
        "self-instruction",
        f"{_C}.steps_instruct:self_instruct",
        "with ROUGE-L below 0.7",
    ),
    (
        "curation",
        "from strong models",
        "input diversity",
        f"{_C}.mora:expand",
        "S144: prompts rewritten to call for more",
    ),
    (
        "curation",
        "from strong models",
        "output quality",
        f"{_C}.anyprefer:Anyprefer",
        "S021: evidence, rank, filter",
    ),
    (
        "feedback",
        "from strong models",
        "rated by a judge",
        "accordance.feedback.ultrafeedback:UltraFeedback",
        "S073",
    ),
    ("curation", "from strong models", "multi-turn self-chat", "", "not there"),
    ("curation", "from strong models", "translation", "", "not there"),
    ("curation", "management", "mixing ratios", f"{_C}.steps_instruct:mix", "shares of several record sets"),
    (
        "curation",
        "management",
        "quality against quantity",
        f"{_C}.isa:Select",
        "step select: ISA and its baselines",
    ),
    (
        "curation",
        "management",
        "scaling with data",
        "accordance.core.scaling:fit_curve",
        "the plateau, and enough()",
    ),
    (
        "curation",
        "management",
        "filtering",
        f"{_C}.steps_clean:DropCycles",
        "drop_ties, drop_cycles, drop_duplicates, ...",
    ),
    ("training", "training", "supervised", "accordance.objectives:sft", "objective sft"),
    (
        "training",
        "training",
        "best of k, imitated",
        f"{_C}.steps_instruct:KeepBest",
        "step keep_best, then sft; again for more rounds",
    ),
    (
        "training",
        "training",
        "reward model and policy gradient",
        "accordance.objectives:grpo",
        "grpo, rloo, dr_grpo, ...",
    ),
    ("training", "training", "pairs", "accordance.objectives:dpo", "the DPO family"),
    ("training", "training", "rankings", "accordance.objectives:pro", "pro, plackett_luce"),
    ("training", "training", "rank and imitate (RRHF)", "", "its hinge over lists is not an objective yet"),
    ("training", "training", "in words", "accordance.objectives:coh", "coh, cut"),
    ("training", "training", "few weights", f"{_T}:TrainingConfig", "use_peft, lora_r, load_in_4bit"),
    ("evaluation", "evaluation", "pairwise wins", f"{_E}:evaluate", "both orders, intervals, groups"),
    ("evaluation", "evaluation", "Elo and Bradley-Terry", "accordance.core.aggregate:elo", "accord aggregate"),
    (
        "evaluation",
        "evaluation",
        "judges in both orders",
        f"{_E}.judging:judge",
        "a PairScorer is shown both orders",
    ),
    ("evaluation", "evaluation", "biases of judges", "accordance.analysis:explain", "length, position, style"),
    ("evaluation", "evaluation", "closed sets with exact metrics", "", "suites are another issue"),
)


@system("S026", "Aligning LLMs survey", paper="arXiv:2307.12966")
def recipe_book() -> tuple[tuple[Entry, ...], tuple[Recipe, ...]]:
    """The survey's three-part map of alignment as it stands here, and the recipes drawn from it.

    What is not there yet stands in the map with an empty `where` and says so.

    Returns:
        The map, a line per branch, and recipes whose steps and options can be run as they are.
    """
    return tuple(Entry(*line) for line in _CHECKLIST), RECIPES
