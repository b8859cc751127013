"""`evaluate` on real (tiny, random) language models: the same numbers as the plain path gives, token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import Wordcount
from peft import LoraConfig, get_peft_model
from tests import tiny

from accordance.evaluation import AdapterOff, draw, evaluate
from accordance.models import LocalPolicy


@pytest.fixture(scope="module")
def policies() -> tuple[LocalPolicy, LocalPolicy]:
    return tiny.policy(1), tiny.policy(2)


def test_kl_of_sampled_tokens_equals_what_the_sampler_noted(policies: tuple[LocalPolicy, LocalPolicy]) -> None:
    policy, reference = policies
    answers = draw(policy, tiny.records(), reference, samples=6, per_prompt=3, max_new_tokens=8)
    assert any(not c.finished for c in answers.after), "the case of a cut answer must be among them"
    noted = np.array([sum(c.logprobs) for c in answers.after])
    assert answers.logp == pytest.approx(noted, rel=1e-4)
    assert answers.tokens == pytest.approx([len(c.token_ids) for c in answers.after])
    assert answers.ref_logp is not None and np.isfinite(answers.ref_logp).all()
    swapped = draw(policy, tiny.records(), policy, samples=6, per_prompt=3, max_new_tokens=8)
    assert swapped.ref_logp == pytest.approx(swapped.logp)


def test_a_whole_evaluation_of_two_models(policies: tuple[LocalPolicy, LocalPolicy], tmp_path: Path) -> None:
    policy, reference = policies
    report = evaluate(
        policy,
        tiny.records(),
        reference=reference,
        scorer=Wordcount(),
        samples=8,
        max_new_tokens=8,
        output_dir=tmp_path,
    )
    values = report.values
    margins = policy.logprobs(tiny.records()), reference.logprobs(tiny.records())
    table = (
        margins[0]
        .assign(reward=margins[0].logprob - margins[1].logprob)
        .pivot(index="record", columns="response", values="reward")
    )
    assert values["preference_accuracy"] == np.mean(table[0] > table[1])
    assert values["chosen_logp_change"] == pytest.approx(table[0].mean(), rel=1e-5)
    assert set(values["by_group"]) == {"a", "b"}
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    assert len(frame) == 8 and values["length_after"] == frame.length_after.mean() <= 8
    assert values["kl"] == pytest.approx((frame.logp_after - frame.ref_logp_after).mean())


def test_a_policy_with_an_adapter_brings_its_own_reference() -> None:
    bare = tiny.policy(3)
    before = bare.logprobs(tiny.records())
    adapted = get_peft_model(tiny.llama(3), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.3)
    policy = LocalPolicy(adapted, tiny.tokenizer(), name="adapted")
    assert AdapterOff(policy).logprobs(tiny.records()).logprob.to_numpy() == pytest.approx(
        before.logprob, rel=1e-4
    )
    report = evaluate(policy, tiny.records(), samples=4, max_new_tokens=6)
    change = policy.logprobs(tiny.records()).logprob - before.logprob
    assert report.values["chosen_logp_change"] == pytest.approx(change[0::2].mean(), rel=1e-3)
    assert report.meta["reference"] == "adapted without its adapter"


def test_a_path_is_loaded_and_a_model_scores_the_same_from_disk(tmp_path: Path) -> None:
    policy = tiny.policy(4)
    policy.save(tmp_path / "model")
    mine = evaluate(policy, tiny.records(), samples=0).values
    theirs = evaluate(str(tmp_path / "model"), tiny.records(), samples=0).values
    assert theirs["margin"] == pytest.approx(mine["margin"], rel=1e-4)
