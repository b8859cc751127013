"""Policies of the form base * exp(utility / beta) in the tabular lab, at a coefficient or at a matched KL."""

from __future__ import annotations

import torch
from torch import Tensor

from accordance.lab.tabular import TabularPolicy


def uniform(prompts: int, responses: int) -> TabularPolicy:
    """The base policy that writes every response equally often."""
    return TabularPolicy(torch.zeros(prompts, responses, dtype=torch.float64)).frozen()


def tilted(base: TabularPolicy, utility: Tensor, beta: float) -> TabularPolicy:
    """The optimum of E[utility] - beta KL(policy || base)."""
    return TabularPolicy(base.log_probs + utility / beta, base.lengths).frozen()


def tilted_to(base: TabularPolicy, utility: Tensor, kl: float) -> TabularPolicy:
    """The same at the beta where the mean KL over prompts is `kl`."""
    low, high = 1e-3, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        far = tilted(base, utility, middle).kl(base).mean() > kl
        low, high = (middle, high) if far else (low, middle)
    return tilted(base, utility, high)


def spread(policy: TabularPolicy, rewards: Tensor) -> Tensor:
    """Expected rewards under a policy for each prompt, shape [prompts, K]."""
    return torch.einsum("ps,psk->pk", policy.probs, rewards)
