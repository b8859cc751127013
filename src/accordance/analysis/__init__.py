"""What preferences encode: Records come in, a Report goes out, with effects, intervals and null tests.

`explain` is the pipeline: feature makers -> signed differences -> controlled regression -> Report. To add a way of
looking, write a `FeatureMaker` (anything with `differences(table)`) and pass it in `features=`.
Beside it: `inverse_constitution` (ICAI), `SparseFeatures` (WIMHF), `profile`, `dissect`, `wording` (AdParaphrase).
"""

from accordance.analysis.aggregation import People, aggregation_report, annotator_reliability, model_comparisons
from accordance.analysis.dissect import Dissection, dissect
from accordance.analysis.explain import Explanation, analyse, explain
from accordance.analysis.features import ByResponse, Differences, FeatureMaker, Given, JudgeRatings
from accordance.analysis.icai import Constitution, inverse_constitution
from accordance.analysis.nulls import Nulls, null_tests, shuffled
from accordance.analysis.paraphrase import Votes, Wording, wording
from accordance.analysis.principles import PrincipleJudge, ScriptedJudge
from accordance.analysis.profile import Profile, align_profiles, profile
from accordance.analysis.regression import Effects, each, joint, lasso, logit
from accordance.analysis.riding import Riding, riding
from accordance.analysis.slopes import GroupEffects, Slopes, by_group, random_slopes
from accordance.analysis.table import PairTable
from accordance.analysis.text import LENGTH, TextFeatures
from accordance.analysis.wimhf import SparseFeatures

__all__ = [
    "LENGTH",
    "ByResponse",
    "Constitution",
    "Differences",
    "Dissection",
    "Effects",
    "Explanation",
    "FeatureMaker",
    "Given",
    "GroupEffects",
    "JudgeRatings",
    "Nulls",
    "PairTable",
    "People",
    "PrincipleJudge",
    "Profile",
    "Riding",
    "ScriptedJudge",
    "Slopes",
    "SparseFeatures",
    "TextFeatures",
    "Votes",
    "Wording",
    "aggregation_report",
    "align_profiles",
    "analyse",
    "annotator_reliability",
    "by_group",
    "dissect",
    "each",
    "explain",
    "inverse_constitution",
    "joint",
    "lasso",
    "logit",
    "model_comparisons",
    "null_tests",
    "profile",
    "random_slopes",
    "riding",
    "shuffled",
    "wording",
]
