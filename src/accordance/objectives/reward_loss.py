"""The loss of reward models over pairs of scores."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def pairwise_reward_loss(
    chosen: Tensor, rejected: Tensor, l2: float = 0.01, margin: Tensor | float = 0.0
) -> Tensor:
    """-log sigmoid(r_w - r_l - margin) + l2 (r_w^2 + r_l^2), one loss per pair (ChatGLM-RLHF, arXiv:2404.00934).

    Comparisons within a prompt say nothing about the level of its scores, so that it drifts; a zero-mean Gaussian
    prior on both scores pins it down. `l2` 0 is Bradley-Terry's loss.

    Args:
        chosen, rejected: scores, shape [n].
        l2: weight of the prior.
        margin: by how much chosen should lead, a number or shape [n].

    Returns:
        Shape [n].
    """
    return l2 * (chosen**2 + rejected**2) - logsigmoid(chosen - rejected - margin)
