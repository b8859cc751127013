"""Many goals -> one update: losses through their gradients, rewards through a scalar.

In come m losses (their gradients, seen through the m x m Gram matrix) or K rewards per response (with what the
prompt says); out go coefficients of one direction, or one reward. To add a gradient balancer see `directions`, to
add a reward combiner see `rewards`.
"""

from accordance.balancing.directions import (
    GradientBalancer,
    balancer_names,
    balancer_options,
    cagrad,
    clipped_mixture,
    get_balancer,
    maxmin,
    mgda,
    raco,
    weighted_sum,
)
from accordance.balancing.gradients import GradientSet
from accordance.balancing.groups import GroupWeights, WorstGroup
from accordance.balancing.lsc import LogSigmoidCentred, log_sigmoid_centred
from accordance.balancing.orchestrator import PreferenceOrchestrator
from accordance.balancing.palette import Palette, solve_palette
from accordance.balancing.rewards import CombinedScorer, RewardCombiner, WeightedRewards
from accordance.balancing.solver import minimise_on_simplex
from accordance.balancing.transforms import FrozenNorm, ReferenceQuantile, RewardTransform, RunningNorm
from accordance.balancing.trifactor import Dimension, TriFactorWeights

__all__ = [
    "CombinedScorer",
    "Dimension",
    "FrozenNorm",
    "GradientBalancer",
    "GradientSet",
    "GroupWeights",
    "LogSigmoidCentred",
    "Palette",
    "PreferenceOrchestrator",
    "ReferenceQuantile",
    "RewardCombiner",
    "RewardTransform",
    "RunningNorm",
    "TriFactorWeights",
    "WeightedRewards",
    "WorstGroup",
    "balancer_names",
    "balancer_options",
    "cagrad",
    "clipped_mixture",
    "get_balancer",
    "log_sigmoid_centred",
    "maxmin",
    "mgda",
    "minimise_on_simplex",
    "raco",
    "solve_palette",
    "weighted_sum",
]
