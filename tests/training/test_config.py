"""Options: the ecosystem's names; unknown ones refused with the nearest, those without effect with the reason."""

from __future__ import annotations

from pathlib import Path

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
