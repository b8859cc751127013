"""Gradients of several losses, side by side: taken, accumulated over batches, combined into one step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from accordance.balancing.directions import GradientBalancer
from accordance.core.errors import TrainingError


class GradientSet:
    """One gradient per loss over the parameters that are trained; a LoRA adapter's only, where there is one.

    It holds m times the trained parameters; each loss takes one backward pass through a graph that is shared.
    Use it as ``add`` for every batch of a step, then ``write`` once.

    Args:
        parameters: those that take gradients; frozen ones are left out.
        weights: the user's weight of each loss, shape [m].
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weights: Tensor) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.weights = weights.double()
        if not self.parameters:
            raise TrainingError("nothing is trained: every parameter is frozen")
        self.clear()

    def clear(self) -> None:
        """Forget what was accumulated."""
        self.gradients: list[list[Tensor | None]] = [[None] * len(self.parameters) for _ in self.weights]
        self.losses = torch.zeros(len(self.weights), dtype=torch.float64)

    def add(self, losses: Tensor) -> None:
        """Add the gradients of some losses, shape [m], to those accumulated."""
        last = len(losses) - 1
        for index, loss in enumerate(losses):
            # A loss that nothing in this batch has a part in is a constant.
            found = (
                torch.autograd.grad(loss, self.parameters, retain_graph=index < last, allow_unused=True)
                if loss.requires_grad
                else [None] * len(self.parameters)
            )
            held = self.gradients[index]
            for place, gradient in enumerate(found):
                if gradient is not None:
                    before = held[place]
                    held[place] = gradient if before is None else before.add_(gradient)
        self.losses += losses.detach().double().cpu()

    def gram(self) -> Tensor:
        """Inner products of the gradients, shape [m, m], in float64."""
        size = len(self.gradients)
        total = torch.zeros(size, size, dtype=torch.float64)
        for place, parameter in enumerate(self.parameters):
            row = [held[place] for held in self.gradients]
            empty = torch.zeros((), device=parameter.device, dtype=parameter.dtype)
            stack = (
                torch.stack([empty.expand(parameter.shape) if g is None else g for g in row]).flatten(1).float()
            )
            total += (stack.double() @ stack.double().T).cpu()
        return total

    def write(self, balancer: GradientBalancer) -> Tensor:
        """Put the combined direction into the parameters' ``grad``, and clear.

        Returns:
            The coefficient of each loss's gradient, shape [m].
        """
        found = balancer.coefficients(self.gram(), self.weights, self.losses)
        factors = found.tolist()
        for place, parameter in enumerate(self.parameters):
            parts = [
                factor * g for factor, held in zip(factors, self.gradients) if (g := held[place]) is not None
            ]
            parameter.grad = torch.stack(parts).sum(0) if parts else None
        self.clear()
        return found


__all__ = ["GradientSet"]
