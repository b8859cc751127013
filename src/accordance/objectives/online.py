"""Between rollouts and objectives: pairwise losses over sampled lists, and the extragradient step.

A rollout is a list of responses to one prompt with a score for each (a reward, or a win rate against opponents).
`over_lists` lets any pairwise objective learn from it: online DPO is ``over_lists(dpo())``, online IPO
``over_lists(egpo())`` with win rates as scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from accordance.core.errors import ConfigError
from accordance.core.objective import ListLogps, Objective, PairLogps
from accordance.objectives.listwise import need_scores

Played = TypeVar("Played")
Pairing = Literal["all", "extremes"]


def over_lists(
    objective: Objective[PairLogps], pairing: Pairing = "all", *, ties: bool = False
) -> Objective[ListLogps]:
    """A pairwise objective as one over lists: every two responses are a pair, the better-scored one chosen.

    The loss of a list is the mean over its pairs, 0 where there is none; `gap` is the difference of the scores,
    which also stand in the extras ``chosen_win_rate`` and ``rejected_win_rate``. An extra of shape [n, K] becomes
    two, ``<name>_chosen`` and ``<name>_rejected``; one of shape [n] is that of each pair.

    Args:
        objective: the loss of a pair.
        pairing: ``all`` pairs, or ``extremes``: the best and the worst of each list alone.
        ties: whether equal scores make a pair, too; sensible where the loss aims at the gap (`egpo`), not where
            it takes the first for the winner.

    Raises:
        ConfigError: the objective is no pairwise one.
    """
    if objective.bundle is not PairLogps:
        raise ConfigError(
            f"{objective.name} can't be taken over lists",
            found=f"it takes {objective.bundle.kind}",
            expected="an objective over pairs",
        )
    told = objective.metrics

    def function(lists: ListLogps) -> Tensor:
        row, first, second = _pair_up(lists, pairing, ties)
        losses = objective(_as_pairs(lists, row, first, second))
        total = losses.new_zeros(len(lists.logp)).index_add(0, row, losses)
        count = torch.bincount(row, minlength=len(lists.logp)).clamp(min=1)
        return total / count

    def metrics(lists: ListLogps) -> Mapping[str, Tensor]:
        assert told is not None
        return told(_as_pairs(lists, *_pair_up(lists, pairing, ties)))

    made: Any = replace(objective, rewards=None, metrics=metrics if told is not None else None)
    return replace(made, bundle=ListLogps, function=function)


class Extragradient:
    """Steps that look ahead: opponents are drawn from where a plain step would lead (EGPO, arXiv:2503.08942).

    Each `step` plays and updates twice. The first time it plays with the weights as they are and takes a plain
    step; the second time it plays with the weights that this led to, returns to where it started, weights and
    moments of the optimizer alike, and steps from there with what was played last.

    It holds one more copy of the trainable weights and of the optimizer's state, and takes two optimizer steps
    for one real update: count gradient steps when comparing.

    Args:
        model: whose trainable parameters are moved.
        optimizer: over those parameters.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def step(self, play: Callable[[], Played], loss: Callable[[Played], Tensor]) -> tuple[float, float]:
        """One update.

        Args:
            play: samples from the model as it stands and has it judged; called twice, without gradients.
            loss: the batch loss of what was played, under the model as it stands; called twice.

        Returns:
            The losses of the two half-steps.
        """
        start = [(p, p.detach().clone()) for p in self.model.parameters() if p.requires_grad]
        moments = deepcopy(self.optimizer.state_dict())
        ahead = self._plain(play, loss)
        with torch.no_grad():
            played = play()
            for parameter, value in start:
                parameter.copy_(value)
        self.optimizer.load_state_dict(moments)
        return ahead, self._descend(loss(played))

    def _plain(self, play: Callable[[], Played], loss: Callable[[Played], Tensor]) -> float:
        with torch.no_grad():
            played = play()
        return self._descend(loss(played))

    def _descend(self, value: Tensor) -> float:
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        return float(value.detach())


def _pair_up(lists: ListLogps, pairing: Pairing, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """List, better and worse response of each pair, shape [pairs] each."""
    scores, mask = need_scores(lists), lists.mask
    gaps = scores[:, :, None] - scores[:, None, :]
    pairs = gaps > 0
    if ties:
        earlier = torch.ones(gaps.shape[1:], dtype=torch.bool, device=gaps.device).triu(1)
        pairs = pairs | ((gaps == 0) & earlier)
    pairs = pairs & mask[:, :, None] & mask[:, None, :]
    if pairing == "extremes":
        best = scores.masked_fill(~mask, -torch.inf).argmax(-1)
        worst = scores.masked_fill(~mask, torch.inf).argmin(-1)
        only = torch.zeros_like(pairs)
        only[torch.arange(len(scores), device=scores.device), best, worst] = True
        pairs = pairs & only
    row, first, second = pairs.nonzero().unbind(1)
    return row, first, second


def _as_pairs(lists: ListLogps, row: Tensor, first: Tensor, second: Tensor) -> PairLogps:
    scores, ref = need_scores(lists), lists.ref
    extras: dict[str, Tensor] = {
        "chosen_win_rate": scores[row, first],
        "rejected_win_rate": scores[row, second],
    }
    for name, values in lists.extras.items():
        if values.ndim == 1:
            extras[name] = values[row]
        else:
            extras |= {f"{name}_chosen": values[row, first], f"{name}_rejected": values[row, second]}
    tokens = lists.tokens
    if tokens is not None:
        start = row * lists.logp.shape[1]
        tokens = tokens.responses(torch.stack([start + first, start + second], 1).flatten())
    return PairLogps(
        lists.logp[row, first],
        lists.logp[row, second],
        lists.length[row, first],
        lists.length[row, second],
        None if ref is None else ref[row, first],
        None if ref is None else ref[row, second],
        scores[row, first] - scores[row, second],
        tokens=tokens,
        extras=extras,
    )
