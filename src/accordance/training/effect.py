"""Which options do nothing with the others as they are, and why: they are refused where they are set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accordance.balancing import balancer_options
from accordance.core.errors import ConfigError
from accordance.core.objective import Objective
from accordance.training.distillation import TRAINED_PARTS, without_effect
from accordance.training.history import history_columns
from accordance.training.rollouts import ROLLOUT_OPTIONS
from accordance.training.users import USER_OPTIONS

if TYPE_CHECKING:
    from accordance.training.config import TrainingConfig


def idle_options(config: TrainingConfig, objective: Objective[Any], pairs: bool) -> dict[str, str]:
    """For each option that does nothing in a run, why.

    Args:
        config: the run's options.
        objective: what it trains with.
        pairs: whether that compares two answers, also where it learns from lists of samples.
    """
    lora = [name for name in type(config).model_fields if name.startswith("lora_")]
    balancing = {f"balancer_{name}" for name in ("radius", "temperature")}
    known = {f"balancer_{name}" for name in balancer_options(config.balancer)}
    own = without_effect(objective) - (set() if config.users is None else TRAINED_PARTS)
    reasons: list[tuple[bool, str, Any]] = [
        (not config.use_peft, "no adapter is trained", lora),
        (config.save_strategy != "steps", f"save_strategy={config.save_strategy}", ["save_steps"]),
        (config.save_strategy == "no", "no checkpoint is written", ["save_total_limit"]),
        (config.eval_strategy == "no", "no held-out loss is measured", ["per_device_eval_batch_size"]),
        (_constant(config), "the learning rate is constant", ["warmup_steps"]),
        (not config.reference_cache, "nothing is kept on disk", ["cache_dir"]),
        (True, f"{objective.name} has no use for it", own),
        (
            not objective.reference,
            f"{objective.name} needs no reference",
            ["reference", "reference_cache", "cache_dir", "ref_model_sync_steps"],
        ),
        (True, f"balancer={config.balancer}", balancing - known),
        (config.balance_over == "objective", "weights of a sum stand in it", ["balance_weights"]),
        (config.heads is None, "there are no heads", ["head_noise"]),
        (config.users is None, "there are no users", USER_OPTIONS),
        (config.loop is None, "there is no loop", ["loop_options"]),
        (not config.online, "the policy learns from records", ROLLOUT_OPTIONS),
        (
            config.online,
            "what is sampled has never been seen before",
            ["reference_cache", "cache_dir", "eval_strategy", "balance_over"],
        ),
        (not pairs, f"{objective.name} reads whole lists", ["pairing"]),
        (not history_columns(objective), f"{objective.name} looks back to no past policy", ["history_steps"]),
        (config.reward_calibration is None, "rewards are not calibrated", ["reward_for"]),
        (
            config.reward_calibration is not None,
            "calibrated rewards are compared with the policy before training already",
            ["reference_baseline"],
        ),
        (config.reward_for == "one", "reward_for=one takes rewards as they are", ["reward_sharpness"]),
        (not config.ptx_coef, "ptx_coef=0", ["ptx_data"]),
        (config.balance_over != "objective", "balance_over takes all judgments, apart", ["attribute"]),
        (_blind(config, objective), "no judgment of the records is read", ["attribute"]),
    ]
    return {name: why for holds, why, names in reversed(reasons) if holds for name in names}


def refuse_idle(config: TrainingConfig, idle: dict[str, str]) -> None:
    """Refuse options that are set to something else than they are by default and do nothing.

    Raises:
        ConfigError: there is one.
    """
    for name in sorted(config.model_fields_set & idle.keys()):
        if getattr(config, name) != type(config).model_fields[name].get_default(call_default_factory=True):
            raise ConfigError(f"{name} has no effect: {idle[name]}", where=name, remedy="leave it out")


def _constant(config: TrainingConfig) -> bool:
    """Whether a warm-up is asked for of a schedule that has none."""
    return config.lr_scheduler_type == "constant" and config.warmup_steps != 0


def _blind(config: TrainingConfig, objective: Objective[Any]) -> bool:
    """Whether a run takes prompts alone from its records."""
    shown = config.ptx_coef > 0 and config.ptx_data is None
    return config.online and "answer" not in objective.columns and not shown
