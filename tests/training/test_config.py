"""Options: the ecosystem's names; unknown ones refused with the nearest, those without effect with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accordance.core.errors import ConfigError
from accordance.training import TrainingConfig, read_recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown option 'learning_rat'[\\s\\S]*did you mean 'learning_rate'"),
        ({"objective": "dpoo"}, "unknown objective 'dpoo'[\\s\\S]*'dpo'"),
        ({"objective": "sft", "beta": 0.1}, "beta has no effect on the objective sft"),
        ({"objective": "ipo", "label_smoothing": 0.1}, "label_smoothing has no effect[\\s\\S]*dpo"),
        ({"lora_r": 4}, "lora_r has no effect with use_peft=False"),
        ({"save_steps": 5, "save_strategy": "no"}, "save_steps has no effect"),
        ({"eval_steps": 5}, "eval_steps has no effect with eval_strategy=no"),
        ({"use_liger_kernel": True}, "use_liger_kernel has no effect"),
        ({"label_smoothing_factor": 0.1}, "use label_smoothing"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size"),
        ({"num_train_epochs": "many"}, "num_train_epochs"),
        ({"beta": -1.0}, "beta"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.of(options).build_objective()


def test_options_of_transformers_and_of_the_objective_are_taken() -> None:
    config = TrainingConfig.of({"weight_decay": 0.1, "beta": 0.3, "label_smoothing": 0.2, "use_cpu": True})
    assert config.arguments().weight_decay == 0.1
    assert config.build_objective().options["beta"] == 0.3
    assert config.build_objective() is config.build_objective()


def test_the_learning_rate_follows_from_what_is_trained() -> None:
    def rate(**options: object) -> float:
        return TrainingConfig.of({"use_cpu": True, **options}).arguments().learning_rate

    assert rate() == 1e-6 and rate(use_peft=True) == pytest.approx(1e-5)
    assert rate(objective="sft") == 2e-5 and rate(learning_rate=3.0) == 3.0


def test_options_of_every_part_of_a_sum_are_known() -> None:
    assert TrainingConfig.of({"objective": "dpo + 0.1*sft", "beta": 0.5}).build_objective() is not None


def test_a_recipe_is_one_mapping(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("objective: simpo\nlearning_rate: 1.0e-4\n")
    assert read_recipe(good) == {"objective": "simpo", "learning_rate": 1e-4}
    for text, message in (("- a\n", "a mapping"), ("a: [", "not YAML")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_recipe(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        read_recipe(tmp_path / "none.yaml")


#: Runs that differ in what they have a use for.
RUNS: dict[str, dict[str, Any]] = {
    "pairs": {"objective": "dpo"},
    "no reference": {"objective": "simpo", "use_peft": True},
    "demonstrations": {"objective": "sft", "save_strategy": "no", "eval_strategy": "epoch"},
    "balanced": {"objective": "dpo + 0.1*sft", "balancer": "raco"},
    "worst group": {"objective": "dpo", "balancer": "maxmin", "balance_over": "group"},
    "heads": {"objective": "dpo", "heads": "attribute", "lr_scheduler_type": "constant"},
    "teacher": {"objective": "dckd", "teacher": "t", "save_strategy": "epoch"},
    "trained parts": {"objective": "sparsepo", "reference": "r"},
    "users": {"objective": "dpo", "users": "annotator"},
    "lists online": {"objective": "grpo", "reward": "r"},
    "pairs online": {"objective": "dpo", "reward": "r"},
    "looking back": {"objective": "inpo", "reward": "r", "eta": 0.1, "tau": 0.05},
    "calibrated": {"objective": "grpo", "reward": "r", "reward_calibration": 8},
    "best of n": {"objective": "grpo", "reward": "r", "reward_calibration": 8, "reward_for": "best_of_n"},
    "critic": {"objective": "ppo", "reward": "r", "ptx_coef": 0.1},
    "compared with an answer": {"objective": "grao", "reward": "r"},
}
#: A value of each option that is not its default.
OTHER: dict[str, Any] = {
    **{"lora_r": 3, "lora_alpha": 3.0, "lora_dropout": 0.3, "lora_target_modules": "q_proj"},
    **{"save_steps": 7, "save_total_limit": 3, "per_device_eval_batch_size": 3, "warmup_steps": 0.3},
    **{"reference": "r", "reference_cache": False, "cache_dir": "c", "ref_model_sync_steps": 3},
    **{"balancer_radius": 0.3, "balancer_temperature": 0.3, "balance_weights": {"a": 1.0, "b": 2.0}},
    **{"balance_over": "group", "head_noise": 0.3, "eval_strategy": "epoch", "attribute": "helpful"},
    **{"teacher": "t", "teacher_reference": "t", "teacher_top_k": 3, "critic_model": "m"},
    **{"auxiliary_learning_rate": 0.3, "auxiliary_warmup": 3, "loop_options": {"rounds": 2}},
    **{"reward_weights": [2.0], "win_rates": True, "num_generations": 3, "max_completion_length": 3},
    **{"temperature": 0.3, "top_p": 0.3, "num_iterations": 3, "steps_per_generation": 3, "pairing": "all"},
    **{"missing_eos_penalty": 0.3, "extragradient": True, "reference_baseline": True, "history_steps": 3},
    **{"ptx_coef": 0.3, "ptx_data": "d", "user_tokens": 3, "user_clusters": 3, "user_alpha": 0.3},
    **{"user_start": "uniform", "user_texts": "t"},
    **{"reward_calibration": 4, "reward_for": "worst_of_n", "reward_sharpness": 3.0},
}
#: Options that have an effect in every run, or decide which run it is.
ALWAYS = {
    "objective", "loop", "reward", "users", "heads", "use_peft", "balancer", "parallel", "output_dir",
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "num_train_epochs", "max_steps",
    "lr_scheduler_type", "max_grad_norm", "seed", "logging_steps", "save_strategy", "report_to", "max_length",
    "max_tokens", "disable_dropout", "check", "resume_from_checkpoint", "overwrite_output_dir",
}  # fmt: skip


def test_every_option_is_known_to_have_an_effect_in_some_runs_or_in_all() -> None:
    assert set(OTHER) | ALWAYS == set(TrainingConfig.model_fields) and not set(OTHER) & ALWAYS


@pytest.mark.parametrize("name", sorted(OTHER))
def test_an_option_is_refused_in_just_those_runs_in_which_it_has_no_effect(name: str) -> None:
    taken = 0
    for run, options in RUNS.items():
        if name in options:
            continue
        idle = name in TrainingConfig.of(options).without_effect()
        try:
            TrainingConfig.of(options | {name: OTHER[name]}).build_objective()
        except ConfigError as error:
            assert idle or "has no effect" not in str(error), (run, error)
        else:
            assert not idle, run
            taken += 1
    assert taken or name in (
        "loop_options",
        "teacher",
        "teacher_reference",
    )  # with a loop, or needed where of use
