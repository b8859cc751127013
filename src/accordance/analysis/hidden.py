"""Features from inside a language model: how likely it finds a response, and where the response lies in its states.

Any local model will do; the small one in the package needs no download. Its directions are found without the labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from accordance.analysis.features import Differences, subtract
from accordance.analysis.table import PairTable
from accordance.analysis.words import telling_words
from accordance.core.errors import DataError
from accordance.core.record import Record, Response, user
from accordance.models import LocalPolicy, batches

#: Positions per forward pass: small packs keep attention, which grows with their square, cheap.
_POSITIONS = 2048
#: How many texts at each end of a direction its words are taken from.
_ENDS = 300


class Inside(NamedTuple):
    """What a model makes of responses: mean last hidden state [t, width], mean log-probability [t], tokens [t]."""

    states: np.ndarray
    logprob: np.ndarray
    tokens: np.ndarray


@torch.no_grad()
def inside(policy: LocalPolicy, prompts: list[str], responses: list[list[str]]) -> Inside:
    """Mean states and log-probabilities of responses, in order.

    Prompts are cut at their beginning and responses at their end where both don't fit the model's context, half of it
    each.

    Args:
        policy: the model.
        prompts: what is asked, one user turn each.
        responses: the responses to each.
    """
    records = [Record(user(p), tuple(map(Response.of, rs))) for p, rs in zip(prompts, responses, strict=True)]
    limit = getattr(policy.model.config, "max_position_embeddings", None) or 4096  # type: ignore[union-attr]
    room = max(limit // 2, 1)
    groups = [
        replace(g, prompt=g.prompt[-room:], responses=[list(r[:room]) for r in g.responses])
        for g in policy.encoder.groups(records)
        if g.responses
    ]
    training = policy.model.training
    policy.model.eval()
    states, sums, lengths = [], [], []
    try:
        for batch in batches(groups, _POSITIONS, shared=policy.engine.shared):
            out = policy.engine(batch, states=True)
            if out.states is None:
                raise DataError("the model returned no states", where=policy.name)
            total = torch.zeros(
                len(out.lengths), out.states.shape[1], dtype=torch.float32, device=out.row.device
            )
            total = total.index_add(0, out.row, out.states.float())
            states.append((total / out.lengths.clamp(min=1)[:, None].to(total.device)).cpu().numpy())
            sums.append(out.logp.float().cpu().numpy())
            lengths.append(out.lengths.cpu().numpy())
    finally:
        policy.model.train(training)
    if not states:
        raise DataError("there is no response to look at", where=policy.name)
    many = np.concatenate(lengths)
    return Inside(np.concatenate(states), np.concatenate(sums) / np.maximum(many, 1), many)


def of_table(policy: LocalPolicy, table: PairTable) -> tuple[Inside, np.ndarray]:
    """`inside` of every response of a table that was compared, and which those are: indices into `table.texts`."""
    used = np.unique(np.concatenate([table.first, table.second]))
    used = used[np.argsort(table.text_prompt[used], kind="stable")]
    kept, many = np.unique(table.text_prompt[used], return_counts=True)
    texts, ends = table.texts.take(used).to_pylist(), np.cumsum(many)
    groups = [texts[a:b] for a, b in zip(ends - many, ends)]
    return inside(policy, table.prompts.take(kept).to_pylist(), groups), used


@dataclass(frozen=True)
class ModelFeatures:
    """Mean log-probability per token, and the directions in which the mean states of two responses differ most.

    Directions are principal components of the differences between the two responses of a comparison; what they mean is
    told by the words of the responses at their ends. Prompts are the last user turn, as in the table.

    Attributes:
        policy: the model.
        directions: how many.
    """

    policy: LocalPolicy
    directions: int = 8

    def differences(self, table: PairTable) -> Differences:
        """See `FeatureMaker.differences`."""
        found, used = of_table(self.policy, table)
        states = np.zeros((len(table.texts), found.states.shape[1]))
        likely = np.full(len(table.texts), np.nan)
        states[used], likely[used] = found.states, found.logprob
        gap = states[table.first] - states[table.second]
        axes = _axes(gap, self.directions)
        names = ("likelier to the model", *(f"hidden direction {k}" for k in range(1, len(axes) + 1)))
        notes = {names[0]: f"mean log-probability per token under {self.policy.name}"}
        texts, where = table.texts.take(used).to_pylist(), states[used] @ axes.T
        notes |= {name: _words(texts, where[:, k]) for k, name in enumerate(names[1:])}
        values = np.concatenate([likely[:, None], states @ axes.T], axis=1)
        return subtract(table, names, values, notes=notes)


def _axes(gap: np.ndarray, many: int) -> np.ndarray:
    """The directions of largest differences, shape [many, width], their largest entry positive."""
    _, sizes, axes = np.linalg.svd(gap, full_matrices=False)
    axes = axes[: min(many, int((sizes > 1e-6 * max(sizes[0], 1e-12)).sum()))]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(1)]
    return axes * np.sign(largest)[:, None]


def _words(texts: list[str], where: np.ndarray) -> str:
    """What stands at the two ends of a direction, in words."""
    order = np.argsort(where, kind="stable")
    many = max(1, min(_ENDS, len(texts) // 5))
    low, high = ([texts[int(i)] for i in some] for some in (order[:many], order[-many:]))
    more, less = ([w for w, _ in telling_words(a, b, 6)] for a, b in ((high, low), (low, high)))
    told = f"more of: {', '.join(more) or 'nothing that words tell'}"
    return f"{told}; less of: {', '.join(less) or 'nothing that words tell'}"
