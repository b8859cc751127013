"""Sampling from local weights: one seeded loop over batches of prompts of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from accordance.core.policy import Completion


class _Tape:
    """Notes each sampled token's log-probability under the untouched scores of its step."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.scores = torch.empty(0)

    def token(self, input_ids: Tensor) -> None:
        logps = torch.log_softmax(self.scores.float(), dim=-1)
        self.steps.append(logps.gather(1, input_ids[:, -1:]).squeeze(1).cpu())


class _TapeScores(LogitsProcessor):
    def __init__(self, tape: _Tape) -> None:
        self.tape = tape

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.tape.scores = scores
        return scores


class _TapeToken(StoppingCriteria):
    def __init__(self, tape: _Tape) -> None:
        self.tape = tape

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.tape.token(input_ids)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    end_ids: frozenset[int],
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    max_tokens: int,
    progress: Any = None,
) -> list[list[Completion]]:
    """`n` completions of each tokenised prompt; see `Policy.generate`.

    Args:
        max_tokens: budget of positions (padding and room for new tokens counted) of one batch.
        progress: called with the number of prompts done since the last call.
    """
    training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[Completion]] = [[] for _ in prompts]
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            while order:
                size = 1
                while size < len(order) and (
                    (size + 1) * n * (len(prompts[order[size]]) + max_new_tokens) <= max_tokens
                ):
                    size += 1
                batch, order = order[:size], order[size:]
                made = _batch(
                    model,
                    tokenizer,
                    end_ids,
                    [prompts[i] for i in batch],
                    n,
                    max_new_tokens,
                    temperature,
                    top_p,
                )
                for index, completions in zip(batch, made):
                    out[index] = completions
                if progress is not None:
                    progress(len(batch))
    finally:
        model.train(training)
    return out


def _batch(
    model: Any,
    tokenizer: Any,
    end_ids: frozenset[int],
    prompts: list[Sequence[int]],
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
) -> list[list[Completion]]:
    pad, width = tokenizer.pad_token_id, max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    greedy = temperature == 0
    tape = _Tape()
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=not greedy,
        num_return_sequences=1 if greedy else n,
        temperature=None if greedy else temperature,
        top_p=None if greedy else top_p,
        top_k=None if greedy else 0,
        pad_token_id=pad,
        eos_token_id=sorted(end_ids),
        logits_processor=LogitsProcessorList([_TapeScores(tape)]),
        stopping_criteria=StoppingCriteriaList([_TapeToken(tape)]),
    )
    fresh = made[:, width:].cpu()
    logps = torch.stack(tape.steps, dim=1)
    each = 1 if greedy else n
    completions = [_completion(tokenizer, end_ids, row, lp) for row, lp in zip(fresh.tolist(), logps.tolist())]
    return [completions[i * each : (i + 1) * each] * (n if greedy else 1) for i in range(len(prompts))]


def _completion(tokenizer: Any, end_ids: frozenset[int], ids: list[int], logps: list[float]) -> Completion:
    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    size = len(ids) if end is None else end + 1
    text = tokenizer.decode(ids[:size], skip_special_tokens=True)
    return Completion(text, end is not None, tuple(ids[:size]), tuple(logps[:size]))
