"""The loop of stages: a plan as data, what each stage trains, what it gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import TEXT, Judgment, Message, Record, Records, Response
from accordance.core.scorer import FunctionScorer
from accordance.models.weights import merged
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.loops import Names, Stage
from accordance.training.loops.probe import likelihoods
from accordance.training.loops.session import Session
from tests.tiny import WORDS, policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK

DOCUMENTS = Records.of(
    Record((), (Response((Message(TEXT, f"the {word} is red"),)),), (Judgment("demonstration", (0,)),))
    for word in WORDS
)
SCORER = FunctionScorer(letters)
NAMES = Names({"documents": DOCUMENTS, "letters": SCORER})


def run(folder: Path, plan: list[dict[str, Any]], held: Records | None = None, **options: Any) -> TrainingRun:
    config = TrainingConfig.of(
        QUICK | {"output_dir": str(folder), "loop": "stages", "loop.plan": plan} | options
    )
    return run_loop(policy(0), records(24).select(range(16)), config, held_out=held, names=NAMES)


def state(done: TrainingRun | Any) -> dict[str, torch.Tensor]:
    model = (done.policy if isinstance(done, TrainingRun) else done).model
    return {name: p.detach().clone() for name, p in model.named_parameters()}


TEXTS: dict[str, Any] = {"name": "texts", "records": "documents", "objective": "sft"}
PAIRS: dict[str, Any] = {"name": "pairs", "options": {"learning_rate": 1e-2}}
SAMPLES: dict[str, Any] = {
    "name": "samples",
    "objective": "grpo",
    "reward": "letters",
    "options": {"max_steps": 2, "num_generations": 4, "max_completion_length": 6},
}
HELD = records(24).select(range(16, 24))


def test_each_stage_learns_from_its_own_records_by_its_own_objective_and_its_gain_is_told(
    tmp_path: Path,
) -> None:
    more = {"loop.probe_reward": "letters", "loop.probe_length": 6}
    done = run(tmp_path, [TEXTS, PAIRS, SAMPLES], HELD, **more)
    assert [(s["name"], s["examples"]) for s in done.stages] == [("texts", 12), ("pairs", 16), ("samples", 16)]
    start, texts, pairs, samples = (
        done.measures[k] for k in ("start", "after texts", "after pairs", "after samples")
    )
    assert "gain_logp" not in start
    for before, after in ((start, texts), (texts, pairs), (pairs, samples)):
        for key in ("logp", "accuracy", "reward"):
            assert after[f"gain_{key}"] == pytest.approx(after[key] - before[key])
    assert pairs["gain_accuracy"] > 0.2, "the stage on pairs learns what the held-out pairs ask for"


def test_a_stopped_plan_goes_on_bit_for_bit_whatever_weights_its_stages_begin_with(tmp_path: Path) -> None:
    plan = [TEXTS, PAIRS | {"begin": "start"}, {"name": "both", "merge": {"texts": 0.25, "pairs": 0.75}}]
    plan += [{"name": "last", "records": "documents", "objective": "sft"}]
    whole, _ = run(tmp_path / "a", plan), run(tmp_path / "b", plan)
    for file in sorted((tmp_path / "b" / "stages").glob("03-*/*")):
        if file.is_file():
            file.unlink()
    again = run(tmp_path / "b", plan, resume_from_checkpoint=True)
    for name, value in state(whole).items():
        assert torch.equal(value, state(again)[name])


def test_a_merge_is_the_weighted_mean_of_the_weights_that_stages_left(tmp_path: Path) -> None:
    plan = [TEXTS, PAIRS | {"begin": "start"}, {"name": "both", "merge": {"texts": 0.25, "pairs": 0.75}}]
    done = run(tmp_path, plan)
    from accordance.models import load_policy

    left = [state(load_policy(tmp_path / "stages" / name)) for name in ("01-texts", "02-pairs")]
    for name, value in state(done).items():
        assert torch.allclose(value, 0.25 * left[0][name] + 0.75 * left[1][name], atol=1e-6)
    saved = state(load_policy(tmp_path))
    assert all(torch.equal(value, saved[name]) for name, value in state(done).items())
    with pytest.raises(DataError, match="add up to 1"):
        merged(left, [0.5, 0.6])


def test_only_the_weights_that_a_stage_names_are_trained(tmp_path: Path) -> None:
    before = state(policy(0))
    done = run(tmp_path, [PAIRS | {"trainable": ["model.layers.1.*"]}])
    moved = {name for name, value in state(done).items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("model.layers.1.") for name in moved)
    assert all(p.requires_grad for p in done.policy.model.parameters()), "free again afterwards"


def test_prompts_that_are_held_out_are_left_out_of_a_stage_and_counted(tmp_path: Path) -> None:
    names = Names({"all": records(24)})
    options = QUICK | {"output_dir": str(tmp_path), "loop": "stages", "loop.plan": [PAIRS | {"records": "all"}]}
    done = run_loop(policy(0), records(24), TrainingConfig.of(options), held_out=HELD, names=names)
    assert done.stages[0]["examples"] == 16
    assert done.measures["records of pairs"] == {"left_out_as_held_out": 8}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([TEXTS, TEXTS], "two stages are called 'texts'"),
        ([{"name": "a", "recods": "x"}], "recods"),
        ([{"name": "a", "merge": {"b": 1.0}}], "'b' is no stage"),
        ([TEXTS, {"name": "a", "merge": {"texts": 1.0}, "objective": "sft"}], "trains nothing"),
        ([{"name": "a", "begin": "b"}], "'b' is no stage"),
        ([{"name": "a", "options": {"bta": 0.1}}], "did you mean 'beta'"),
        ([{"name": "a", "objective": "sft", "options": {"beta": 0.1}}], "no effect"),
        ([{"name": "a", "objective": "grpo"}], "learns from what the policy samples"),
        ([{"name": "a", "trainable": ["layers.1.*"]}], "no trainable weight"),
        ([{"name": "a", "options": {"use_peft": True}}], "not for the options of a stage"),
        ([], "at least 1"),
    ],
)
def test_a_plan_that_can_not_be_is_refused_with_the_reason(tmp_path: Path, plan: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, plan)


def test_adapters_are_not_merged_by_the_mean_of_their_factors(tmp_path: Path) -> None:
    plan = [PAIRS, {"name": "m", "merge": {"start": 0.5, "pairs": 0.5}}]
    with pytest.raises(ConfigError, match="adapters can't be merged"):
        run(tmp_path, plan, use_peft=True, lora_r=2)


def test_a_neutral_stage_is_a_plain_run(tmp_path: Path) -> None:
    from accordance.training import train

    one = run(tmp_path / "a", [{"name": "only"}])
    options = QUICK | {"output_dir": str(tmp_path / "b")}
    plain = train(policy(0), records(24).select(range(16)), TrainingConfig.of(options))
    for name, value in state(one).items():
        assert torch.equal(value, state(plain)[name])


def test_likelihoods_are_those_of_the_policy(tmp_path: Path) -> None:
    config = TrainingConfig.of(QUICK | {"output_dir": str(tmp_path), "loop": "stages", "loop.plan": [PAIRS]})
    own = policy(0)
    found = likelihoods(Session(own, HELD, config), DOCUMENTS)
    table = own.logprobs(DOCUMENTS)
    assert found == {"logp": pytest.approx(table["logprob"].sum() / table["tokens"].sum())}


def test_a_stage_of_plain_texts_learns_every_token_and_no_text_sees_another() -> None:
    own = policy(0)
    table = own.logprobs(DOCUMENTS)
    lengths = [len(own.tokenizer(record.responses[0].text)["input_ids"]) + 1 for record in DOCUMENTS]
    # All tokens and the end, but for the first one: nothing stands before it.
    assert table["tokens"].tolist() == [length - 1 for length in lengths]
    alone = [own.logprobs(DOCUMENTS.select([i]))["logprob"][0] for i in range(3)]
    assert table["logprob"][:3].tolist() == pytest.approx(alone, rel=1e-4)


def test_stage_is_data() -> None:
    assert Stage.model_validate(TEXTS).model_dump(exclude_unset=True) == TEXTS
