"""Loading, scoring, generating, and the reference cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from accordance import load_policy, logprobs
from accordance.core.errors import ConfigError, ModelError
from accordance.core.policy import Policy
from accordance.core.record import Record, Records, Response, user
from accordance.models import CachedReference, Group, LocalPolicy, Reference, batches, naive_logps, weights_hash
from tests.tiny import llama, policy, records, tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    policy().save(tmp_path / "model")
    return tmp_path / "model"


def test_a_checkpoint_on_disk_scores_as_the_model_that_was_saved(folder: Path) -> None:
    some = records(6)
    table = logprobs(load_policy(folder), some)
    assert list(table.columns) == ["record", "response", "logprob", "tokens"]
    expected = policy()
    groups = expected.encoder.groups(some)
    plain = torch.cat([naive_logps(expected.model, group) for group in groups])
    torch.testing.assert_close(torch.tensor(table.logprob), plain.double(), rtol=1e-4, atol=1e-4)
    assert table.tokens.tolist() == [len(r) for g in groups for r in g.responses]


def test_a_policy_is_a_policy() -> None:
    assert isinstance(policy(), Policy)


def test_greedy_generation_takes_the_likeliest_token_and_is_independent_of_the_batch() -> None:
    writer = policy()
    prompts = ["sun", "a much longer prompt than the others", "rain and wind"]
    together = writer.generate(prompts, max_new_tokens=8, temperature=0)
    for prompt, (completion,) in zip(prompts, together):
        (alone,) = writer.generate([prompt], max_new_tokens=8, temperature=0)[0]
        assert alone.token_ids == completion.token_ids
        ids = list(writer.encode(user(prompt), []).prompt_ids)
        for token in completion.token_ids:
            assert token == int(writer.model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


def test_sampling_log_probabilities_are_those_of_the_scoring_path() -> None:
    writer = policy()
    prompts = ["sun", "moon and star"]
    for temperature in (1.0, 0.7):
        out = writer.generate(prompts, n=3, max_new_tokens=6, temperature=temperature, top_p=0.9, seed=3)
        assert [len(row) for row in out] == [3, 3]
        for prompt, row in zip(prompts, out):
            ids = writer.encode(user(prompt), []).prompt_ids
            for completion in row:
                scored = writer.engine([Group(ids, [completion.token_ids])]).tokens
                torch.testing.assert_close(
                    torch.tensor(completion.logprobs), scored.detach(), rtol=1e-4, atol=1e-4
                )
                assert completion.finished == (completion.token_ids[-1] == 1)


def test_the_seed_is_the_only_source_of_randomness() -> None:
    writer = policy()
    torch.manual_seed(1)
    first = writer.generate(["sun"], n=4, max_new_tokens=6, seed=5)
    state = torch.random.get_rng_state()
    assert writer.generate(["sun"], n=4, max_new_tokens=6, seed=5) == first
    assert torch.equal(state, torch.random.get_rng_state())
    assert writer.generate(["sun"], n=4, max_new_tokens=6, seed=6) != first


def test_impossible_sampling_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="top_p"):
        policy().generate(["sun"], top_p=0.0)


def test_a_missing_pad_token_is_settled_and_said() -> None:
    made = LocalPolicy(llama(), tokenizer(pad_token=None))
    assert any("no pad token" in note for note in made.notes)
    assert made.generate(["sun", "a longer prompt"], max_new_tokens=3, temperature=0)


def test_what_can_not_be_loaded_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        load_policy(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no causal LM"):
        load_policy(tmp_path / "empty")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_policy(folder)
    with pytest.raises(ModelError, match="more tokens than the model has embeddings"):
        LocalPolicy(llama(vocab_size=100), tokenizer())


def test_a_folder_with_an_adapter_brings_its_base_model(tmp_path: Path, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_policy(folder)
    wrapped = get_peft_model(base.model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    expected = LocalPolicy(wrapped, tokenizer()).logprobs(records(4)).logprob
    loaded = load_policy(tmp_path / "adapter")
    assert loaded.has_adapter
    assert loaded.logprobs(records(4)).logprob.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    with loaded.adapter_off():
        off = loaded.logprobs(records(4)).logprob
    assert off.tolist() == pytest.approx(load_policy(folder).logprobs(records(4)).logprob.tolist(), rel=1e-4)


def test_empty_responses_are_scored_as_their_end_token() -> None:
    table = policy().logprobs(Records.of([Record(user("sun"), (Response.of(""), Response.of("yes")))]))
    assert table.tokens.tolist() == [1, 4]


def test_the_cache_survives_shuffling_and_appending_and_computes_only_what_is_new(tmp_path: Path) -> None:
    model = policy()
    groups = model.encoder.groups(records(10))
    source = Reference(model.engine)
    first = CachedReference(source, "abc", tmp_path)
    assert first.prepare(groups[:6]) == 12
    again = CachedReference(source, "abc", tmp_path)
    assert again.prepare(groups[5::-1]) == 0
    assert again.prepare(groups) == 8
    out, straight = again(groups[3:5]), source(groups[3:5])
    torch.testing.assert_close(out.logp, straight.logp, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.tokens, straight.tokens, rtol=1e-5, atol=1e-5)
    assert CachedReference(source, "other", tmp_path).prepare(groups) == 20


def test_the_weights_hash_sees_every_weight_and_looks_through_adapters() -> None:
    from peft import LoraConfig, get_peft_model

    model = llama()
    before = weights_hash(model)
    assert weights_hash(llama()) == before != weights_hash(llama(seed=1))
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    assert weights_hash(wrapped) == before != weights_hash(wrapped, adapter=True)
    with torch.no_grad():
        next(iter(wrapped.get_base_model().model.layers[1].mlp.up_proj.base_layer.parameters()))[0, 0] += 1
    assert weights_hash(wrapped) != before


def test_batches_keep_order_and_budget() -> None:
    groups = [Group([1] * size, [[2] * 3]) for size in (4, 9, 1, 30, 2, 2)]
    made = list(batches(groups, 16))
    assert [group for batch in made for group in batch] == groups
    assert [sum(g.tokens for g in batch) <= 16 or len(batch) == 1 for batch in made] == [True] * len(made)
    assert len(made) == 4
