"""What preferences encode: Records come in, a Report goes out, with effects, intervals and null tests.

`explain` is the pipeline: feature makers -> signed differences -> controlled regression -> Report. To add a way of
looking, write a `FeatureMaker` (anything with `differences(table)`) and pass it in `features=`.
"""

from accordance.analysis.explain import Explanation, analyse, explain
from accordance.analysis.features import ByResponse, Differences, FeatureMaker, Given, JudgeRatings
from accordance.analysis.nulls import Nulls, null_tests, shuffled
from accordance.analysis.regression import Effects, each, joint, lasso, logit
from accordance.analysis.slopes import GroupEffects, Slopes, by_group, random_slopes
from accordance.analysis.table import PairTable
from accordance.analysis.text import LENGTH, TextFeatures

__all__ = [
    "LENGTH",
    "ByResponse",
    "Differences",
    "Effects",
    "Explanation",
    "FeatureMaker",
    "Given",
    "GroupEffects",
    "JudgeRatings",
    "Nulls",
    "PairTable",
    "Slopes",
    "TextFeatures",
    "analyse",
    "by_group",
    "each",
    "explain",
    "joint",
    "lasso",
    "logit",
    "null_tests",
    "random_slopes",
    "shuffled",
]
