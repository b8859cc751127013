"""Teachers, live references and trainable parts of objectives in the trainer: exact, resumable, refused with reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError
from accordance.training import TrainingConfig, TrainingRun, train
from accordance.training.distillation import with_own_answers
from tests.tiny import llama, policy, records, tokenizer
from tests.training.test_trainer import QUICK, logged, weights
from tests.training.test_trainer import run as plain_run


def run(folder: Path, **options: Any) -> TrainingRun:
    return plain_run(folder, records(12), **{"per_device_train_batch_size": 4} | options)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two teachers on disk, one the reference of the other."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, seed in (("teacher", 5), ("teacher_reference", 6)):
        policy(seed).save(folder / name)
    return {name: str(folder / name) for name in ("teacher", "teacher_reference")}


def cut(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_tokens": 80}


@pytest.mark.parametrize("objective", ["tdpo", "sparsepo", "spo(dpo)", "dckd", "adpa"])
def test_cutting_the_step_changes_nothing(tmp_path: Path, objective: str, teachers: dict[str, str]) -> None:
    names = {"adpa": ["teacher", "teacher_reference"], "dckd": ["teacher"]}.get(objective, [])
    options = {"objective": objective} | {name: teachers[name] for name in names}
    if objective == "sparsepo":
        options["dropout"] = 0.0
    whole, split = run(tmp_path / "a", **options), run(tmp_path / "b", **cut(options))
    assert whole.steps == split.steps == 3
    torch.testing.assert_close(weights(whole), weights(split), rtol=1e-3, atol=5e-5)
    assert logged(whole, "loss") == pytest.approx(logged(split, "loss"), rel=1e-3)


@pytest.mark.parametrize("lora", [False, True])
def test_divergences_from_the_reference_are_zero_at_the_start_and_then_are_those_of_full_scores(
    tmp_path: Path, lora: bool
) -> None:
    """A step of TDPO moves the policy as a hand-written loss over full scores does."""
    from accordance.models import Group

    options = {"objective": "tdpo", "alpha": 1.0, "detach_chosen": False, "beta": 0.5} | {"use_peft": lora}
    dpo = run(tmp_path / "dpo", objective="dpo", beta=0.5, use_peft=lora)
    made = run(tmp_path / "a", **options)
    assert logged(made, "loss")[0] == pytest.approx(logged(dpo, "loss")[0], rel=1e-5)
    assert logged(made, "loss")[2] != pytest.approx(logged(dpo, "loss")[2], rel=1e-4)

    # The loss of the last policy on one batch, by the trainer's path and by hand.
    from accordance.models import Compared, CopiedReference
    from accordance.objectives import get_objective
    from accordance.training import bundle_for

    start, now = policy(), made.policy
    groups = [Group([5, 6, 7], [[8, 9, 1], [11, 12, 13, 1]])]
    reference = CopiedReference(start.engine)
    reference.table = True
    known = reference(groups)
    out = now.engine(groups, compared=Compared(kl=known.table))
    objective = get_objective("tdpo", alpha=1.0, detach_chosen=False, beta=0.5)
    (loss,) = objective(bundle_for(objective, out, known, {}))

    def full(p: Any, response: list[int]) -> torch.Tensor:
        ids = torch.tensor([[5, 6, 7, *response]])
        return p.model(input_ids=ids, use_cache=False).logits[0, 2:-1].log_softmax(-1)

    totals = []
    for response in groups[0].responses:
        own, ref = full(now, list(response)), full(start, list(response))
        picked = torch.arange(len(response)), torch.tensor(response)
        totals.append((own[picked] - ref[picked]).sum() + (ref.exp() * (ref - own)).sum())
    expected = -torch.nn.functional.logsigmoid(0.5 * (totals[0] - totals[1]))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["spo(dpo)", "sparsepo", "sparsepo + 0.1*sft"])
@pytest.mark.parametrize("balancer", ["sum", "raco"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    tmp_path: Path, objective: str, balancer: str
) -> None:
    if balancer == "raco" and "+" not in objective:
        pytest.skip("one loss has nothing to balance")
    options = {"objective": objective, "balancer": balancer, "max_steps": 4, "auxiliary_learning_rate": 0.05}
    options |= {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "linear"}
    whole = run(tmp_path / "whole", **options)
    part = run(tmp_path / "part", **options)
    assert torch.equal(weights(whole), weights(part))
    (tmp_path / "part" / "checkpoint-4" / "complete").unlink()
    again = run(tmp_path / "part", **options, resume_from_checkpoint=True)
    assert again.steps == 4 and torch.equal(weights(whole), weights(again))
    kept = [
        torch.load(tmp_path / name / "checkpoint-4" / "accordance.pt", weights_only=True)["auxiliary"]
        for name in ("whole", "part")
    ]
    assert kept[0].keys() == kept[1].keys() and all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    before = torch.load(tmp_path / "whole" / "checkpoint-2" / "accordance.pt", weights_only=True)["auxiliary"]
    assert any(not torch.equal(before[key], kept[0][key]) for key in before)


def test_without_its_weight_the_degree_head_leaves_the_policy_to_the_wrapped_loss(tmp_path: Path) -> None:
    spo, dpo = run(tmp_path / "a", objective="spo(dpo)", gamma=0.0), run(tmp_path / "b", objective="dpo")
    torch.testing.assert_close(weights(spo), weights(dpo), rtol=1e-4, atol=2e-5)
    assert logged(spo, "rewards/margins") == pytest.approx(logged(dpo, "rewards/margins"), rel=1e-3, abs=1e-5)


def test_a_teacher_written_down_with_nearly_all_entries_teaches_the_same(
    tmp_path: Path, teachers: dict[str, str]
) -> None:
    options = {"objective": "adpa", "optim": "sgd", "learning_rate": 1.0} | teachers
    live, stored = run(tmp_path / "a", **options), run(tmp_path / "b", **options, teacher_top_k=260)
    few = run(tmp_path / "c", **options, teacher_top_k=4)
    torch.testing.assert_close(weights(live), weights(stored), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(weights(live), weights(few), rtol=1e-3, atol=1e-4)


def test_rejected_answers_become_the_policys_own_and_the_same_ones_every_time() -> None:
    student = policy()
    made, again = (
        with_own_answers(student, records(6), attribute=None, seed=3, max_new_tokens=5) for _ in "ab"
    )
    other = with_own_answers(student, records(6), attribute=None, seed=4, max_new_tokens=5)
    texts = [[record.responses[1].text for record in some] for some in (made, again, other)]
    assert texts[0] == texts[1] != texts[2]
    for record, old in zip(made, records(6)):
        assert record.responses[0].text == old.responses[0].text and record.prompt == old.prompt
        assert record.responses[1].text != old.responses[1].text


@pytest.mark.parametrize(
    "options, match",
    [
        ({"objective": "adpa"}, "no teacher is named"),
        ({"objective": "adpa", "teacher": "x"}, "no teacher_reference is named"),
        ({"objective": "dckd", "teacher": "x", "teacher_reference": "y"}, "teacher_reference has no effect"),
        ({"objective": "dpo", "teacher": "x"}, "teacher has no effect on dpo"),
        ({"objective": "dpo", "auxiliary_learning_rate": 0.1}, "auxiliary_learning_rate has no effect"),
        ({"objective": "tdpo", "reference_cache": True}, "reference_cache has no effect on tdpo"),
        ({"objective": "tdpo", "parallel": "fsdp2"}, "whole distributions"),
        ({"objective": "spo(dpo)", "fp16": True}, "parts of its own"),
        ({"objective": "spo(sparsepo)"}, "each trains parts of its own"),
    ],
)
def test_what_can_not_be_is_refused_before_training(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TrainingConfig.of(QUICK | options).build_objective()


def test_a_teacher_with_other_tokens_is_refused(tmp_path: Path) -> None:
    from accordance.models import LocalPolicy

    words = tokenizer()
    words.add_tokens(["<|more|>"])
    LocalPolicy(llama(3, vocab_size=262), words).save(tmp_path / "t")
    config = TrainingConfig.of(
        QUICK | {"objective": "dckd", "teacher": str(tmp_path / "t"), "output_dir": str(tmp_path)}
    )
    with pytest.raises(ConfigError, match="share one vocabulary"):
        train(policy(), records(12), config)
