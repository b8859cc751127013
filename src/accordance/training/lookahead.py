"""The extragradient step in the trainer: sample where a plain step leads, then step from where it began (EGPO).

Two optimiser steps of the trainer make one update. The first is a plain step on samples of the policy as it is; for the
second the policy that this led to samples (the opponents of the game), weights and moments go back to where they were,
and the step is taken from there. `accordance.objectives.Extragradient` is the same for a loop of one's own.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that training moves."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def take_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put such a copy in the place of the weights."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[name])


class LookAhead:
    """Where an update began, while the policy is ahead.

    Holds one more copy of the trainable weights and of the optimiser's state.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.moments: dict[str, Any] = {}

    @torch.no_grad()
    def leave(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Remember where the policy is."""
        self.weights = trainable_weights(model)
        self.moments = deepcopy(optimizer.state_dict())

    @torch.no_grad()
    def back(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and moments back to where the update began; the learning rate stays as it is now."""
        take_weights(model, self.weights)
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(self.moments)
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate
        self.weights, self.moments = {}, {}

    @property
    def ahead(self) -> bool:
        """Whether there is somewhere to go back to."""
        return bool(self.weights)

    def state(self) -> dict[str, Any]:
        """For a checkpoint that is written while the policy is ahead."""
        return {"weights": self.weights, "moments": self.moments}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint holds."""
        self.weights, self.moments = state["weights"], state["moments"]
