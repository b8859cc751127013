"""Groups of token ids, packed so that every prompt is computed once.

A *group* is a prompt and its K responses. The shared layout puts all groups of a batch into one unpadded row,

    p p p a a b b b | p p c c d | ...

where responses keep apart by attention (`attention.py`) and take positions as if each followed its prompt
directly. The plain layout gives every response a padded row of its own, prompt repeated, for architectures in
which sharing can't be exact. Both carry the same labels in the same order, so that what follows need not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from accordance.core.errors import DataError


@dataclass(frozen=True)
class Group:
    """A tokenised prompt and its tokenised responses.

    Attributes:
        prompt: token ids of the prompt; may be empty, then the first token of a response has no label.
        responses: token ids of each response, its end-of-turn token included.
        head: number of the output head that scores it, of a model that has several; None for their blend.
    """

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]
    head: int | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the shared layout computes."""
        return len(self.prompt) + sum(map(len, self.responses))

    @property
    def repeated_tokens(self) -> int:
        """How many tokens a layout computes that repeats the prompt for each response."""
        return sum(len(self.prompt) + len(response) for response in self.responses)


@dataclass(frozen=True)
class Segment:
    """Where one group lies in the shared row: it starts at `start`, prompt first, then the responses."""

    start: int
    prompt: int
    responses: tuple[int, ...]

    @property
    def size(self) -> int:
        """Positions that the group takes."""
        return self.prompt + sum(self.responses)


@dataclass
class Packed:
    """A batch of groups as tensors, ready for the model.

    Attributes:
        input_ids: shape [1, positions] in the shared layout, [responses, longest] in the plain one.
        position_ids: position of each token in its own sequence, same shape.
        attention_mask: None in the shared layout; 1 for tokens, 0 for padding in the plain one.
        source: for each label, the flat position whose hidden state predicts it, shape [labels].
        labels: the token to predict, shape [labels].
        row: which response each label belongs to, shape [labels], ascending.
        last: the flat position of each response's last computed token, shape [responses].
        lengths: number of labels of each response, shape [responses].
        group: which group each response belongs to, shape [responses].
        segments: where each group lies in the shared row; empty in the plain layout.
        groups: the groups themselves.
        heads: number of the output head that scores each label, shape [labels]; None where no group names one.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    source: Tensor
    labels: Tensor
    row: Tensor
    last: Tensor
    lengths: Tensor
    group: Tensor
    segments: tuple[Segment, ...]
    groups: Sequence[Group] = field(repr=False)
    heads: Tensor | None = None

    @property
    def responses(self) -> int:
        """Number of responses in the batch."""
        return len(self.lengths)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Packed:
        """The same batch on a device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Packed(**moved)


def pack(groups: Sequence[Group], *, shared: bool = True, keep_last: bool = False, pad: int = 0) -> Packed:
    """Lay groups out as tensors.

    Args:
        groups: at least one; each with at least one response of at least one token.
        shared: the shared layout (each prompt once) or the plain one (each response with its prompt).
        keep_last: whether the last token of each response is computed too. It predicts nothing, so that
            log-probabilities don't need it; hidden states at the end of a response do.
        pad: token id of padding in the plain layout.

    Raises:
        DataError: a group has no response, or a response no token; some groups name a head and others none.
    """
    if len({group.head is None for group in groups}) > 1:
        raise DataError("either every group of a batch names its head, or none does", where="pack")
    for number, group in enumerate(groups):
        if not group.responses or not all(len(response) for response in group.responses):
            raise DataError("an empty response can't be scored", where=f"group {number} of the batch")
    made = _pack_shared(groups, keep_last) if shared else _pack_plain(groups, keep_last, pad)
    if groups[0].head is not None:
        made.heads = torch.tensor([group.head for group in groups])[made.group][made.row]
    return made


def _pack_shared(groups: Sequence[Group], keep_last: bool) -> Packed:
    cut = 0 if keep_last else 1
    ids: list[int] = []
    positions: list[int] = []
    source: list[int] = []
    labels: list[int] = []
    last: list[int] = []
    lengths: list[int] = []
    owner: list[int] = []
    segments: list[Segment] = []
    for number, group in enumerate(groups):
        start, prompt = len(ids), len(group.prompt)
        ids.extend(group.prompt)
        positions.extend(range(prompt))
        sizes = []
        for response in group.responses:
            at, size = len(ids), len(response)
            kept = size - cut
            ids.extend(response[:kept])
            positions.extend(range(prompt, prompt + kept))
            if prompt:
                source.append(start + prompt - 1)
            source.extend(range(at, at + size - 1))
            labels.extend(response if prompt else response[1:])
            last.append(at + kept - 1 if kept else start + prompt - 1)
            lengths.append(size if prompt else size - 1)
            owner.append(number)
            sizes.append(kept)
        segments.append(Segment(start, prompt, tuple(sizes)))
    return Packed(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=None,
        segments=tuple(segments),
        groups=groups,
        **_labels(source, labels, last, lengths, owner),
    )


def _pack_plain(groups: Sequence[Group], keep_last: bool, pad: int) -> Packed:
    cut = 0 if keep_last else 1
    rows = [
        (number, len(group.prompt), [*group.prompt, *response])
        for number, group in enumerate(groups)
        for response in group.responses
    ]
    width = max(max(len(ids) - cut for _, _, ids in rows), 1)
    input_ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    source: list[int] = []
    labels: list[int] = []
    last: list[int] = []
    lengths: list[int] = []
    for index, (_, prompt, ids) in enumerate(rows):
        kept, first = max(len(ids) - cut, 1), max(prompt, 1)
        input_ids[index, :kept] = torch.tensor(ids[:kept])
        mask[index, :kept] = 1
        source.extend(range(index * width + first - 1, index * width + len(ids) - 1))
        labels.extend(ids[first:])
        last.append(index * width + kept - 1)
        lengths.append(len(ids) - first)
    return Packed(
        input_ids=input_ids,
        position_ids=torch.arange(width).expand(len(rows), width).contiguous(),
        attention_mask=mask,
        segments=(),
        groups=groups,
        **_labels(source, labels, last, lengths, [number for number, _, _ in rows]),
    )


def _labels(
    source: list[int], labels: list[int], last: list[int], lengths: list[int], owner: list[int]
) -> dict[str, Tensor]:
    sizes = torch.tensor(lengths)
    return {
        "source": torch.tensor(source, dtype=torch.long),
        "labels": torch.tensor(labels, dtype=torch.long),
        "row": torch.repeat_interleave(torch.arange(len(lengths)), sizes),
        "last": torch.tensor(last),
        "lengths": sizes,
        "group": torch.tensor(owner),
    }


def batches(
    groups: Iterable[Group], max_tokens: int, *, shared: bool = True, most: int | None = None
) -> Iterator[list[Group]]:
    """Consecutive groups such that each batch computes at most `max_tokens` positions.

    Order is kept; a group that alone is larger than the budget makes a batch of its own. In the plain layout
    padding counts.

    Args:
        groups: the groups, in the order in which results are wanted.
        max_tokens: budget of positions per batch.
        shared: the layout that will be used.
        most: largest number of groups in a batch; None for no limit.
    """
    batch: list[Group] = []
    total, rows, widest = 0, 0, 0
    for group in groups:
        width = max(len(group.prompt) + len(response) for response in group.responses)
        size = total + group.tokens if shared else (rows + len(group.responses)) * max(widest, width)
        if batch and (size > max_tokens or (most is not None and len(batch) >= most)):
            yield batch
            batch, total, rows, widest = [], 0, 0, 0
        batch.append(group)
        total, rows, widest = total + group.tokens, rows + len(group.responses), max(widest, width)
    if batch:
        yield batch


def offsets(segment: Segment) -> list[tuple[int, int]]:
    """(start, size) of each response, counted from the start of its group."""
    starts = accumulate(segment.responses, initial=segment.prompt)
    return list(zip(starts, segment.responses))
