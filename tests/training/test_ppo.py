"""PPO with a critic in the trainer: exact however a step is cut, resumable with its critic, watched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from accordance.core.errors import ConfigError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.feedback import save_records
from accordance.models import Group
from accordance.objectives import get_objective
from accordance.training import TrainingConfig, TrainingRun, train
from accordance.training.auxiliary import AuxiliaryParts
from accordance.training.critic import load_critic
from accordance.training.monitors import ALARM, CollapseAlarm
from tests.tiny import llama, policy, records
from tests.training.test_online import letters, run
from tests.training.test_trainer import QUICK, logged, weights

PPO: dict[str, Any] = {"objective": "ppo", "per_device_train_batch_size": 4}


def critic(done: TrainingRun, config: dict[str, Any]) -> torch.Tensor:
    """The critic's weights in the last checkpoint."""
    folder = Path(config["output_dir"]) / f"checkpoint-{done.steps}"
    kept = torch.load(folder / "accordance.pt", weights_only=True)["auxiliary"]
    return torch.cat([value.flatten() for value in kept.values()])


@pytest.mark.parametrize("head", ["head", "trunk"])
def test_neither_accumulation_nor_a_cut_forward_pass_changes_the_trajectory(tmp_path: Path, head: str) -> None:
    """Advantages are whitened, rewards normalised and demonstrations drawn for the whole round."""
    options = PPO | {"critic": head, "ptx_coef": 0.5, "num_iterations": 2, "max_steps": 4}
    saved = {"save_strategy": "steps", "save_steps": 4}
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_tokens": 64}
    once, split = run(tmp_path / "a", **options, **saved), run(tmp_path / "b", **options | saved | cut)
    torch.testing.assert_close(weights(once), weights(split), rtol=1e-4, atol=1e-4)
    for name in ("loss", "value/loss", "ptx/loss", "advantage/variance"):
        assert logged(once, name) == pytest.approx(logged(split, name), rel=1e-3, abs=1e-5), name
    both = [critic(done, {"output_dir": tmp_path / name}) for done, name in ((once, "a"), (split, "b"))]
    torch.testing.assert_close(*both, rtol=1e-3, atol=1e-4)
    assert both[0].abs().max() > 1e-3


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit_with_its_critic_and_its_running_reward_norm(
    tmp_path: Path, stop: int
) -> None:
    options = PPO | {"num_iterations": 2, "max_steps": 5, "auxiliary_warmup": 2, "ptx_coef": 0.1}
    saved = {"save_strategy": "steps", "save_steps": stop, "save_total_limit": 10, "output_dir": str(tmp_path)}
    whole = run(tmp_path, **options | saved)
    again = run(tmp_path, **options | saved | {"resume_from_checkpoint": str(tmp_path / f"checkpoint-{stop}")})
    assert again.steps == 5 and torch.equal(weights(whole), weights(again))
    assert logged(whole, "value/loss")[-1] == logged(again, "value/loss")[-1]


def test_while_the_critic_warms_up_the_policy_stands_still(tmp_path: Path) -> None:
    done = run(tmp_path, **PPO, auxiliary_warmup=3, auxiliary_learning_rate=0.05)
    assert torch.equal(weights(done), torch.cat([p.flatten() for p in policy(0).model.parameters()]))
    assert logged(done, "value/loss")[-1] != logged(done, "value/loss")[0]


def test_a_critic_learns_what_is_to_come(tmp_path: Path) -> None:
    """With the policy frozen the value loss falls below the variance of the returns."""
    options = {"auxiliary_warmup": 20, "auxiliary_learning_rate": 0.1, "max_steps": 20, "clip_value": None}
    done = run(
        tmp_path,
        **PPO | options,
        reward=lambda prompts, completions: [5.0] * len(completions),
        normalise="none",
    )
    losses = logged(done, "value/loss")
    assert losses[0] > 5 and losses[-1] < 0.5 * losses[0]


def test_rewards_are_what_an_answer_scores_above_the_start_policys(tmp_path: Path) -> None:
    """Prompts of very different rewards: only the difference within a prompt is left, about 0 at the start."""
    asked = Records.of(
        Record(user(f"q{i}"), (Response.of("x"),), extras={"offset": float(10 * (i % 4))}) for i in range(16)
    )

    def reward(prompts: Any, completions: Any, offset: Any) -> list[float]:
        return [value + share for value, share in zip(offset, letters(prompts, completions))]

    options = {"objective": "ppo", "max_steps": 1, "per_device_train_batch_size": 16}
    raw, above = (run(tmp_path / str(b), asked, reward, reference_baseline=b, **options) for b in (False, True))
    assert logged(raw, "reward")[0] == pytest.approx(15, abs=0.5)
    assert abs(logged(above, "reward")[0]) < 0.1


def test_demonstrations_of_other_records_are_learned_beside_the_reward(tmp_path: Path) -> None:
    shown = Records.of(
        Record(user("who are you"), (Response.of("zz"),), (Judgment("demonstration", (0,), (1.0,)),))
        for _ in range(1)
    )
    save_records(shown, tmp_path / "shown.jsonl")
    done = run(
        tmp_path / "a",
        **PPO,
        max_steps=30,
        ptx_coef=1.0,
        ptx_data=str(tmp_path / "shown.jsonl"),
        learning_rate=0.03,
    )
    losses = logged(done, "ptx/loss")
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objective": "ppo", "reward": None}, "samples while it trains"),
        ({"objective": "ppo", "ptx_data": "x.jsonl"}, "ptx_data has no effect"),
        ({"objective": "ppo + 0.1*sft", "ptx_coef": 0.1, "balancer": "raco"}, "balancer does not see"),
        ({"objective": "grpo", "auxiliary_warmup": 2}, "auxiliary_warmup has no effect"),
        ({"objective": "grpo", "reference_baseline": True, "win_rates": True}, "scores one answer"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config = TrainingConfig.of(
            QUICK | {"reward": "letters"} | options | {"output_dir": str(tmp_path), "max_steps": 1}
        )
        train(policy(), records(8), config, reward=FunctionScorer(letters))


def test_the_alarm_stands_in_the_history_and_is_a_warning(tmp_path: Path) -> None:
    """A reward for brevity alone: answers shrink to nothing, far from the reference."""

    def shorter(prompts: Any, completions: Any) -> list[float]:
        return [-float(len(text)) for text in completions]

    options = {"max_completion_length": 16, "beta": 1e-6, "learning_rate": 0.05, "max_steps": 20}
    with pytest.warns(UserWarning, match="exploiting its reward"):
        done = run(tmp_path, reward=shorter, **PPO | options)
    (line,) = [line for line in done.history if ALARM in line]
    assert "KL" in line[ALARM] and line["step"] < 20


def test_the_alarm_is_silent_unless_all_of_its_signs_are_there() -> None:
    signs = {"reward": (0.0, 1.0), "kl": (0.0, 20.0), "length": (10.0, 30.0)}
    for quiet in (None, *signs):
        alarm, found = CollapseAlarm(window=2), []
        for step in range(10):
            now = {name: low + (high - low) * step / 9 * (name != quiet) for name, (low, high) in signs.items()}
            found.append(alarm.observe(**now, surprise=1.0))
        assert sum(map(bool, found)) == (quiet is None), quiet


def classifier(folder: Path, seed: int = 1, outputs: int = 1, vocabulary: int = 261) -> str:
    """A reward model of the tiny policy's family with a head that is not 0."""
    torch.manual_seed(seed)
    sizes = llama(seed).config.to_dict() | {"num_labels": outputs, "pad_token_id": 0, "vocab_size": vocabulary}
    model = LlamaForSequenceClassification(LlamaConfig(**sizes))
    model.score.weight.data.normal_()
    model.save_pretrained(folder)
    return str(folder)


def test_a_critic_of_its_own_begins_as_the_reward_model_and_its_values_are_that_models_scores(
    tmp_path: Path,
) -> None:
    asked = policy(0)
    found = load_critic(classifier(tmp_path), asked)
    objective = get_objective("ppo")
    parts = AuxiliaryParts(objective, asked, 0, torch.device("cpu"), found)
    group = Group([5, 6, 7], [[8, 9, 10], [11, 12]])
    values = parts.values([group], 1000)
    model = LlamaForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = []
    for response in group.responses:
        for place in range(len(response)):  # what stands before each token
            ids = torch.tensor([[*group.prompt, *response[:place]]])
            expected.append(model(ids, attention_mask=torch.ones_like(ids)).logits[0, 0])
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("moved", ["trunk", "head"])
def test_a_critic_of_its_own_learns_beside_the_policy_and_is_kept_in_checkpoints(
    tmp_path: Path, moved: str
) -> None:
    """With ``trunk`` its model moves, with ``head`` it stays; no gradient of its loss reaches the policy."""
    name = classifier(tmp_path / "rm")
    options = PPO | {"critic_model": name, "critic": moved, "num_iterations": 2, "max_steps": 4}
    saved = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 9}
    whole = run(tmp_path / "run", **options, **saved)
    again = run(
        tmp_path / "run",
        **options | saved | {"resume_from_checkpoint": str(tmp_path / "run" / "checkpoint-3")},
    )
    assert torch.equal(weights(whole), weights(again))
    kept = torch.load(tmp_path / "run" / "checkpoint-4" / "accordance.pt", weights_only=True)["auxiliary"]
    start = LlamaForSequenceClassification.from_pretrained(name)
    assert not torch.equal(kept["linear.weight"], start.score.weight)
    own = [
        torch.equal(kept[f"critic.{name}"], value)
        for name, value in start.state_dict().items()
        if "model." in name
    ]
    assert len(own) > 10 and (all(own) if moved == "head" else not any(own))
    warm = run(tmp_path / "warm", **PPO, critic_model=name, critic=moved, auxiliary_warmup=3)
    assert torch.equal(weights(warm), torch.cat([p.flatten() for p in policy(0).model.parameters()]))


def test_a_critic_that_can_not_be_is_refused(tmp_path: Path) -> None:
    for model, says in (
        (classifier(tmp_path / "two", outputs=2), "one output"),
        (classifier(tmp_path / "other", vocabulary=99), "another vocabulary"),
        (str(tmp_path / "none"), "can't be loaded"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_critic(model, policy())
    llama().save_pretrained(tmp_path / "language")
    assert load_critic(str(tmp_path / "language"), policy()).weight is None
    with pytest.raises(ConfigError, match="critic_model has no effect on grpo"):
        TrainingConfig.of({"objective": "grpo", "reward": "x", "critic_model": "y"}).build_objective()
