"""Token-level DPO (TDPO) and SparsePO: rewards and divergences token by token, all of them or a learned few.

Both read KL(reference || policy) between the whole distributions at every token, which takes a live reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, layer_norm, logsigmoid

from accordance.core.catalogue import system
from accordance.core.objective import Auxiliary, Objective, PairLogps, Tokens, need_reference
from accordance.objectives.distillation import need_tokens, per_answer
from accordance.objectives.parts import Score, log_sigmoid, margin, pairwise
from accordance.objectives.registry import objective, require, require_positive, require_rate

Masks = Literal["common", "independent", "activation"]


@objective("tdpo")
def tdpo(
    beta: float = 0.1, alpha: float = 0.5, detach_chosen: bool = True, label_smoothing: float = 0.0
) -> Objective[PairLogps]:
    """Token-level DPO (arXiv:2404.11999): DPO's margin less alpha times a difference of sequential divergences.

    With D the sum over the tokens of an answer of KL(reference || policy), the margin is beta times
    (log-ratio of chosen - rejected) - alpha (D of rejected - D of chosen). The defaults are TDPO2, which lets no
    gradient through the chosen answer's D; ``alpha=1, detach_chosen=False`` is TDPO1.

    Args:
        beta: as in DPO.
        alpha: weight of the divergences; 0 is DPO.
        detach_chosen: whether the divergence on the chosen answer is a constant.
        label_smoothing: assumed share of wrong labels; 0 for none.
    """
    require_positive(beta=beta)
    require(alpha >= 0, "alpha", alpha, ">= 0")
    require_rate(label_smoothing=label_smoothing)

    def read(pairs: PairLogps) -> tuple[Tensor, Tensor]:
        chosen, rejected = per_answer(pairs, "kl")
        if detach_chosen:
            chosen = chosen.detach()
        return pairs.chosen_ratio + alpha * chosen, pairs.rejected_ratio + alpha * rejected

    made = pairwise(margin(log_sigmoid(label_smoothing)), score=Score(read, True, tokens=True), beta=beta)
    return replace(made, whole=("kl",))


@objective("sparsepo")
@system("S080", "SparsePO", paper="arXiv:2410.05102")
def sparsepo(
    beta: float = 0.1,
    masks: Masks = "common",
    l1_reward: float = 0.0,
    l1_kl: float = 0.0,
    dropout: float = 0.1,
) -> Objective[PairLogps]:
    """SparsePO: each token's log-ratio, and each token's divergence, counts as much as a mask says.

    The margin is beta times the sum over tokens of (reward mask x log-ratio + divergence mask x KL(reference ||
    policy)), chosen less rejected. All masks 1 is TDPO1; divergence masks 0 is DPO as well. Masks are read off the
    *reference's* hidden states of all layers at the token itself: by a small network that is trained along (one for
    both masks, or two), whose rectified output makes exact zeros; or, untrained, as the mean absolute activation,
    standardised over the answer and stretched to [0, 1] (the paper's MaPO, no relation to other methods of that
    name; which activations it averages is not reproduced, hidden states are taken). Trained masks begin at about 1
    and can grow: watch them, and use an L1 weight.

    Args:
        beta: as in DPO.
        masks: ``common``: one trained mask for rewards and divergences; ``independent``: two; ``activation``: none is
            trained.
        l1_reward: weight of the sum of the reward masks of a pair.
        l1_kl: the same for the divergence masks.
        dropout: in the mask network, on each layer's output and on their mix.
    """
    require_positive(beta=beta)
    require(l1_reward >= 0, "l1_reward", l1_reward, ">= 0")
    require(l1_kl >= 0, "l1_kl", l1_kl, ">= 0")
    require(0 <= dropout < 1, "dropout", dropout, "0 <= value < 1")
    trained = masks != "activation"
    require(trained or l1_reward == l1_kl == 0, "l1_reward", (l1_reward, l1_kl), "0 where no mask is trained")
    network = TokenMasks(2 if masks == "independent" else 1, dropout)

    def both(tokens: Tokens) -> tuple[Tensor, Tensor]:
        if not trained:
            found = activation_mask(tokens)
            return found, found
        made = network(tokens.layers).to(tokens.logp).unbind(-1)
        return made[0], made[-1]

    def terms(pairs: PairLogps) -> tuple[Tensor, Tensor, Tensor]:
        tokens = need_tokens(pairs.tokens, "kl")
        assert tokens.kl is not None
        reward, divergence = both(tokens)
        worth = reward * (tokens.logp - need_reference(tokens.ref)) + divergence * tokens.kl
        chosen, rejected = per_answer(pairs, "kl", worth)
        sizes = per_answer(pairs, "kl", l1_reward * reward + l1_kl * divergence)
        return beta * chosen, beta * rejected, sizes[0] + sizes[1]

    def function(pairs: PairLogps) -> Tensor:
        chosen, rejected, size = terms(pairs)
        return size - logsigmoid(chosen - rejected)

    return Objective(
        "sparsepo",
        PairLogps,
        function,
        tokens=True,
        whole=("kl",),
        layers=True,
        module=network if trained else None,
        rewards=lambda pairs: terms(pairs)[:2],
    )


class TokenMasks(Auxiliary):
    """Masks of tokens from hidden states: relu(sum over layers of a_l relu(w_l . norm(h_l) + b_l)).

    Args:
        masks: how many to make of the same states.
        dropout: share of each layer's outputs, and of mixed ones, that are dropped in training.
    """

    def __init__(self, masks: int, dropout: float) -> None:
        super().__init__()
        self.masks, self.dropout = masks, dropout

    def attach(self, width: int, layers: int) -> None:
        """Make the parameters; masks begin at about 1."""
        self.read = nn.Parameter(torch.randn(layers + 1, self.masks, width) / width)
        self.shift = nn.Parameter(torch.ones(layers + 1, self.masks))
        self.mix = nn.Parameter(torch.full((layers + 1, self.masks), 1 / (layers + 1)))

    def forward(self, layers: Tensor | None) -> Tensor:
        """Masks of tokens from hidden states [tokens, layers + 1, width], shape [tokens, masks]."""
        if layers is None or not hasattr(self, "read"):
            raise ValueError(
                "masks are read off the reference's hidden states: attach the module, carry `layers`"
            )
        states = layer_norm(layers.to(self.read), layers.shape[-1:])
        each = torch.einsum("tlw,lmw->tlm", states, self.read) + self.shift
        each = dropout(each.relu(), self.dropout, self.training)
        return dropout((each * self.mix).sum(1), self.dropout, self.training).relu()


def activation_mask(tokens: Tokens) -> Tensor:
    """Untrained masks: mean absolute activation per token, standardised and stretched to [0, 1] in each answer.

    Returns:
        Shape [tokens]; 1 everywhere in an answer whose tokens are all alike.
    """
    if tokens.layers is None:
        raise ValueError("masks are read off the reference's hidden states: carry `layers`")
    size = tokens.layers.abs().mean((1, 2)).to(tokens.logp)
    rows = int(tokens.row.max()) + 1 if len(tokens.row) else 0

    def extreme(how: Literal["amin", "amax"]) -> Tensor:
        empty = size.new_zeros(rows)
        return empty.scatter_reduce(0, tokens.row, size, how, include_self=False)[tokens.row]

    # Standardising first, as published, changes nothing: the stretch undoes shift and scale.
    low, high = extreme("amin"), extreme("amax")
    spread = high - low
    return torch.where(spread > 0, (size - low) / spread.clamp(min=1e-12), torch.ones_like(size))
