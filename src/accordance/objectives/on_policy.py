"""Pairs that somebody else wrote, weighted as if the policy had: WPO around any loss over pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from accordance.core.errors import DataError
from accordance.core.objective import PairLogps
from accordance.objectives.registry import Pairwise, wrapper

Alignment = Literal["sampled", "greedy", "none"]
#: What each token is held against, under its name in `Tokens`.
_AGAINST: dict[Alignment, Literal["collision", "greatest"]] = {"sampled": "collision", "greedy": "greatest"}


@wrapper("wpo", once=True)
def wpo(base: Pairwise, alignment: Alignment = "sampled") -> Pairwise:
    """WPO (arXiv:2406.11827): each pair's loss times w(chosen) w(rejected), so that likely answers count more.

    w of an answer is the geometric mean over its tokens of p(token) / a, with p the policy as it stands and a what p
    is brought on one scale by; no gradient flows through it. So pairs of another model's answers are learned from as
    if the policy had sampled them. TRL's ``use_weighting`` is the default.

    Args:
        alignment: what a is: the probability that two tokens drawn from the policy are the same (``sampled``, so that
            what it samples itself has weights around 1), that of its likeliest token (``greedy``, weights of at most
            1), or 1 (``none``, where long and short, sure and unsure answers are on scales of their own).

    Raises:
        DataError: the bundle carries no tokens, or not what they are held against.
    """

    def function(pairs: PairLogps) -> Tensor:
        losses = base.function(pairs)
        return losses * pair_weights(pairs, alignment).to(losses)

    whole = tuple(dict.fromkeys((*base.whole, *([_AGAINST[alignment]] if alignment in _AGAINST else []))))
    return replace(base, function=function, whole=whole, tokens=base.tokens or alignment != "none")


@torch.no_grad()
def pair_weights(pairs: PairLogps, alignment: Alignment = "sampled") -> Tensor:
    """w(chosen) w(rejected) of each pair, shape [n], without gradient; see `wpo`."""
    if alignment == "none":
        return (pairs.chosen / pairs.chosen_length + pairs.rejected / pairs.rejected_length).exp()
    tokens = pairs.tokens
    against = None if tokens is None else getattr(tokens, _AGAINST[alignment])
    if tokens is None or against is None:
        raise DataError(
            "wpo holds each token against the policy's own distribution and the bundle does not tell it",
            where=f"alignment {alignment}",
            expected=f"tokens with `{_AGAINST[alignment]}`",
        )
    total = torch.zeros(2 * len(pairs.chosen), dtype=tokens.logp.dtype, device=tokens.logp.device)
    total.index_add_(0, tokens.row, tokens.logp - against)
    chosen, rejected = total.view(-1, 2).unbind(1)
    return (chosen / pairs.chosen_length + rejected / pairs.rejected_length).exp()
