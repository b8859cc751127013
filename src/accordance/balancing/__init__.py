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
from accordance.balancing.solver import minimise_on_simplex

__all__ = [
    "GradientBalancer",
    "GradientSet",
    "balancer_names",
    "balancer_options",
    "cagrad",
    "clipped_mixture",
    "get_balancer",
    "maxmin",
    "mgda",
    "minimise_on_simplex",
    "raco",
    "weighted_sum",
]
