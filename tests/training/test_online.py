"""Learning online: what is sampled, what it is worth, and that no cut, stop or accumulation changes the run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion
from accordance.core.record import Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.objectives import get_objective, wrapper_names
from accordance.training import TrainingConfig, TrainingRun, bundle_for, train
from accordance.training.bundles import columns_of
from accordance.training.online import RolloutTrainer
from accordance.training.rollouts import group_scores
from tests.tiny import policy, records
from tests.training.test_trainer import QUICK, logged, weights

LETTERS = set("abcdefghijklmnop")


def letters(prompts: Any, completions: Any, **_: Any) -> list[float]:
    """The share of a response that is one of sixteen letters."""
    return [sum(c in LETTERS for c in text) / (len(text) or 1) for text in completions]


def run(folder: Path, some: Records | None = None, reward: Any = letters, **options: Any) -> TrainingRun:
    quick: dict[str, Any] = {
        "output_dir": str(folder),
        "reward": "letters",
        "num_generations": 4,
        "max_completion_length": 8,
        "max_steps": 3,
    }
    config = TrainingConfig.of(QUICK | quick | options)
    scorer = FunctionScorer(reward) if callable(reward) else reward
    return train(policy(0), some or records(16), config, reward=scorer)


@pytest.mark.parametrize("objective", ["grpo", "reinforce", "dapo", "dpo", "f_dpg"])
def test_neither_accumulation_nor_a_cut_forward_pass_changes_the_trajectory(
    tmp_path: Path, objective: str
) -> None:
    """Batch statistics (REINFORCE++) are those of the round, however it is cut."""
    once = run(tmp_path / "a", objective=objective, per_device_train_batch_size=4)
    split = run(
        tmp_path / "b",
        objective=objective,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_tokens=64,
    )
    torch.testing.assert_close(weights(once), weights(split), rtol=1e-4, atol=5e-5)
    assert logged(once, "loss") == pytest.approx(logged(split, "loss"), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_that_was_stopped_within_a_round_goes_on_bit_for_bit(tmp_path: Path, stop: int) -> None:
    """Two passes over rounds of two steps, a reference that moves: a checkpoint may fall anywhere."""
    options: dict[str, Any] = {
        "objective": "rloo",
        "per_device_train_batch_size": 3,
        "num_iterations": 2,
        "steps_per_generation": 2,
        "ref_model_sync_steps": 4,
        "max_steps": 7,
    }
    whole = run(tmp_path / "whole", **options)
    saved = {"save_strategy": "steps", "save_steps": stop, "save_total_limit": 10}
    first = run(tmp_path / "parts", **options | saved)
    assert torch.equal(weights(whole), weights(first))
    again = run(
        tmp_path / "parts",
        **options | saved | {"resume_from_checkpoint": str(tmp_path / "parts" / f"checkpoint-{stop}")},
    )
    assert again.steps == 7 and torch.equal(weights(whole), weights(again))


def test_samples_are_as_likely_in_training_as_when_they_were_sampled(tmp_path: Path) -> None:
    done = run(tmp_path, objective="grpo", max_steps=4)
    gaps = logged(done, "sampling/sampling_logp_difference/max")
    assert len(gaps) == 4 and max(gaps) < 1e-3


@pytest.mark.parametrize("objective", ["grpo", "rloo", "dpo", "f_dpg"])
def test_the_reward_goes_up(tmp_path: Path, objective: str) -> None:
    more = {"dpo": {"beta": 0.1}, "f_dpg": {"beta": 0.05, "divergence": "reverse_kl"}}.get(objective, {})
    done = run(
        tmp_path, objective=objective, max_steps=25, per_device_train_batch_size=8, learning_rate=5e-2, **more
    )
    rewards = logged(done, "reward")
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.2


def test_without_a_difference_in_reward_nothing_moves(tmp_path: Path) -> None:
    done = run(tmp_path, reward=lambda prompts, completions: [1.0] * len(completions), objective="grpo")
    assert torch.equal(weights(done), torch.cat([p.flatten() for p in policy(0).model.parameters()]))
    assert logged(done, "frac_reward_zero_std") == [1.0, 1.0, 1.0]


def test_an_adapter_has_the_model_below_it_as_its_reference(tmp_path: Path) -> None:
    done = run(tmp_path, objective="grpo", beta=0.5, use_peft=True, lora_r=2)
    kls = logged(done, "kl")
    assert kls[0] == pytest.approx(0, abs=1e-5) and kls[-1] != kls[0]


class Cycle:
    """Longer answers beat shorter ones, except that the longest loses to the shortest."""

    name = "cycle"

    def prob(self, prompts: Any, first: Any, second: Any, **_: Any) -> list[float]:
        return [self.beats(len(a), len(b)) for a, b in zip(first, second)]

    @staticmethod
    def beats(a: int, b: int) -> float:
        return 0.5 if a == b else 0.9 if (a - b) % 3 == 1 else 0.2


def test_a_judge_of_pairs_scores_by_win_rates_with_both_orders_averaged() -> None:
    record = Record(user("q"), (Response.of("x"),))
    group = [Completion("a" * size) for size in (1, 2, 3, 2)]
    found = group_scores(Cycle(), [record], [group])[0]
    for i, one in enumerate(group):
        others = [other for j, other in enumerate(group) if j != i]
        sizes = [(len(one.text), len(other.text)) for other in others]
        both = [(Cycle.beats(a, b) + 1 - Cycle.beats(b, a)) / 2 for a, b in sizes]
        assert found[i] == pytest.approx(np.mean(both))
    assert found.mean() == pytest.approx(0.5)


def test_scores_compare_as_pairs_where_win_rates_are_asked_for() -> None:
    record = Record(user("q"), (Response.of("x"),))
    groups = [[Completion(text) for text in ("z", "a", "a!", "ab")]]
    rates = group_scores(FunctionScorer(letters), [record], groups, win_rates=True)[0]
    assert rates == pytest.approx([0, (1 + 1 + 0.5) / 3, 1 / 3, (1 + 1 + 0.5) / 3])


def test_a_reward_function_gets_the_columns_of_the_records() -> None:
    def reward(prompts: Any, completions: Any, target: Any) -> list[float]:
        return [float(text == wanted) for text, wanted in zip(completions, target)]

    asked = [Record(user("q"), (Response.of("x"),), extras={"target": t}) for t in ("one", "two")]
    groups = [[Completion("one"), Completion("two")]] * 2
    assert group_scores(FunctionScorer(reward), asked, groups).tolist() == [[1, 0], [0, 1]]


def test_a_reward_function_gets_no_columns_that_it_does_not_take_and_says_what_it_misses() -> None:
    def plain(prompts: Any, completions: Any, bonus: float = 1.0) -> list[float]:
        return [bonus * len(text) for text in completions]

    def needy(prompts: Any, completions: Any, target: Any, goal: Any) -> list[float]:
        raise AssertionError("it is not called")

    asked = [Record(user("q"), (Response.of("x"),), extras={"target": "one", "hard": True})]
    assert group_scores(FunctionScorer(plain), asked, [[Completion("one")]]).tolist() == [[3]]
    with pytest.raises(DataError, match="needy wants columns that not all records have") as error:
        group_scores(FunctionScorer(needy), asked, [[Completion("one")]])
    assert "goal" in str(error.value) and "hard, target" in str(error.value)


def test_an_answer_that_was_cut_pays_for_it(tmp_path: Path) -> None:
    free, taxed = (
        run(tmp_path / str(tax), objective="grpo", max_steps=1, missing_eos_penalty=tax) for tax in (None, 2.0)
    )
    cut = logged(free, "completions/clipped_ratio")[0]
    assert cut > 0.5
    assert logged(taxed, "reward")[0] == pytest.approx(logged(free, "reward")[0] - 2 * cut)


def test_every_prompt_comes_once_an_epoch_and_rounds_do_not_depend_on_what_came_before(tmp_path: Path) -> None:
    seen: list[str] = []

    def reward(prompts: Any, completions: Any) -> list[float]:
        seen.extend(prompt[-1].content if not isinstance(prompt, str) else prompt for prompt in prompts)
        return letters(prompts, completions)

    some = records(12)
    run(
        tmp_path,
        some,
        reward,
        objective="grpo",
        max_steps=-1,
        num_train_epochs=2,
        per_device_train_batch_size=4,
    )
    asked = [prompt for prompt, _ in itertools.groupby(seen)]
    distinct = {record.prompt[-1].content for record in some}
    assert len(asked) == 24 and set(asked[:12]) == set(asked[12:]) == distinct and asked[:12] != asked[12:]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objective": "kto"}, "from which reward on"),
        ({"objective": "sft"}, "a reward would have no effect"),
        ({"objective": "cut"}, "under other prompts"),
        ({"objective": "mapl(dpo)"}, "under other prompts"),
        ({"objective": "sami"}, "all to one prompt"),
        ({"objective": "dckd", "teacher": "x"}, "a reward would have no effect"),
        ({"objective": "adpa", "teacher": "x", "teacher_reference": "x"}, "have no recorded ones"),
        ({"objective": "conflict(dpo)"}, "reads conflict"),
        ({"objective": "mnpo", "history_steps": 2}, "history_steps has no effect"),
        ({"objective": "inpo", "extragradient": True}, "is taken back"),
        ({"objective": "grpo", "reward": None}, "samples while it trains"),
        ({"objective": "dpo", "reward": None, "num_generations": 4}, "num_generations has no effect"),
        ({"objective": "grpo", "eval_strategy": "epoch"}, "eval_strategy has no effect"),
        ({"objective": "grpo", "ref_model_sync_steps": 2}, "needs no reference"),
        ({"objective": "dpo", "ref_model_sync_steps": 2, "use_peft": True}, "does not move"),
        ({"objective": "grpo", "pairing": "all"}, "pairing has no effect"),
        ({"objective": "egpo", "extragradient": True, "num_iterations": 2}, "samples anew"),
        ({"objective": "grpo", "reward_weights": [1.0, 2.0]}, "as many weights"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    plain = {"reward": "letters"} | options
    with pytest.raises(ConfigError, match=says):
        config = TrainingConfig.of(QUICK | plain | {"output_dir": str(tmp_path), "max_steps": 1})
        train(policy(), records(8), config, reward=FunctionScorer(letters))


def test_a_reward_without_a_number_is_an_error_that_names_the_answer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the reward .* gives no number"):
        run(tmp_path, reward=lambda prompts, completions: [None] * len(completions), objective="grpo")


def test_an_extragradient_update_steps_from_where_it_began_with_what_was_sampled_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand, with plain SGD: the second step's samples are those of the policy after the first."""
    rounds: list[Any] = []
    draw = RolloutTrainer._draw

    def noted(self: Any, number: int) -> Any:
        rounds.append(
            (draw(self, number), torch.cat([p.detach().flatten() for p in self.policy.model.parameters()]))
        )
        return rounds[-1][0]

    monkeypatch.setattr(RolloutTrainer, "_draw", noted)
    options = {"objective": "rloo", "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "beta": 0.0}
    options |= {"per_device_train_batch_size": 4, "extragradient": True}
    done = run(tmp_path / "a", max_steps=2, **options)
    start = policy(0)
    began = torch.cat([p.detach().flatten() for p in start.model.parameters()])
    (_, at_first), (examples, ahead) = rounds
    assert torch.equal(at_first, began) and not torch.equal(ahead, began)
    objective = get_objective("rloo", beta=0.0)
    logps = start.engine([e.group for e in examples])
    sampled = torch.cat([e.sampled for e in examples])
    loss = objective(bundle_for(objective, logps, None, columns_of(examples), sampled)).mean()
    grads = torch.autograd.grad(loss, list(start.model.parameters()))
    step = began - 0.5 * torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(weights(done), step, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(step, began, atol=1e-5)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_extragradient_run_goes_on_bit_for_bit_also_from_ahead(tmp_path: Path, stop: int) -> None:
    options: dict[str, Any] = {"objective": "egpo", "win_rates": True, "extragradient": True, "max_steps": 5}
    options |= {"save_strategy": "steps", "save_steps": stop, "save_total_limit": 9}
    whole = run(tmp_path, **options)
    again = run(tmp_path, **options | {"resume_from_checkpoint": str(tmp_path / f"checkpoint-{stop}")})
    assert torch.equal(weights(whole), weights(again))


def test_past_policies_are_those_of_the_rounds_before_the_latest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: each round's samples under the weights that stood when the last rounds began."""
    seen: list[tuple[Any, dict[str, torch.Tensor]]] = []
    draw = RolloutTrainer._draw

    def noted(self: Any, number: int) -> Any:
        weights = {name: p.detach().clone() for name, p in self.policy.model.named_parameters()}
        seen.append((draw(self, number), weights))
        return seen[-1][0]

    monkeypatch.setattr(RolloutTrainer, "_draw", noted)
    options: dict[str, Any] = {"objective": "mnpo", "history": 2, "history_steps": 2, "max_steps": 6}
    done = run(tmp_path, eta=0.1, learning_rate=0.02, **options)
    assert all(np.isfinite(logged(done, "loss")))
    past = [(0, 0), (0, 0), (2, 0), (2, 0), (4, 2), (4, 2)]  # which rounds' weights are remembered in which
    judge = policy(0)
    for (examples, _), rounds in zip(seen, past):
        for j, number in enumerate(rounds):
            judge.model.load_state_dict(seen[number][1])
            expected = judge.engine([e.group for e in examples]).logp
            found = torch.tensor([value for e in examples for value in e.columns[f"history{j}"]])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert seen[4][0][0].columns["history0"] != pytest.approx(seen[4][0][0].columns["history1"], abs=1e-3)


@pytest.mark.parametrize("peft", [False, True])
def test_a_run_that_looks_back_goes_on_bit_for_bit(tmp_path: Path, peft: bool) -> None:
    options: dict[str, Any] = {"objective": "inpo", "tau": 0.02, "eta": 0.1, "use_peft": peft, "max_steps": 5}
    options |= {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 9} | (
        {"lora_r": 2} if peft else {}
    )
    whole = run(tmp_path, **options)
    again = run(tmp_path, **options | {"resume_from_checkpoint": str(tmp_path / "checkpoint-3")})
    assert torch.equal(weights(whole), weights(again))


def test_without_earlier_rounds_the_reference_is_the_past(tmp_path: Path) -> None:
    """In the first round mnpo with a history is mnpo without one, and so is its step."""
    options: dict[str, Any] = {"objective": "mnpo", "eta": 0.1, "reduction": "mean", "max_steps": 1}
    plain, looking = run(tmp_path / "a", **options), run(tmp_path / "b", **options, history=3)
    torch.testing.assert_close(weights(plain), weights(looking), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["tdpo", "sparsepo", "wpo(dpo)"])
def test_objectives_that_read_tokens_see_those_of_the_sampled_pairs(tmp_path: Path, objective: str) -> None:
    """The loss of a step by hand, pair by pair; a cut forward pass changes nothing."""
    seed = {"objective": objective, "max_steps": 2, "per_device_train_batch_size": 4, "pairing": "all"}
    whole, cut = run(tmp_path / "a", **seed), run(tmp_path / "b", **seed, max_tokens=64)
    assert not torch.equal(weights(whole), torch.cat([p.flatten() for p in policy(0).model.parameters()]))
    if objective != "sparsepo":  # its dropout draws anew for every part
        torch.testing.assert_close(weights(whole), weights(cut), rtol=1e-4, atol=5e-5)
    if objective != "wpo(dpo)":  # at the reference both are dpo
        assert logged(whole, "loss")[0] == pytest.approx(np.log(2), abs=1e-4)


def test_the_reward_is_the_annotator_whose_labels_are_doubted(tmp_path: Path) -> None:
    done = run(tmp_path, objective="lcpo(dpo)", max_steps=2, **{"lcpo.initial": 0.9})
    assert done.steps == 2 and all(np.isfinite(logged(done, "loss")))


BASES = [
    "tdpo",
    "inpo",
    "dpo",
    "simpo",
    "egpo",
    "hinge",
    "sppo",
    "grpo",
    "rloo",
    "gspo",
    "reinforce",
    "f_dpg",
    "pro",
]


@settings(
    max_examples=16,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    base=st.sampled_from(BASES),
    wrapper=st.sampled_from(["", *wrapper_names()]),
    second=st.sampled_from(["", "0.1*sft"]),
    balancer=st.sampled_from(["sum", "raco", "cagrad", "maxmin"]),
    peft=st.booleans(),
    win_rates=st.booleans(),
)
def test_objectives_wrappers_balancers_and_adapters_go_together_online_or_are_refused_with_the_reason(
    tmp_path: Path, base: str, wrapper: str, second: str, balancer: str, peft: bool, win_rates: bool
) -> None:
    objective = f"{wrapper}({base})" if wrapper else base
    objective = f"{objective} + {second}" if second else objective
    options = {"objective": objective, "use_peft": peft, "win_rates": win_rates, "balancer": balancer}
    folder = tmp_path / str(abs(hash(str(options))))
    try:
        done = run(folder, max_steps=2, per_device_train_batch_size=2, **options)
    except ConfigError as refusal:
        assert str(refusal) and (wrapper or balancer != "sum" or second), refusal
        return
    assert done.steps == 2 and all(np.isfinite(logged(done, "loss")))


def test_calibrated_rewards_are_ranks_among_the_start_policys_answers_bent_for_their_use(
    tmp_path: Path,
) -> None:
    """At the start ranks are uniform, whatever the reward's scale; for the best of N the top alone is paid."""

    def steep(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [1000 * share**3 for share in letters(prompts, completions)]

    options: dict[str, Any] = {"objective": "grpo", "max_steps": 1, "per_device_train_batch_size": 16}
    plain, made = (
        run(tmp_path / p, None, steep, reward_calibration=32, reward_for=p, **options)
        for p in ("one", "best_of_n")
    )
    assert logged(plain, "reward")[0] == pytest.approx(0.5, abs=0.12)
    assert 0 < logged(made, "reward")[0] < 0.3
    with pytest.raises(ConfigError, match="already"):
        run(tmp_path / "both", reward_calibration=4, reference_baseline=True)
    with pytest.raises(ConfigError, match="not calibrated"):
        run(tmp_path / "raw", reward_for="best_of_n")
