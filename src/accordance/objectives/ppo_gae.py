"""Credit for single tokens: rewards with a KL in them, and advantages by generalised advantage estimation (GAE).

Tokens are flat, those of one response in a row, with `row` saying which response each belongs to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accordance.objectives.workers import batch_totals

#: Keeps advantages that hardly differ from blowing up.
_LEAST_SPREAD = 1e-8


def token_rewards(scores: Tensor, row: Tensor, log_ratio: Tensor | None = None, kl: float = 0.0) -> Tensor:
    """What each token earns: the response's score at its last token, less its share of the KL.

    Args:
        scores: one per response, shape [responses].
        row: which response each token belongs to, shape [tokens], ascending.
        log_ratio: log of sampling policy over reference at each token, shape [tokens]; needed where `kl` is not 0.
        kl: weight of it.

    Returns:
        Shape [tokens], without gradient.
    """
    last = torch.ones_like(row, dtype=torch.bool)
    last[:-1] = row[1:] != row[:-1]
    rewards = torch.where(last, scores[row], torch.zeros_like(scores[row]))
    if kl:
        assert log_ratio is not None
        rewards = rewards - kl * log_ratio
    return rewards.detach()


def gae(rewards: Tensor, values: Tensor, row: Tensor, gamma: float = 1.0, lam: float = 0.95) -> Tensor:
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, with delta_t = r_t + gamma V_{t+1} - V_t; V after the end is 0.

    Args:
        rewards: of each token, shape [tokens].
        values: the critic's V before each token, shape [tokens].
        row: which response each token belongs to, shape [tokens], ascending.
        gamma: discount per token.
        lam: 1 for returns less values, 0 for one-step errors.

    Returns:
        Shape [tokens], without gradient.
    """
    rewards, values = rewards.detach(), values.detach()
    count = torch.bincount(row)
    first = count.cumsum(0) - count
    place = torch.arange(len(row), device=row.device) - first[row]
    grid = rewards.new_zeros(2, len(count), int(count.max()) + 1 if len(count) else 1)
    grid[0, row, place], grid[1, row, place] = rewards, values
    reward, value = grid
    advantages, running = torch.zeros_like(reward), torch.zeros_like(reward[:, 0])
    for step in reversed(range(reward.shape[1] - 1)):
        running = reward[:, step] + gamma * value[:, step + 1] - value[:, step] + gamma * lam * running
        advantages[:, step] = running
    return advantages[row, place]


def whitened(advantages: Tensor) -> Tensor:
    """With mean 0 and variance 1 over the tokens of all workers; shape [tokens] in and out."""
    (total, count), (squares, _) = batch_totals(advantages, advantages**2)
    mean = total / count
    variance = (squares / count - mean**2).clamp(min=0)
    return (advantages - mean.to(advantages)) / (variance.sqrt() + _LEAST_SPREAD).to(advantages)
