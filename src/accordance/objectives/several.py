"""Examples of more than two responses around a pair: how a pair's own loss is asked about some of them.

An objective that arranges several responses per comparison (`mapl`, `spo`) takes a bundle of lists; every two
places of it are a pair again, which a pairwise loss can be asked about.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accordance.core import views
from accordance.core.objective import ListLogps, PairLogps

#: Extras that carry what belongs to the pair itself.
GAP, ANNOTATOR = "pair_gap", "annotator"


def pair_columns(pair: views.Pair) -> dict[str, float]:
    """What an arranged example carries over of its comparison, for the extras."""
    return {GAP: pair.gap, ANNOTATOR: pair.judgment.annotator or ""}  # type: ignore[dict-item]


def places(lists: ListLogps, chosen: int = 0, rejected: int = 1) -> PairLogps:
    """Two places of every list as pairs, per-token values included.

    Args:
        lists: n lists of K responses.
        chosen, rejected: which places.
    """

    def at(values: Tensor | None, place: int) -> Tensor | None:
        return None if values is None else values[:, place]

    tokens = lists.tokens
    if tokens is not None:
        first = torch.arange(len(lists.logp), device=tokens.row.device) * lists.logp.shape[1]
        tokens = tokens.responses(torch.stack([first + chosen, first + rejected], 1).flatten())
    return PairLogps(
        lists.logp[:, chosen],
        lists.logp[:, rejected],
        lists.length[:, chosen],
        lists.length[:, rejected],
        at(lists.ref, chosen),
        at(lists.ref, rejected),
        lists.extras.get(GAP),
        tokens=tokens,
        weight=lists.weight,
        extras={name: values for name, values in lists.extras.items() if values.ndim == 1 and name != GAP},
    )
