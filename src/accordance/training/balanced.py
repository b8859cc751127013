"""A loss and a gradient for each member of a sum, put together by a balancer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from accordance.balancing import GradientBalancer, GradientSet
from accordance.core.objective import Objective
from accordance.objectives import parts_of
from accordance.training.auxiliary import trained_parameters


class Members:
    """The members of a sum of objectives, whose gradients a balancer puts together.

    Attributes:
        gradients: what has been accumulated in this step.
        losses: the summed loss of each member on the last bundle, with its graph, shape [m].
    """

    def __init__(self, model: nn.Module, objective: Objective[Any], balancer: GradientBalancer) -> None:
        self.parts, self.balancer = parts_of(objective), balancer
        self.names = [part.name for part, _ in self.parts]
        self.weights = torch.tensor([weight for _, weight in self.parts])
        self.gradients = GradientSet(trained_parameters(model, objective), self.weights)
        self.losses = torch.zeros(len(self.parts))

    def __call__(self, bundle: Any) -> Tensor:
        """The weighted loss of each example, shape [n]; those of the members are kept."""
        each = torch.stack([part(bundle) for part, _ in self.parts])
        counted = each if bundle.weight is None else each * bundle.weight
        self.losses = counted.sum(1)
        return self.weights.to(each) @ each.detach()
