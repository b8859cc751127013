"""Which objectives can learn from rollouts, and how: lists as they are, pairs through `over_lists`, or not and why."""

from __future__ import annotations

from typing import Any

from accordance.core.errors import ConfigError
from accordance.core.objective import CrossLogps, ListLogps, Objective, PairLogps, UnaryLogps
from accordance.objectives import over_lists, parts_of, weighted_sum
from accordance.training.history import history_columns
from accordance.training.rollouts import RolloutOptions

#: Extras that the rollouts themselves supply to an objective. All labels are the reward's, who is one annotator.
_SUPPLIED = {"chosen_win_rate", "rejected_win_rate", "answer", "annotator"}


def online_objective(objective: Objective[Any], options: RolloutOptions) -> Objective[ListLogps]:
    """The objective as one over rollouts: as it is over lists, through pairs where it compares two answers.

    Raises:
        ConfigError: rollouts can't feed it.
    """
    reason = _why_not(objective)
    if reason:
        raise ConfigError(
            f"{objective.name} can't learn from rollouts: {reason}",
            where="objective",
            expected="an objective over lists (grpo, rloo, f_dpg, ...) or pairs (dpo, egpo, ...)",
        )
    past = history_columns(objective)
    if options.history_steps is not None and not past:
        raise ConfigError(
            f"history_steps has no effect: {objective.name} looks back to no past policy", where="history_steps"
        )
    if past and options.extragradient:
        raise ConfigError(
            f"{objective.name} looks back, and every other step of an extragradient update is taken back",
            where="extragradient",
        )
    if objective.bundle is PairLogps:
        soft = "chosen_win_rate" in objective.columns
        parts = parts_of(objective)
        if len(parts) > 1:
            return weighted_sum([(over_lists(p, options.pairing, ties=soft), w) for p, w in parts])
        return over_lists(objective, options.pairing, ties=soft)
    if "pairing" in options.model_fields_set:
        raise ConfigError(f"pairing has no effect on {objective.name}: it reads whole lists", where="pairing")
    return objective


def _why_not(objective: Objective[Any]) -> str:
    """Why rollouts can't feed an objective; empty where they can."""
    if objective.arrange is not None:
        return "it sets recorded answers under other prompts, or beside changed copies of them"
    if objective.own_answers:
        return "it holds recorded answers against the policy's own, and rollouts have no recorded ones"
    if {"teacher_kl", "advantage"} & set(objective.whole):
        return "it learns from a teacher's words at each token, so that a reward would have no effect"
    if objective.bundle is CrossLogps:
        return "it takes answers written under several principles each, and a rollout's are all to one prompt"
    if objective.bundle is UnaryLogps and objective.labels:
        return "it takes thumbs, and nothing says from which reward on an answer is a good one"
    if objective.bundle is UnaryLogps:
        return "it imitates every answer alike, so that a reward would have no effect"
    known = _SUPPLIED | {
        f"{name}_{side}" for name in history_columns(objective) for side in ("chosen", "rejected")
    }
    missing = [name for name in objective.columns if name not in known]
    return f"it reads {', '.join(missing)}, which records carry and rollouts do not" if missing else ""
