"""The fast path equals an unpadded one-by-one forward: log-probabilities and gradients, for every architecture."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers as hf

from accordance.models import Engine, Group, naive_logps, pack
from accordance.models.attention import Layout, _blocks, _flex, plan
from accordance.models.engine import relative_gap
from tests.tiny import randomise

V = 97
BASE = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GQA = BASE | {"num_key_value_heads": 2}
GEMMA = GQA | {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
WINDOW = 6  # shorter than the texts below

SHARED = {
    "llama": lambda: hf.LlamaConfig(**GQA),
    "llama tied": lambda: hf.LlamaConfig(**GQA, tie_word_embeddings=True, attention_bias=True),
    "qwen2": lambda: hf.Qwen2Config(**GQA),
    "qwen3": lambda: hf.Qwen3Config(**GQA, head_dim=8),
    "mistral with a window": lambda: hf.MistralConfig(**GQA, sliding_window=WINDOW),
    "gemma2": lambda: hf.Gemma2Config(**GEMMA),
    "gemma3": lambda: hf.Gemma3TextConfig(**GEMMA, final_logit_softcapping=10.0, attn_logit_softcapping=5.0),
    "phi3": lambda: hf.Phi3Config(**GQA),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    ),
    "gpt neox": lambda: hf.GPTNeoXConfig(**BASE),
    "opt with a projection": lambda: hf.OPTConfig(
        vocab_size=V, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=16, dropout=0,
    ),
    "mixtral": lambda: hf.MixtralConfig(**GQA, num_local_experts=4),
    "qwen3 moe": lambda: hf.Qwen3MoeConfig(
        **GQA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8
    ),
    "cohere (scaled scores)": lambda: hf.CohereConfig(**GQA),
    "granite (scaled scores)": lambda: hf.GraniteConfig(**GQA, logits_scaling=3.0),
}  # fmt: skip
PLAIN = {
    "bloom (ALiBi)": lambda: hf.BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=4),
    "falcon": lambda: hf.FalconConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
    "mamba": lambda: hf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4),
}


def ids(size: int, draw: torch.Generator) -> list[int]:
    return torch.randint(3, V, (size,), generator=draw).tolist()


def groups() -> list[Group]:
    """Two and three responses, one of a single token, no prompt, one response."""
    draw = torch.Generator().manual_seed(1)
    shapes = [(12, (9, 5)), (3, (1, 14, 8)), (0, (10,)), (20, (4,))]
    return [Group(ids(p, draw), [ids(r, draw) for r in rs]) for p, rs in shapes]


def build(config: hf.PretrainedConfig, **kwargs: object) -> torch.nn.Module:
    soft = getattr(config, "attn_logit_softcapping", None)
    model = hf.AutoModelForCausalLM.from_config(config, **({"attn_implementation": "eager"} if soft else {}))
    randomise(model, 0, 0.15)
    return model.eval()


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model: torch.nn.Module, engine: Engine, some: list[Group]) -> None:
    plain = torch.cat([naive_logps(model, group) for group in some])
    weight = torch.randn(len(plain), generator=torch.Generator().manual_seed(2))
    expected = gradients((plain * weight).sum(), model)
    out = engine(some)
    got = gradients((out.logp * weight).sum(), model)
    assert relative_gap(out.logp, plain) < 1e-4
    assert out.lengths.tolist() == [len(r) - (not g.prompt) for g in some for r in g.responses]
    largest = max(float(g.norm()) for g in expected.values())
    for name, gradient in expected.items():
        assert float((got[name] - gradient).norm()) < 1e-4 * max(float(gradient.norm()), 1e-2 * largest), name


@pytest.mark.parametrize("name", SHARED)
def test_shared_layout_is_exact(name: str) -> None:
    model = build(SHARED[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        engine = Engine(model)
    assert engine.shared
    assert_same(model, engine, groups())


@pytest.mark.parametrize("name", PLAIN)
def test_where_sharing_is_not_exact_the_plain_path_is_used_and_said(name: str) -> None:
    model = build(PLAIN[name]())
    with pytest.warns(UserWarning, match="computed once per response"):
        engine = Engine(model)
    assert not engine.shared and engine.reason
    assert_same(model, engine, groups())


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = build(SHARED["mistral with a window"]())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert_same(model, Engine(model), groups())


def test_two_batches_may_wait_for_their_backward_pass() -> None:
    model = build(SHARED["llama"]())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    engine, some = Engine(model), groups()
    expected = gradients(engine(some[:1]).logp.sum(), model)
    first, second = engine(some[:1]).logp.sum(), engine(some[1:]).logp.sum()
    got = gradients(first + 0 * second, model)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6)


def test_an_adapter_on_layers_and_head_is_honoured() -> None:
    from peft import LoraConfig, get_peft_model

    model = build(SHARED["llama"]())
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj", "lm_head"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    engine, some = Engine(wrapped), groups()
    on, off = engine(some).logp, None
    assert relative_gap(on, torch.cat([naive_logps(wrapped, g) for g in some])) < 1e-4
    with wrapped.disable_adapter():
        off = engine(some).logp
        assert relative_gap(off, torch.cat([naive_logps(wrapped, g) for g in some])) < 1e-4
    assert relative_gap(on, off) > 1e-2


@pytest.mark.parametrize("rows", [16, 3])
def test_chunks_of_the_head_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from accordance.models import head

    monkeypatch.setattr(head, "_rows", lambda vocabulary: rows)
    monkeypatch.setattr(head, "KEEP_BYTES", 4 * rows * V)  # keep one chunk, recompute the others
    model = build(SHARED["gemma3"]())
    assert_same(model, Engine(model), groups())


def test_a_second_backward_pass_recomputes_what_the_first_one_spent() -> None:
    model = build(SHARED["llama"]())
    loss = Engine(model)(groups()).logp.sum()
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b)


def test_a_head_with_a_bias() -> None:
    model = build(SHARED["llama"]())
    model.lm_head.bias = torch.nn.Parameter(torch.randn(V))
    assert_same(model, Engine(model), groups())


def test_unknown_treatment_of_scores_is_refused_not_ignored() -> None:
    model = build(SHARED["llama"]())
    ordinary = model.forward

    def strange(*args: object, **kwargs: object) -> object:
        out = ordinary(*args, **kwargs)
        out.logits = out.logits * 2 + 1
        return out

    model.forward = strange
    with pytest.warns(UserWarning, match="unknown to its scores"):
        assert not Engine(model).shared


def test_entropy_and_hidden_states_are_those_of_a_plain_forward() -> None:
    model = build(SHARED["qwen3"]())
    engine, some = Engine(model), groups()
    out = engine(some, hidden=True, entropy=True)
    assert relative_gap(out.logp, engine(some).logp) < 1e-5
    entropy, hidden = [], []
    for group in some:
        for response in group.responses:
            row = torch.tensor([[*group.prompt, *response]])
            plain = model(row, output_hidden_states=True)
            logps = plain.logits[0, max(len(group.prompt), 1) - 1 : -1].log_softmax(-1)
            entropy.append(-(logps.exp() * logps).sum(-1))
            hidden.append(plain.hidden_states[-1][0, -1])
    torch.testing.assert_close(out.entropy, torch.cat(entropy), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.hidden, torch.stack(hidden), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(2, (40, 50)), (200, (40, 50)), (300, (300,) * 3), (0, (5,)), (0, (5, 60))])
@pytest.mark.parametrize("window", [None, 7])
def test_every_cut_of_the_attention_and_flex_attention_agree(sizes: tuple, window: int | None) -> None:
    prompt, responses = sizes
    draw = torch.Generator().manual_seed(0)
    group = Group(ids(prompt, draw), [ids(r, draw) for r in responses])
    packed = pack([group, Group([5, 6], [[7, 8, 9]])], keep_last=True)
    layout = Layout(packed.segments, torch.device("cpu"))
    q, k, v = (torch.randn(1, 2, packed.input_ids.shape[1], 16, generator=draw) for _ in range(3))
    ours = _blocks(layout, q, k, v, 0.3, 0.0, window, None)
    capped = _blocks(layout, q, k, v, 0.3, 0.0, window, 1e6)  # explicit maths, a cap that does nothing
    torch.testing.assert_close(ours, capped, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, _flex(layout, q, k, v, 0.3, window, None), rtol=1e-4, atol=1e-5)
    covered = sorted(i for queries, _ in plan(packed.segments[0]) for i in range(*queries))
    assert covered == list(range(packed.segments[0].size))


def test_batch_size_and_order_do_not_change_a_score() -> None:
    engine, some = Engine(build(SHARED["llama"]())), groups()
    together = engine(some).logp
    alone = torch.cat([engine([group]).logp for group in some])
    backwards = engine(some[::-1])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    expected = torch.cat([engine([group]).logp for group in some[::-1]])
    torch.testing.assert_close(backwards.logp, expected, rtol=1e-5, atol=1e-5)


def test_each_prompt_is_computed_once() -> None:
    group = Group(list(range(3, 43)), [[1, 2, 3]] * 8)
    assert pack([group], keep_last=True).input_ids.numel() == group.tokens == 40 + 24
    assert pack([group], shared=False, keep_last=True).input_ids.numel() == group.repeated_tokens == 8 * 43


def test_a_layout_that_is_gone_is_an_error_not_an_ordinary_mask() -> None:
    from accordance.core.errors import ModelError
    from accordance.models import attention

    marker = Layout(pack([Group([5], [[6, 7]])]).segments, torch.device("cpu")).marker()
    assert attention.find_layout(marker) is not None
    attention._layouts.pop(marker.shape[-1])
    with pytest.raises(ModelError, match="layout"):
        attention.find_layout(marker)
