"""Attention over packed groups: each response sees its prompt and itself, never its siblings.

Registered with transformers under the name ``accordance``; any model that goes through its attention interface
can use it. A call that is not about packed groups (generation, padded batches) goes to SDPA as usual, or to
explicit maths where the model soft-caps its attention scores.

How a call knows its layout: the model is handed an *empty* four-dimensional mask whose last dimension is the
number of a layout. transformers passes four-dimensional masks through untouched, wrappers move them between
devices, and gradient checkpointing hands them to the recomputation, all without a read from the device.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from accordance.core.errors import ModelError
from accordance.models.packing import Segment, offsets

NAME = "accordance"

# Layouts of recent batches: a checkpointed backward pass asks for its layout after the forward has returned.
_KEPT = 256
_layouts: OrderedDict[int, Layout] = OrderedDict()
_numbers = itertools.cycle(range(2, 1_000_000))


class Layout:
    """The segments of one packed row, and what attention derives from them once per batch."""

    def __init__(self, segments: tuple[Segment, ...], device: torch.device) -> None:
        self.segments, self.device = segments, device
        self._masks: dict[tuple[Any, ...], Any] = {}
        self.number = next(_numbers)
        _layouts[self.number] = self
        while len(_layouts) > _KEPT:
            _layouts.popitem(last=False)

    def marker(self) -> Tensor:
        """The mask argument that names this layout; holds one element, whatever its shape says."""
        return torch.zeros(1, dtype=torch.uint8, device=self.device).expand(1, 1, 1, self.number)

    def remember(self, key: tuple[Any, ...], make: Any) -> Any:
        """The value under `key`, made on first use."""
        if key not in self._masks:
            self._masks[key] = make()
        return self._masks[key]


def find_layout(mask: Tensor | None) -> Layout | None:
    """The layout that a mask argument names, or None where it is an ordinary mask.

    Raises:
        ModelError: the layout is gone; attending without it would be silently wrong.
    """
    if mask is None or mask.dtype != torch.uint8 or mask.dim() != 4:
        return None
    if mask.shape[-1] not in _layouts:
        raise ModelError(
            f"a backward pass asks for a layout that more than {_KEPT} batches have followed",
            remedy="call backward before that many further forward passes",
        )
    return _layouts[mask.shape[-1]]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Args:
        module: the attention layer.
        query: shape [batch, heads, queries, size].
        key, value: shape [batch, key-value heads, keys, size].
        attention_mask: a layout's marker, or an ordinary mask.
        scaling: factor of the scores; by default 1 / sqrt(size).
        dropout: probability, in training.
        sliding_window: how many positions back a token sees, itself included.
        softcap: scores become softcap * tanh(scores / softcap).

    Returns:
        Shape [batch, queries, heads, size], and None for the weights.
    """
    layout = find_layout(attention_mask)
    if layout is None and softcap is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    for name in ("s_aux", "position_bias", "head_mask"):
        if layout is not None and kwargs.get(name) is not None:
            raise ModelError(f"packed attention knows nothing of `{name}`")
    key, value = (_repeat(x, query.shape[1] // x.shape[1]) for x in (key, value))
    scale = scaling if scaling is not None else 1 / math.sqrt(query.shape[-1])
    if layout is None:
        out = _explicit(query, key, value, attention_mask, scale, dropout, softcap or 0.0)
    elif query.is_cuda and dropout == 0.0:
        out = _flex(layout, query, key, value, scale, sliding_window, softcap)
    else:
        out = _blocks(layout, query, key, value, scale, dropout, sliding_window, softcap)
    return out.transpose(1, 2).contiguous(), None


def _repeat(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float, softcap: float
) -> Tensor:
    scores = torch.matmul(q, k.transpose(-2, -1)) * scale
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None and q.shape[-2] > 1:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(
            k.shape[-2] - q.shape[-2]
        )
    if mask is not None:
        nothing = torch.finfo(scores.dtype).min  # not -inf: a padded query sees nothing at all
        scores = scores.masked_fill(~mask, nothing) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(F.dropout(weights, dropout), v)


def _blocks(
    layout: Layout,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Each group by itself through dense kernels, cut where that saves work."""
    parts: list[Tensor] = []
    # One split per tensor: its backward is one concatenation, where slices would each fill a whole tensor.
    sizes = [segment.size for segment in layout.segments]
    cut = zip(layout.segments, *(x.split(sizes, dim=2) for x in (q, k, v)))
    for number, (segment, q_group, k_group, v_group) in enumerate(cut):
        for queries, keys in plan(segment):
            alone = len(segment.responses) <= 1 or queries[1] <= segment.prompt
            causal = window is None and softcap is None and alone
            make = partial(_mask, segment, queries, keys, window, q.device)
            mask = None if causal else layout.remember((number, queries, window), make)
            qs, ks, vs = _take(q_group, (queries,)), _take(k_group, keys), _take(v_group, keys)
            if softcap is not None:
                parts.append(_explicit(qs, ks, vs, mask, scale, dropout, softcap))
            else:
                parts.append(
                    F.scaled_dot_product_attention(
                        qs, ks, vs, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale
                    )
                )
    return torch.cat(parts, dim=2)


Range = tuple[int, int]


def _take(x: Tensor, ranges: tuple[Range, ...]) -> Tensor:
    if ranges == ((0, x.shape[2]),):
        return x
    parts = [x[:, :, a:b] for a, b in ranges]
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


# What a call costs beside its scores, in scores; measured on CPU over prompts of 30-1024 tokens.
_CALL, _JOIN = 15_000, 20_000


@cache
def plan(segment: Segment) -> tuple[tuple[Range, tuple[Range, ...]], ...]:
    """How one group's attention is cut into dense calls: (range of queries, ranges of their keys) in the group.

    One call for everything, one for the prompt and one for all responses, or one per response: whichever
    touches the fewest scores, a call's overhead counted as scores.
    """
    prompt, whole = segment.prompt, segment.size
    answers = whole - prompt
    responses = [(start, start + size) for start, size in offsets(segment) if size]
    start, middle, end = 0, prompt, whole
    if len(responses) <= 1:
        return (((start, end), ((start, end),)),)
    head = prompt * prompt // 2
    costs = {
        "one": whole * whole,
        "two": head + answers * whole + _CALL,
        "each": head + sum((b - a) * (prompt + b - a) for a, b in responses) + _JOIN * len(responses),
    }
    best = min(costs, key=costs.__getitem__)
    if best == "one":
        return (((start, end), ((start, end),)),)
    first = (((start, middle), ((start, middle),)),) if prompt else ()
    if best == "two":
        return (*first, ((middle, end), ((start, end),)))
    ahead = ((start, middle),) if prompt else ()
    return (*first, *(((a, b), (*ahead, (a, b))) for a, b in responses))


def _ids(segment: Segment, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each position of a segment: which response it is of (0 for the prompt), and its own position."""
    owner = torch.repeat_interleave(
        torch.arange(len(segment.responses) + 1), torch.tensor([segment.prompt, *segment.responses])
    )
    place = torch.cat(
        [
            torch.arange(segment.prompt),
            *(torch.arange(segment.prompt, segment.prompt + size) for size in segment.responses),
        ]
    )
    return owner.to(device), place.to(device)


def _mask(
    segment: Segment, queries: Range, keys: tuple[Range, ...], window: int | None, device: torch.device
) -> Tensor:
    owner, place = _ids(segment, device)
    at = torch.arange(*queries, device=device)
    to = torch.cat([torch.arange(*r, device=device) for r in keys])
    same = (owner[to][None, :] == 0) | (owner[to][None, :] == owner[at][:, None])
    distance = place[at][:, None] - place[to][None, :]
    allowed = same & (distance >= 0)
    return allowed if window is None else allowed & (distance < window)


def _flex(
    layout: Layout, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """All groups at once through FlexAttention with a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def build() -> Any:
        owners, places, groups = [], [], []
        for number, segment in enumerate(layout.segments):
            owner, place = _ids(segment, q.device)
            owners.append(owner)
            places.append(place)
            groups.append(torch.full_like(owner, number))
        owner, place, group = torch.cat(owners), torch.cat(places), torch.cat(groups)

        def visible(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            ok = (group[i] == group[j]) & ((owner[j] == 0) | (owner[j] == owner[i])) & (place[i] >= place[j])
            return ok if window is None else ok & (place[i] - place[j] < window)

        return create_block_mask(visible, None, None, q.shape[2], k.shape[2], device=str(q.device))

    block_mask = layout.remember(("flex", window), build)

    def cap(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score if softcap is None else softcap * torch.tanh(score / softcap)

    call = _compiled_flex() if q.is_cuda else flex_attention
    return call(q, k, v, score_mod=None if softcap is None else cap, block_mask=block_mask, scale=scale)


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
