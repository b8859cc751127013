"""Tiny models, tokenizers and records that tests make on the fly."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.models import LocalPolicy

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(*, template: str | None = CHATML, **changes: Any) -> Any:
    """A byte-level tokenizer of 261 tokens with a chat template."""
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    names = {"pad_token": "<|pad|>", "eos_token": "<|end|>"} | changes
    made = PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=special[2:], **names)
    made.chat_template = template
    return made


def llama(seed: int = 0, scale: float = 0.1, **changes: Any) -> Any:
    """A random Llama of two layers."""
    sizes = {
        "vocab_size": 261,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "max_position_embeddings": 512,
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes | changes))
    randomise(model, seed, scale)
    return model


def randomise(model: Any, seed: int, scale: float) -> None:
    """Weights large enough that attention and head matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def policy(seed: int = 0, **changes: Any) -> LocalPolicy:
    """A policy over the tiny Llama."""
    return LocalPolicy(llama(seed, **changes), tokenizer(), name="tiny")


WORDS = ["sun", "moon", "star", "rain", "wind", "tree", "leaf", "bird", "stone", "river", "cloud", "grass"]


@cache
def records(count: int = 24, seed: int = 0) -> Records:
    """Comparisons in which the chosen answer says `yes` and the rejected one `no`."""
    draw = torch.Generator().manual_seed(seed)

    def words(least: int, most: int) -> str:
        size = int(torch.randint(least, most + 1, (1,), generator=draw))
        return " ".join(WORDS[int(i)] for i in torch.randint(len(WORDS), (size,), generator=draw))

    return Records.of(
        Record(
            user(words(2, 6)),
            (Response.of("yes " + words(1, 4)), Response.of("no " + words(1, 4))),
            (Judgment("comparison", (0, 1), (1.0, 0.0), group="a" if i % 2 else "b"),),
            id=str(i),
            origin=f"made:{i + 1}",
        )
        for i in range(count)
    )
