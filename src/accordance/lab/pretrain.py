"""Pre-training of the base model: a small Llama learns to write the small world's answers, good and bad alike.

A plain torch loop. Chats come from the seeded writer of mixed quality; the loss is on what the assistant says,
and with a small weight on what the user asks.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from accordance.core.errors import ConfigError
from accordance.core.record import Message
from accordance.lab.card import model_card
from accordance.lab.tokenizer import END, PAD, build_tokenizer, some_chat

#: System messages that a tenth of the chats begin with; they ask for nothing (those of the scenes do).
SYSTEMS = ("You are a helpful assistant.", "You are a small helper.", "Answer the question.")


@dataclass(frozen=True)
class Pretraining:
    """What became of a pre-training run; all figures as measured.

    Attributes:
        steps: optimiser steps done (fewer than asked for if the time ran out).
        chats: conversations seen.
        tokens: tokens seen, without padding.
        loss: (step, mean loss per assistant token in nats) over the run.
        held_out_loss: the same on 512 chats of the world from another seed, at the end.
        scenes_loss: the same on 512 chats of the scenes.
        seconds: wall time of the training loop.
        parameters: of the model.
        threads: CPU threads that torch used.
        stopped_early: whether the time limit ended it.
    """

    steps: int
    chats: int
    tokens: int
    loss: tuple[tuple[int, float], ...]
    held_out_loss: float
    scenes_loss: float
    seconds: float
    parameters: int
    threads: int
    stopped_early: bool


def pretrain(
    output_dir: str | Path,
    *,
    steps: int = 4000,
    seed: int = 0,
    batch_size: int = 48,
    learning_rate: float = 3e-3,
    prompt_weight: float = 0.1,
    scenes: float = 0.4,
    minutes: float = 25.0,
    vocab_size: int = 2048,
    tokenizer_chats: int = 20_000,
    hidden_size: int = 128,
    layers: int = 6,
    show_progress: bool = True,
) -> Pretraining:
    """Train the base model and write it as an ordinary `transformers` checkpoint with a model card.

    The same arguments on the same machine and number of threads give the same weights, unless the time limit
    ends the run.

    Args:
        output_dir: where model, tokenizer and README.md go.
        steps: optimiser steps; the learning rate warms up over 2 % of them and decays to a tenth as a cosine.
        seed: of text, weights and order.
        batch_size: chats per step.
        learning_rate: at its peak.
        prompt_weight: weight of the loss on the user's words, against 1 on the assistant's.
        scenes: the share of chats that are of `accordance.lab.scenes` and not a single question of the world.
        minutes: wall time after which training stops and the model is written as it is.
        vocab_size: of the tokenizer.
        tokenizer_chats: prompts and answers that the tokenizer is trained on.
        hidden_size: width of the model; heads are 32 wide.
        layers: depth of the model.
        show_progress: draw a progress bar.

    Returns:
        What was measured; the model card says the same.

    Raises:
        ConfigError: an option is out of range.
    """
    _check(steps=steps, batch_size=batch_size, hidden_size=hidden_size, layers=layers)
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(vocab_size=vocab_size, seed=seed, chats=tokenizer_chats, scenes=scenes)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(tokenizer, hidden_size, layers))
    options = {"steps": steps, "seed": seed, "batch_size": batch_size, "learning_rate": learning_rate}
    options |= {"prompt_weight": prompt_weight, "scenes": scenes, "minutes": minutes}
    result = _train(model, tokenizer, show_progress=show_progress, **options)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    options |= {
        "vocab_size": vocab_size,
        "tokenizer_chats": tokenizer_chats,
        "hidden_size": hidden_size,
        "layers": layers,
    }
    (output / "README.md").write_text(model_card(model, tokenizer, asdict(result), options), encoding="utf-8")
    (output / "pretraining.json").write_text(json.dumps({"options": options} | asdict(result), indent=1))
    return result


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    seed: int,
    batch_size: int,
    learning_rate: float,
    prompt_weight: float,
    scenes: float,
    minutes: float,
    show_progress: bool,
) -> Pretraining:
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))
    warm = max(1, steps // 50)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, warm, steps))
    batches = _batches(tokenizer, random.Random(f"pretrain {seed}"), batch_size, prompt_weight, scenes)
    began, trace, recent, tokens, done = time.monotonic(), [], [], 0, 0
    model.train()
    with _progress(show_progress) as progress:
        task = progress.add_task("pre-training", total=steps, loss=float("nan"))
        for step in range(1, steps + 1):
            ids, weights, real = next(batches)
            loss, assistant = _losses(model, ids, weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent.append(assistant.item())
            tokens, done = tokens + real, step
            if step % max(1, steps // 40) == 0 or step == steps:
                trace.append((step, round(sum(recent) / len(recent), 4)))
                recent = []
            progress.update(task, advance=1, loss=assistant.item())
            if time.monotonic() - began > 60 * minutes:
                break
    seconds = time.monotonic() - began
    return Pretraining(
        steps=done,
        chats=done * batch_size,
        tokens=tokens,
        loss=tuple(trace),
        held_out_loss=round(_held_out(model, tokenizer, seed, 0.0), 4),
        scenes_loss=round(_held_out(model, tokenizer, seed, 1.0), 4),
        seconds=round(seconds, 1),
        parameters=model.num_parameters(),
        threads=torch.get_num_threads(),
        stopped_early=done < steps,
    )


def _losses(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted loss, and the mean loss per assistant token; the head runs only where there is a label.

    Args:
        model: the model.
        ids: token ids [chats, length], padded on the right, which causal attention never looks at.
        weights: weight of each token as a label [chats, length]; 1 marks what the assistant says.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = weights[:, 1:] > 0
    losses = cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted], reduction="none")
    weight = weights[:, 1:][wanted]
    return (losses * weight).sum() / weight.sum(), losses.detach()[weight == 1].mean()


def _batches(
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    batch_size: int,
    prompt_weight: float,
    scenes: float,
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches of chats of like length, without end: (ids, label weights, tokens without padding)."""
    while True:
        pool = _encode(tokenizer, [_chat(rng, scenes) for _ in range(batch_size * 32)], prompt_weight)
        pool.sort(key=lambda chat: len(chat[0]))
        cuts = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(cuts)
        for cut in cuts:
            length = max(len(ids) for ids, _ in cut)
            pad = tokenizer.pad_token_id
            ids = torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in cut])
            weights = torch.tensor([w + [0.0] * (length - len(w)) for _, w in cut])
            yield ids, weights, sum(len(ids) for ids, _ in cut)


def _chat(rng: random.Random, scenes: float) -> tuple[str, str]:
    """What stands before the assistant's words, rendered, and what the assistant says."""
    asked, answer = some_chat(rng, scenes)
    if rng.random() < 0.1 and asked[0].role != "system":
        asked = (Message("system", rng.choice(SYSTEMS)), *asked)
    turns = "".join(f"<|{turn.role}|>{turn.content}{END}" for turn in asked)
    return f"{turns}<|assistant|>", f"{answer}{END}"


def _encode(
    tokenizer: PreTrainedTokenizerFast, chats: Sequence[tuple[str, str]], prompt_weight: float
) -> list[tuple[list[int], list[float]]]:
    prompts = tokenizer([prompt for prompt, _ in chats])["input_ids"]
    answers = tokenizer([answer for _, answer in chats])["input_ids"]
    return [(p + a, [prompt_weight] * len(p) + [1.0] * len(a)) for p, a in zip(prompts, answers)]


@torch.no_grad()
def _held_out(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, scenes: float) -> float:
    batches = _batches(tokenizer, random.Random(f"held out {seed}"), 16, 0.0, scenes)
    model.eval()
    total, tokens = 0.0, 0
    for _ in range(32):
        ids, weights, _ = next(batches)
        spoken = int((weights[:, 1:] == 1).sum())
        total, tokens = total + _losses(model, ids, weights)[1].item() * spoken, tokens + spoken
    return total / tokens


def _config(tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=int(hidden_size * 2.75),
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=tokenizer.vocab[END],
        pad_token_id=tokenizer.vocab[PAD],
    )


def _rate(step: int, warm: int, steps: int) -> float:
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError("must be at least 1", where=name, found=value)
    if sizes["hidden_size"] % 32:
        raise ConfigError("must be a multiple of 32", where="hidden_size", found=sizes["hidden_size"])


def _progress(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not show,
    )
