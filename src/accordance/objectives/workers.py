"""Statistics of a batch that is spread over several workers.

KTO's KL term and BCO's shift are means over the whole batch. An objective knows nothing of workers: who trains
says how to add up over them, with `across_workers`. Without it, a batch is what one worker holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

AddUp = Callable[[Tensor], Tensor]

_add_up: ContextVar[AddUp | None] = ContextVar("add_up", default=None)


@contextmanager
def across_workers(add_up: AddUp) -> Iterator[None]:
    """While this is open, batch statistics are taken over all workers.

    Args:
        add_up: from a small tensor to its elementwise sum over all workers, such as
            ``lambda t: accelerator.reduce(t, "sum")``. An objective calls it the same number of times in every
            worker, even where a worker's rows are all of one label; workers must call the objective in step.
    """
    token = _add_up.set(add_up)
    try:
        yield
    finally:
        _add_up.reset(token)


def over_workers(totals: Tensor) -> Tensor:
    """A small tensor of sums added up over all workers; itself outside `across_workers`. No gradient flows."""
    add_up = _add_up.get()
    return totals.detach() if add_up is None else add_up(totals.detach())


def batch_totals(*values: Tensor) -> Tensor:
    """Sum and count of each group of values over the batch of all workers, without gradient.

    Args:
        *values: one tensor of shape [m] per group; m may be 0.

    Returns:
        Shape [groups, 2]: sum and count.
    """
    return over_workers(torch.stack([torch.stack([v.detach().sum(), v.new_tensor(v.numel())]) for v in values]))
