"""Objectives: differentiable losses over the log-probabilities of responses, one loss per example.

In comes a bundle of log-probabilities (`core.objective`), out goes a loss of shape [n]. To add one, decorate a
function from options to an `Objective` with `@objective("name")`; over pairs it is a few lines on `pairwise`. A
`@wrapper("name")` makes one from another, as in ``lcpo(dpo)``.
"""

from accordance.objectives.bco import bco
from accordance.objectives.compose import SumOfLosses, get_objective, parts_of, weighted_sum
from accordance.objectives.degree import spo
from accordance.objectives.density import density_ratio_weights
from accordance.objectives.distillation import adpa, dckd
from accordance.objectives.distributional import f_dpg
from accordance.objectives.divergences import Divergence, divergence_names, get_divergence
from accordance.objectives.expression import Term, known_options, parse_objective, term_names
from accordance.objectives.games import egpo, inpo, mnpo, sppo
from accordance.objectives.language import coh, cut, flagged_tokens, hindsight_prompt
from accordance.objectives.listwise import plackett_luce, pro
from accordance.objectives.multilevel import distinguishing, mapl
from accordance.objectives.mutual import mutual_information, sami
from accordance.objectives.on_policy import pair_weights, wpo
from accordance.objectives.online import Extragradient, over_lists
from accordance.objectives.parts import (
    Score,
    exo_loss,
    hinge_loss,
    identity,
    likelihood,
    log_odds,
    log_prob,
    log_ratio,
    log_ratio_modulated,
    log_sigmoid,
    margin,
    pairwise,
    squared,
    unbiased_log_sigmoid,
)
from accordance.objectives.policy_gradient import (
    advantages,
    dapo,
    dr_grpo,
    grao,
    grpo,
    gspo,
    policy_gradient,
    reinforce,
    reinforce_plus_plus,
    rloo,
)
from accordance.objectives.ppo import ValueHead, ppo
from accordance.objectives.ppo_gae import gae, token_rewards, whitened
from accordance.objectives.preference import (
    aot,
    aot_unpaired,
    apo_down,
    apo_zero,
    bco_pair,
    cpo,
    discopop,
    dpo,
    exo_pair,
    f_dpo,
    hinge,
    ipo,
    ln_dpo,
    nca,
    orpo,
    robust,
    simpo,
)
from accordance.objectives.registry import (
    Option,
    objective,
    objective_names,
    objective_options,
    wrapper,
    wrapper_names,
)
from accordance.objectives.reward_loss import pairwise_reward_loss
from accordance.objectives.reweight import conflict, focal, label_confidence, lcpo
from accordance.objectives.single import apo_zero_unpaired, kto, sft
from accordance.objectives.soft import soft
from accordance.objectives.token_level import sparsepo, tdpo
from accordance.objectives.workers import across_workers

__all__ = [
    "Divergence",
    "Extragradient",
    "Option",
    "Score",
    "SumOfLosses",
    "Term",
    "ValueHead",
    "across_workers",
    "adpa",
    "advantages",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "apo_zero_unpaired",
    "bco",
    "bco_pair",
    "coh",
    "conflict",
    "cpo",
    "cut",
    "dapo",
    "dckd",
    "density_ratio_weights",
    "discopop",
    "distinguishing",
    "divergence_names",
    "dpo",
    "dr_grpo",
    "egpo",
    "exo_loss",
    "exo_pair",
    "f_dpg",
    "f_dpo",
    "flagged_tokens",
    "focal",
    "gae",
    "get_divergence",
    "get_objective",
    "grao",
    "grpo",
    "gspo",
    "hindsight_prompt",
    "hinge",
    "hinge_loss",
    "identity",
    "inpo",
    "ipo",
    "known_options",
    "kto",
    "label_confidence",
    "lcpo",
    "likelihood",
    "ln_dpo",
    "log_odds",
    "log_prob",
    "log_ratio",
    "log_ratio_modulated",
    "log_sigmoid",
    "mapl",
    "margin",
    "mnpo",
    "mutual_information",
    "nca",
    "objective",
    "objective_names",
    "objective_options",
    "orpo",
    "over_lists",
    "pair_weights",
    "pairwise",
    "pairwise_reward_loss",
    "parse_objective",
    "parts_of",
    "plackett_luce",
    "policy_gradient",
    "ppo",
    "pro",
    "reinforce",
    "reinforce_plus_plus",
    "rloo",
    "robust",
    "sami",
    "sft",
    "simpo",
    "soft",
    "sparsepo",
    "spo",
    "sppo",
    "squared",
    "tdpo",
    "term_names",
    "token_rewards",
    "unbiased_log_sigmoid",
    "weighted_sum",
    "whitened",
    "wpo",
    "wrapper",
    "wrapper_names",
]
