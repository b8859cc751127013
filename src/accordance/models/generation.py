"""Sampling from local weights: seeded, over batches of prompts of similar length.

Models of ordinary attention go through a loop of our own: a prompt is computed once for all its responses, and
responses that have ended leave the batch. Others, and those whose checkpoint asks for more than sampling (penalties,
forced tokens), go through transformers' `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from accordance.core.policy import Completion
from accordance.models.engine import unwrap
from accordance.models.users import users_of

#: Says of a response's tokens so far whether it ends there.
Stop = Callable[[Sequence[int]], bool]
#: What a checkpoint's generation config may say without that our loop has to know of it.
_KNOWN = {
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "max_length",
    "max_new_tokens",
    "use_cache",
    "transformers_version",
    "trust_remote_code",
    "cache_implementation",
    "chat_format",
    "_from_model_config",
}
#: Share of a batch that must have ended before it is made smaller: that copies what the others attend to.
_LEAVE = 0.125


@dataclass(frozen=True)
class Draw:
    """How responses are drawn; see `Policy.generate`. `stop` says of the tokens so far whether it ends there."""

    n: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: Stop | None = None

    @property
    def each(self) -> int:
        """How many responses to a prompt can differ."""
        return 1 if self.temperature == 0 else self.n


class _Tape:
    """Notes each sampled token's log-probability under the scores that the model gave, before any penalty."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.scores = torch.empty(0)

    def heard(self, module: Any, args: Any, output: Any) -> None:
        """A hook behind the model's forward: transformers hands processors scores that penalties have changed."""
        self.scores = output.logits[:, -1]

    def token(self, input_ids: Tensor) -> None:
        logps = torch.log_softmax(self.scores.float(), dim=-1)
        self.steps.append(logps.gather(1, input_ids[:, -1:].to(logps.device)).squeeze(1).cpu())


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
    ordinary: bool = False,
    stop: Stop | None = None,
) -> list[list[Completion]]:
    """`n` completions of each tokenised prompt; see `Policy.generate`.

    Args:
        ordinary: whether the model attends in the ordinary way, so that our own loop may be taken.
        max_tokens: budget of positions (padding and room for new tokens counted) of one batch.
        progress: called with the number of prompts done since the last call.
        stop: says of the tokens of a response so far whether it ends there, unfinished.
    """
    training = model.training
    model.eval()
    how = Draw(n, max_new_tokens, temperature, top_p, stop)
    write = _own_batch if ordinary and not _asks_for_more(model) else _batch
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
                made = write(model, tokenizer, end_ids, [prompts[i] for i in batch], how)
                for index, completions in zip(batch, made):
                    out[index] = completions
                if progress is not None:
                    progress(len(batch))
    finally:
        model.train(training)
    return out


def _asks_for_more(model: Any) -> bool:
    config = getattr(model, "generation_config", None)
    said = {} if config is None else config.to_diff_dict()
    return any(value not in (None, False) for name, value in said.items() if name not in _KNOWN)


def _padded(prompts: list[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Prompts that end at the same place, and where they are; shape [prompts, longest] each."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _own_batch(
    model: Any, tokenizer: Any, end_ids: frozenset[int], prompts: list[Sequence[int]], how: Draw
) -> list[list[Completion]]:
    """Write to a batch of prompts: each computed once, and only responses that go on are computed further."""
    each, most = how.each, how.max_new_tokens
    ids, mask = (value.to(model.device) for value in _padded(prompts, tokenizer.pad_token_id))
    ends = torch.tensor(sorted(end_ids), device=ids.device)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=place, use_cache=True, logits_to_keep=1)
    cache = out.past_key_values
    if each > 1:
        cache.batch_repeat_interleave(each)
    scores = out.logits[:, -1].repeat_interleave(each, 0)
    mask, place = mask.repeat_interleave(each, 0), place[:, -1:].repeat_interleave(each, 0)
    rows = torch.arange(len(scores), device=ids.device)  # which response each row of the batch is
    going = torch.ones_like(rows, dtype=torch.bool)
    written = torch.full((len(rows), most), -1, device=ids.device)
    logps = torch.zeros(written.shape, device=ids.device)
    for step in range(most):
        logp = torch.log_softmax(scores.float(), -1)
        token = _draw(logp, how.temperature, how.top_p)
        written[rows[going], step] = token[going]
        logps[rows[going], step] = logp.gather(1, token[:, None])[going, 0]
        going = going & ~torch.isin(token, ends)
        if how.stop is not None:
            for row in going.nonzero()[:, 0].tolist():
                going[row] = not how.stop(written[rows[row], : step + 1].tolist())
        left = int(going.sum())
        if not left or step == most - 1:
            break
        if left <= len(going) * (1 - _LEAVE):
            cache.batch_select_indices(going.nonzero()[:, 0])
            rows, token, mask, place = rows[going], token[going], mask[going], place[going]
            going = going[going]
        mask, place = torch.cat([mask, torch.ones_like(mask[:, :1])], 1), place + 1
        out = model(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
        )
        scores = out.logits[:, -1]
    lists = zip(written.tolist(), logps.tolist())
    completions = [_completion(tokenizer, end_ids, [t for t in row if t >= 0], lp) for row, lp in lists]
    return [completions[i * each : (i + 1) * each] * (how.n // each) for i in range(len(prompts))]


def _draw(logp: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token for each row of log-probabilities, shape [rows]."""
    if temperature == 0:
        return logp.argmax(-1)
    probs = torch.softmax(logp / temperature, -1)
    if top_p < 1:
        ordered, index = probs.sort(-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        probs = probs.masked_fill(outside.gather(-1, index.argsort(-1)), 0.0)
    return torch.multinomial(probs, 1)[:, 0]


def _batch(
    model: Any, tokenizer: Any, end_ids: frozenset[int], prompts: list[Sequence[int]], how: Draw
) -> list[list[Completion]]:
    pad = tokenizer.pad_token_id
    ids, mask = (value.to(model.device) for value in _padded(prompts, pad))
    width, asked = ids.shape[1], _as_words(model, ids)
    greedy = how.temperature == 0
    tape = _Tape()
    listening = unwrap(model).register_forward_hook(tape.heard)
    try:
        made = model.generate(
            **asked,
            attention_mask=mask,
            max_new_tokens=how.max_new_tokens,
            do_sample=not greedy,
            num_return_sequences=how.each,
            num_beams=1,  # a policy samples, or takes the likeliest token; searching is neither
            temperature=None if greedy else how.temperature,
            top_p=None if greedy else how.top_p,
            top_k=None if greedy else 0,
            pad_token_id=pad,
            eos_token_id=sorted(end_ids),
            stopping_criteria=StoppingCriteriaList([_TapeToken(tape)]),
        )
    finally:
        listening.remove()
    fresh = made[:, width:].cpu()
    logps = torch.stack(tape.steps, dim=1)
    each = how.each
    lists = zip(fresh.tolist(), logps.tolist())
    completions = [_completion(tokenizer, end_ids, row, lp, how.stop) for row, lp in lists]
    return [completions[i * each : (i + 1) * each] * (how.n // each) for i in range(len(prompts))]


def _as_words(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Prompts as transformers' `generate` takes them: penalties look ids up among words, which users' ids are not.

    A prompt with users' ids is handed over as vectors; in its ids its last word stands for theirs, so that no other
    word is counted as said.
    """
    users = users_of(model)
    if users is None or not bool((ids >= users.vocabulary).any()):
        return {"input_ids": ids}
    words = torch.where(ids >= users.vocabulary, ids[:, -1:], ids)
    return {"input_ids": words, "inputs_embeds": model.get_input_embeddings()(ids)}


def _completion(
    tokenizer: Any,
    end_ids: frozenset[int],
    ids: list[int],
    logps: list[float],
    stop: Stop | None = None,
) -> Completion:
    """A row of sampled tokens up to its end; with `stop`, cut where it says (sampled beyond, for nothing)."""
    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    size = len(ids) if end is None else end + 1
    if stop is not None:
        cut = next((place for place in range(1, size) if stop(ids[:place])), size)
        size, end = cut, end if cut == size else None
    text = tokenizer.decode(ids[:size], skip_special_tokens=True)
    return Completion(text, end is not None, tuple(ids[:size]), tuple(logps[:size]))
