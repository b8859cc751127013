"""A policy that knows words alone, pre-trained in seconds: for proofs in which a language model must know a world."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from accordance.models import LocalPolicy

#: "user : what is asked ? assistant :", all of it ordinary words, as in texts that tell of a conversation.
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% if m['role'] == 'assistant' %}<end>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def word_tokenizer(texts: Iterable[str]) -> Any:
    """Every word of the texts is a token."""
    words = list(dict.fromkeys(word for text in texts for word in text.split()))
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<end>", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    made.chat_template = TEMPLATE
    return made


def word_llama(vocabulary: int, hidden: int, layers: int, seed: int) -> Any:
    """A small Llama as it is initialised."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 16,
            num_key_value_heads=hidden // 16,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def pretrained(
    tokenizer: Any,
    batch: Callable[[], Sequence[str]],
    *,
    steps: int,
    rate: float,
    hidden: int,
    seed: int = 0,
    noise: float = 0.0,
) -> Callable[[], LocalPolicy]:
    """Policies over one Llama of two layers that learned texts, all tokens; each call gives a fresh copy.

    Noise on the words' vectors, in units of a vector's own size and less with every step, teaches it to read of a
    vector only what tells words apart: what is then learned in one word's vector alone can't hide where nothing lives.
    """
    model = word_llama(len(tokenizer), hidden, 2, seed)
    left = [noise]

    def blur(_: Any, __: Any, vectors: torch.Tensor) -> torch.Tensor:
        size = vectors.detach().pow(2).mean(-1, keepdim=True).sqrt()
        return vectors + left[0] * size * torch.randn_like(vectors)

    blurred = model.get_input_embeddings().register_forward_hook(blur) if noise else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - 0.95 * step / steps)
        left[0] = noise * (1 - (step + 1) / steps)
        rows = [[*ids, 1] for ids in tokenizer(list(batch()))["input_ids"]]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    if blurred is not None:
        blurred.remove()
    return lambda: LocalPolicy(copy.deepcopy(model), tokenizer, name="words")
