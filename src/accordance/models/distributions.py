"""Whole distributions over the vocabulary, compared without ever holding them: chunk by chunk, beside the labels.

What another model says at each label position is a `Table`. It keeps hidden states (exact) or a few entries per
position (compressed); scores over the whole vocabulary exist for one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from accordance.models.head import ScoreTransform, chunks, wide_type


class Table(Protocol):
    """Another model's distributions over the vocabulary at some label positions, never all of them at once."""

    def logps(self, at: slice) -> Tensor:
        """Log-probabilities at some of the positions, shape [positions, vocabulary], without gradient."""
        ...


@dataclass(frozen=True)
class HeadTable:
    """A table kept as hidden states: exact, and as small as they are. Scores are made when asked for.

    Attributes:
        states: hidden states that predict the labels, shape [labels, width].
        head: the other model's output embedding.
        transform: what that model does to its scores.
    """

    states: Tensor
    head: nn.Module
    transform: ScoreTransform

    @torch.no_grad()
    def logps(self, at: slice) -> Tensor:
        """Log-probabilities at some of the positions, shape [positions, vocabulary]."""
        states = self.states[at]
        weight: Any = self.head.weight
        scores = self.head(states.to(weight.dtype)).to(wide_type(states.dtype))
        return torch.log_softmax(self.transform.apply(scores), dim=-1)


@dataclass(frozen=True)
class TopTable:
    """A table of which k entries per position are kept; what they leave is spread evenly over the others.

    Attributes:
        ids: the kept tokens, shape [labels, k], k below the vocabulary.
        kept: their log-probabilities, shape [labels, k].
        vocabulary: its size.
    """

    ids: Tensor
    kept: Tensor
    vocabulary: int

    def logps(self, at: slice) -> Tensor:
        """Log-probabilities at some of the positions, shape [positions, vocabulary]."""
        ids, kept = self.ids[at].long(), self.kept[at].float()
        left = (1 - kept.exp().sum(-1, keepdim=True)).clamp(min=1e-8) / (self.vocabulary - ids.shape[1])
        return left.log().expand(-1, self.vocabulary).scatter(1, ids, kept)


@dataclass(frozen=True)
class Compared:
    """What each token's distribution is compared with; see `accordance.core.objective.Tokens`.

    Attributes:
        kl: yields KL(table || policy).
        teacher_kl: likewise.
        advantage: two tables; yields the policy's expectation of log first - log second.
        collision: whether to yield log sum p^2 of the policy's own distribution, without gradient.
        greatest: whether to yield log max p of it, without gradient.
    """

    kl: Table | None = None
    teacher_kl: Table | None = None
    advantage: tuple[Table, Table] | None = None
    collision: bool = False
    greatest: bool = False


@torch.no_grad()
def top_tables(tables: Sequence[Table], size: int, k: int) -> list[TopTable]:
    """Tables cut to the same k tokens at each position.

    Half of them are the likeliest under any table; the other half, where there are two tables, those that the two
    tell apart most (a log-ratio that is large matters though its token is rare).

    Args:
        tables: of one vocabulary.
        size: number of positions.
        k: entries kept, below the vocabulary.
    """
    ids: list[Tensor] = []
    kept: list[list[Tensor]] = [[] for _ in tables]
    vocabulary = 0
    for at in chunks(size, tables[0].logps(slice(0, 1)).shape[1]):
        found = [table.logps(at) for table in tables]
        vocabulary = found[0].shape[1]
        rank = torch.stack(found).amax(0)
        if len(found) == 2:
            likely = rank.topk(min((k + 1) // 2, vocabulary), dim=-1).indices
            rank = (found[0] - found[1]).abs().scatter(1, likely, torch.inf)
        chosen = rank.topk(min(k, vocabulary - 1), dim=-1).indices
        ids.append(chosen.int())
        for place, values in zip(kept, found):
            place.append(values.gather(1, chosen).float())
    return [TopTable(torch.cat(ids), torch.cat(values), vocabulary) for values in kept]


def compared_logps(
    hidden: Tensor, labels: Tensor, head: nn.Module, transform: ScoreTransform, compared: Compared
) -> dict[str, Tensor]:
    """Log-probability of each label, and comparisons of the whole distributions; all with gradient.

    One pass over the vocabulary for all of them, chunk by chunk; the backward pass computes each chunk anew.

    Args:
        hidden, labels, head, transform: as `label_logps` takes them.
        compared: with what; its tables have the same labels in the same order.

    Returns:
        ``logps`` and ``entropy`` (without gradient), and the names that `compared` sets; shape [labels] each.
    """
    names = ["logps", "entropy", *(name for name, asked in vars(compared).items() if asked)]
    if len(labels) == 0:
        empty = (hidden.sum(dtype=wide_type(hidden.dtype)) * 0).expand(0)
        return dict.fromkeys(names, empty)

    def one(states: Tensor, targets: Tensor, at: slice) -> Tensor:
        scores = transform.apply(head(states).to(wide_type(states.dtype)))
        logps = torch.log_softmax(scores, dim=-1)
        probs = logps.exp()
        rows = [logps.gather(1, targets[:, None]).squeeze(1), -(probs * logps).sum(-1).detach()]
        for table in (compared.kl, compared.teacher_kl):
            if table is not None:
                other = table.logps(at).to(logps)
                rows.append((other.exp() * (other - logps)).sum(-1))
        if compared.advantage is not None:
            first, second = (table.logps(at).to(logps) for table in compared.advantage)
            rows.append((probs * (first - second)).sum(-1))
        if compared.collision:
            rows.append((2 * logps).logsumexp(-1).detach())
        if compared.greatest:
            rows.append(logps.amax(-1).detach())
        return torch.stack(rows)

    parts = [
        checkpoint(one, hidden[at], labels[at], at, use_reentrant=False)
        for at in chunks(len(labels), getattr(head, "out_features", None) or 32_000)
    ]
    return dict(zip(names, torch.cat(parts, dim=1)))
