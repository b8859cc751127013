"""Records -> Records: select, weigh, route, relabel, balance and order feedback, with an account of every row.

A `Pipeline` of steps goes over Records and returns `Curated`: new Records, and what was done to which row and
why, from which `undo()` gives back the input. To add a step, write a `Step` and register it with `@step("name")`.
"""

from accordance.curation.anyprefer import Anyprefer, FunctionTool, Tool
from accordance.curation.curry import Curriculum, CurryPairs, curry_pairs, pairs_from_ranking, stages
from accordance.curation.dialectical import DialecticalAlignment, Fact, defence, evidence_cases
from accordance.curation.hyper import HybridRouter, Route, draw_mixes, route_features, score_mixes
from accordance.curation.isa import Sample, Select, information_sample, rarity, two_gaussians
from accordance.curation.janus import Multifaceted
from accordance.curation.mora import Diagnosis, Expansion, Rewriter, diagnose, expand
from accordance.curation.pipeline import Pipeline, Plan, Step, Tools, make_step, step, step_kinds
from accordance.curation.pipeline_account import Curated, Done, Touch
from accordance.curation.pipeline_files import (
    read_pipeline,
    recipe_text,
    save_curated,
    save_pipeline,
    undo_folder,
)
from accordance.curation.pipeline_measures import MEASURES, measure
from accordance.curation.pipeline_report import curation_report
from accordance.curation.self_align import SelfAlign, VerboseCloning
from accordance.curation.steps_balance import Balance, LengthBalance
from accordance.curation.steps_clean import DropCycles, DropDuplicates, DropTies, LimitLength
from accordance.curation.steps_instruct import DropSimilar, KeepBest, Novel, mix, rouge_l, self_instruct
from accordance.curation.steps_people import Agree, DropDisputed, Relabel, WeighAnnotators
from accordance.curation.survey import Entry, Recipe, recipe_book
from accordance.curation.tutoring import Problem, Student, Tutor, tutoring_pairs

__all__ = [
    "MEASURES",
    "Agree",
    "Anyprefer",
    "Balance",
    "Curated",
    "Curriculum",
    "CurryPairs",
    "Diagnosis",
    "DialecticalAlignment",
    "Done",
    "DropCycles",
    "DropDisputed",
    "DropDuplicates",
    "DropSimilar",
    "DropTies",
    "Entry",
    "Expansion",
    "Fact",
    "FunctionTool",
    "HybridRouter",
    "KeepBest",
    "LengthBalance",
    "LimitLength",
    "Multifaceted",
    "Novel",
    "Pipeline",
    "Plan",
    "Problem",
    "Recipe",
    "Relabel",
    "Rewriter",
    "Route",
    "Sample",
    "Select",
    "SelfAlign",
    "Step",
    "Student",
    "Tool",
    "Tools",
    "Touch",
    "Tutor",
    "VerboseCloning",
    "WeighAnnotators",
    "curation_report",
    "curry_pairs",
    "defence",
    "diagnose",
    "draw_mixes",
    "evidence_cases",
    "expand",
    "information_sample",
    "make_step",
    "measure",
    "mix",
    "pairs_from_ranking",
    "rarity",
    "read_pipeline",
    "recipe_book",
    "recipe_text",
    "rouge_l",
    "route_features",
    "save_curated",
    "save_pipeline",
    "score_mixes",
    "self_instruct",
    "stages",
    "step",
    "step_kinds",
    "tutoring_pairs",
    "two_gaussians",
    "undo_folder",
]
