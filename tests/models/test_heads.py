"""Several heads over one backbone: exact scores, gradients that keep apart, blends, checkpoints that come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from accordance.core.errors import ConfigError, DataError, ModelError
from accordance.models import Engine, Group, add_heads, heads_of, load_policy, merge_heads, naive_logps, pack
from accordance.models.reference import CachedReference, CopiedReference, Reference, group_keys
from tests.models.test_exact import SHARED, build, groups
from tests.tiny import llama, policy

NAMES = ("helpful", "polite", "short")


def headed(seed: int = 0, scale: float = 0.05, **changes: Any) -> Any:
    made = llama(seed, **changes)
    add_heads(made, NAMES, scale=scale, seed=3)
    return made


@pytest.mark.parametrize("name", ["llama tied", "gpt2", "gpt neox", "gemma2", "cohere (scaled scores)"])
@pytest.mark.parametrize("shared", [True, False])
def test_each_group_is_scored_by_its_own_head_as_a_plain_forward_would(name: str, shared: bool) -> None:
    model = build(SHARED[name]())
    heads, some = add_heads(model, NAMES, scale=0.1, seed=1), groups()
    own = [replace(group, head=number % 3) for number, group in enumerate(some)]
    got = Engine(model, shared=shared)(own)
    expected = []
    for group, plain in zip(own, some):
        with heads.using(NAMES[group.head or 0]):
            expected.append(naive_logps(model, plain))
    torch.testing.assert_close(got.logp, torch.cat(expected), rtol=1e-4, atol=1e-4)
    blended = Engine(model, shared=shared)(some).logp
    assert (blended - got.logp).abs().max() > 1e-2
    torch.testing.assert_close(torch.cat([naive_logps(model, g) for g in own]), got.logp, rtol=1e-4, atol=1e-4)


def test_a_pair_of_one_objective_moves_the_backbone_and_its_own_head_alone() -> None:
    model, pair = headed(), Group([5, 6, 7], [[8, 9, 1], [10, 1]], head=1)
    chosen, rejected = Engine(model)([pair]).logp
    torch.nn.functional.softplus(rejected - chosen).backward()
    moved = [float(head.weight.grad.abs().max()) for head in heads_of(model).heads]
    assert moved[0] == moved[2] == 0 and moved[1] > 0
    assert float(model.get_input_embeddings().weight.grad.abs().max()) > 0


def test_every_head_has_noise_of_its_own_and_is_tied_to_nothing() -> None:
    before = llama(tie_word_embeddings=True)
    start = before.get_output_embeddings().weight.detach().clone()
    heads = add_heads(before, NAMES, scale=1e-3, seed=0)
    noise = torch.stack([head.weight.detach() - start for head in heads.heads])
    assert noise.std((1, 2)).tolist() == pytest.approx([1e-3] * 3, rel=0.05)
    assert torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max() < 0.05
    with torch.no_grad():
        heads.heads[0].weight += 1
    assert torch.equal(before.get_input_embeddings().weight, start) and not before.config.tie_word_embeddings
    again = add_heads(llama(tie_word_embeddings=True), NAMES, scale=1e-3, seed=0)
    assert torch.equal(again.heads[2].weight, heads.heads[2].weight)


def test_without_noise_every_head_is_the_model() -> None:
    some, model = groups(), build(SHARED["llama"]())
    before = Engine(model)(some).logp
    add_heads(model, NAMES, scale=0.0)
    for head in (None, 0, 2):
        torch.testing.assert_close(Engine(model)([replace(g, head=head) for g in some]).logp, before)


def test_a_blend_is_one_linear_layer_with_averaged_weights() -> None:
    model, some = headed(), [Group([5, 6, 7], [[8, 9, 1], [10, 1]])]
    heads, blend = heads_of(model), {"helpful": 3.0, "short": 1.0}
    heads.choose(blend)
    assert heads.alpha == (0.75, 0.0, 0.25)
    states = torch.randn(4, heads.in_features)
    mixed = 0.75 * heads.heads[0](states) + 0.25 * heads.heads[2](states)
    torch.testing.assert_close(heads(states), mixed)
    before = Engine(model)(some).logp
    merge_heads(model, blend)
    assert type(model.get_output_embeddings()) is torch.nn.Linear and heads_of(model) is None
    torch.testing.assert_close(Engine(model)(some).logp, before, rtol=1e-5, atol=1e-5)


def test_it_writes_by_the_head_that_is_chosen() -> None:
    made = policy()
    heads = add_heads(made.model, NAMES, scale=0.3, seed=1)
    texts = {}
    for name in NAMES:
        heads.choose(name)
        (answer,) = made.generate(["sun"], max_new_tokens=12, temperature=0)[0]
        texts[name] = answer.token_ids
        ids = made.encode(*_asked("sun")).prompt_ids
        score = made.engine([Group(ids, [list(answer.token_ids)], head=NAMES.index(name))])
        assert sum(answer.logprobs) == pytest.approx(float(score.logp.detach()), rel=1e-3)
    assert len(set(texts.values())) == 3


def _asked(text: str) -> Any:
    from accordance.core.record import user

    return user(text), ()


def test_a_checkpoint_comes_back_with_its_heads_and_is_an_ordinary_one_to_others(tmp_path: Path) -> None:
    made, some = policy(tie_word_embeddings=True), [Group([5, 6, 7], [[8, 9, 1], [10, 1]], head=2)]
    add_heads(made.model, NAMES, scale=0.05)
    made.save(tmp_path)
    again = load_policy(tmp_path)
    assert heads_of(again.model).names == NAMES
    torch.testing.assert_close(again.engine(some).logp, made.engine(some).logp)
    plain = hf.AutoModelForCausalLM.from_pretrained(tmp_path)
    whole = [replace(some[0], head=None)]
    torch.testing.assert_close(Engine(plain)(whole).logp, made.engine(whole).logp)
    merge_heads(again.model, "short")
    again.save(tmp_path / "short")
    alone = load_policy(tmp_path / "short")
    assert heads_of(alone.model) is None
    torch.testing.assert_close(alone.engine(whole).logp, made.engine(some).logp)
    again.model.config.accordance_heads = list(NAMES)
    again.save(tmp_path / "broken")
    with pytest.raises(ModelError, match="heads that its weights lack"):
        load_policy(tmp_path / "broken")


def test_the_reference_of_a_head_is_that_head_of_the_reference(tmp_path: Path) -> None:
    model, pair = headed(), Group([5, 6, 7], [[8, 9, 1], [10, 1]])
    engine, own = Engine(model), [replace(pair, head=n) for n in range(3)]
    cached = CachedReference(Reference(engine), "heads", tmp_path)
    first, again = cached(own), cached(own)
    assert cached.misses == 6 and len({*group_keys(pair), *(k for g in own for k in group_keys(g))}) == 8
    torch.testing.assert_close(again.logp, first.logp)
    torch.testing.assert_close(first.logp, engine(own).logp.detach())
    copied = CopiedReference(engine)
    with torch.no_grad():
        for head in heads_of(model).heads:
            head.weight += 0.1 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(copied(own).logp, first.logp)
    copied.sync(model)
    torch.testing.assert_close(copied(own).logp, engine(own).logp.detach())


def test_what_can_not_be_is_refused() -> None:
    model, pair = headed(), Group([5], [[8, 1]])
    with pytest.raises(ModelError, match="does not have"):
        Engine(llama())([replace(pair, head=0)])
    with pytest.raises(ModelError, match="does not have"):
        Engine(model)([replace(pair, head=3)])
    with pytest.raises(DataError, match="or none does"):
        pack([pair, replace(pair, head=0)])
    with pytest.raises(ConfigError, match="other names"):
        add_heads(model, ("a", "b"))
    with pytest.raises(ConfigError, match="two or more"):
        add_heads(llama(), ("a", "a"))
    with pytest.raises(ModelError, match="nothing to blend"):
        merge_heads(llama())
    for blend, says in (({"helpfull": 1.0}, "did you mean"), ({"helpful": -1.0}, "not below 0"), ({}, "all 0")):
        with pytest.raises(ConfigError, match=says):
            heads_of(model).choose(blend)
