"""Log-probabilities of labels from hidden states, without the vocabulary x tokens matrix.

The head runs on label positions only, in chunks; the log-sum-exp is kept in fp32 whatever the weights' type.
The backward pass recomputes each chunk's scores, but for as many chunks as a fixed budget of memory can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

#: Scores (rows x vocabulary) in one chunk, and how many bytes of them may wait for the backward pass.
CHUNK_SCORES = 1 << 24
KEEP_BYTES = 256 << 20


@dataclass(frozen=True)
class ScoreTransform:
    """What a model does to its scores after the head: scale them, then soft-cap them.

    Attributes:
        scale: factor (Cohere's `logit_scale`, the inverse of Granite's `logits_scaling`).
        softcap: scores become softcap * tanh(scores / softcap); 0 for none (Gemma 2).
    """

    scale: float = 1.0
    softcap: float = 0.0

    @classmethod
    def of(cls, config: Any) -> ScoreTransform:
        """The transform that a model's configuration declares."""
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        scale = float(getattr(text, "logit_scale", None) or 1.0) / float(
            getattr(text, "logits_scaling", None) or 1.0
        )
        return cls(scale, float(getattr(text, "final_logit_softcapping", None) or 0.0))

    def apply(self, scores: Tensor) -> Tensor:
        """The transformed scores; in place where autograd allows."""
        if self.scale != 1.0:
            scores = scores * self.scale
        if self.softcap:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        return scores


def label_logps(
    hidden: Tensor, labels: Tensor, head: nn.Module, transform: ScoreTransform, *, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each label.

    Args:
        hidden: hidden states that predict the labels, shape [labels, width].
        labels: token ids, shape [labels].
        head: the model's output embedding; a plain `nn.Linear` takes the fast path, anything else (adapters,
            quantised weights) is called as it is.
        transform: what the model does to its scores.
        entropy: whether to return the entropy of each distribution as well (no gradient).

    Returns:
        Log-probabilities in nats, fp32 (fp64 for fp64 input), shape [labels]; and the entropies, same shape, or
        None.
    """
    if len(labels) == 0:
        empty = hidden.sum(dtype=wide_type(hidden.dtype)) * 0
        return empty.expand(0), empty.detach().expand(0) if entropy else None
    if _plain(head):
        logps, entropies = _LinearLogps.apply(hidden, head.weight, head.bias, labels, transform, entropy)
        return logps, entropies if entropy else None
    return _called(hidden, labels, head, transform, entropy)


def _plain(head: nn.Module) -> bool:
    return (
        type(head) is nn.Linear
        and not head._forward_hooks
        and not head._forward_pre_hooks
        and type(head.weight) in (nn.Parameter, Tensor)
        and head.weight.is_floating_point()
    )


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which log-probabilities are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows(vocabulary: int) -> int:
    return max(CHUNK_SCORES // vocabulary, 16)


def _called(
    hidden: Tensor, labels: Tensor, head: Callable[..., Tensor], transform: ScoreTransform, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """The general way: call the head chunk by chunk under activation checkpointing."""

    def one(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        scores = transform.apply(head(states).to(wide_type(states.dtype)))
        logps = torch.log_softmax(scores, dim=-1)
        picked = logps.gather(1, targets[:, None]).squeeze(1)
        spread = -(logps.exp() * logps).sum(-1).detach() if entropy else picked.detach()
        return picked, spread

    vocabulary = getattr(head, "out_features", None) or 32_000
    size = _rows(vocabulary)
    parts = [
        checkpoint(one, states, targets, use_reentrant=False)
        for states, targets in zip(hidden.split(size), labels.split(size))
    ]
    logps = torch.cat([part[0] for part in parts])
    return logps, torch.cat([part[1] for part in parts]) if entropy else None


class _LinearLogps(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        transform: ScoreTransform,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        wide = wide_type(hidden.dtype)
        kind = hidden.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        hidden, weight = hidden.to(low), weight.to(low)
        ctx.keep = any(ctx.needs_input_grad[:3])
        logps = torch.empty(len(labels), dtype=wide, device=hidden.device)
        total = torch.empty_like(logps)
        spread = torch.empty_like(logps) if entropy else logps.new_empty(0)
        kept: list[Tensor] = []
        budget = KEEP_BYTES if ctx.keep else 0
        for at in chunks(len(labels), len(weight)):
            scores = _scores(hidden[at], weight, bias, transform, wide)
            total[at] = torch.logsumexp(scores, dim=-1)
            logps[at] = scores.gather(1, labels[at, None]).squeeze(1) - total[at]
            if entropy:
                shifted = scores - total[at, None]
                spread[at] = -(shifted.exp() * shifted).sum(-1)
            budget -= scores.numel() * scores.element_size()
            if budget >= 0:
                kept.append(scores)
        ctx.kept, ctx.transform, ctx.wide = kept, transform, wide
        ctx.save_for_backward(hidden, weight, bias, labels, total)
        ctx.mark_non_differentiable(spread)
        return logps, spread

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias, labels, total = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        upstream, transform = grads[0], ctx.transform
        g_hidden = torch.empty_like(hidden) if need_hidden else None
        g_weight = torch.zeros(weight.shape, dtype=ctx.wide, device=weight.device) if need_weight else None
        g_bias = torch.zeros(len(weight), dtype=ctx.wide, device=weight.device) if need_bias else None
        for number, at in enumerate(chunks(len(labels), len(weight))):
            # Kept scores are spent in place; a second backward pass (retain_graph) computes them anew.
            scores = ctx.kept[number] if number < len(ctx.kept) else None
            if scores is None:
                scores = _scores(hidden[at], weight, bias, transform, ctx.wide)
            else:
                ctx.kept[number] = None
            # d logp / d score = [label] - probability, then back through soft-cap and scale.
            slope = 1 - (scores / transform.softcap) ** 2 if transform.softcap else None
            d = scores.sub_(total[at, None]).exp_().mul_(-upstream[at, None])
            d.scatter_add_(1, labels[at, None], upstream[at, None].to(d.dtype))
            if slope is not None:
                d *= slope
            if transform.scale != 1.0:
                d *= transform.scale
            d_low = d.to(weight.dtype)
            if g_hidden is not None:
                g_hidden[at] = d_low @ weight
            if g_weight is not None:
                if g_weight.dtype == d_low.dtype:
                    g_weight.addmm_(d_low.t(), hidden[at])
                else:
                    g_weight += d_low.t() @ hidden[at]
            if g_bias is not None:
                g_bias += d.sum(0)
        return (
            g_hidden,
            None if g_weight is None else g_weight.to(weight.dtype),
            None if g_bias is None else g_bias.to(weight.dtype),
            None,
            None,
            None,
        )


def chunks(labels: int, vocabulary: int) -> list[slice]:
    """Label positions in pieces whose scores over the vocabulary fit into one chunk."""
    size = _rows(vocabulary)
    return [slice(start, min(start + size, labels)) for start in range(0, labels, size)]


def _scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, transform: ScoreTransform, wide: torch.dtype
) -> Tensor:
    return transform.apply(nn.functional.linear(hidden, weight, bias).to(wide))
