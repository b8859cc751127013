"""The policy as it was before training, for the evaluation after it, without a second model during training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from accordance.evaluation import AdapterOff
from accordance.models import LocalPolicy


class Start:
    """Brings the starting policy back.

    An adapter is switched off; a checkpoint on disk is loaded again once training is over (and the optimiser's
    state gone); only of weights that came as an object, and that training will change, a copy is kept on the CPU.

    Args:
        policy: the policy before training.
        adapter: whether an adapter is trained, so that the weights below it stay.
        reload: loads the starting checkpoint again; None where there is none on disk.
    """

    def __init__(
        self, policy: LocalPolicy, *, adapter: bool, reload: Callable[[], LocalPolicy] | None = None
    ) -> None:
        self.adapter, self.reload = adapter, reload
        self.weights = None if adapter or reload is not None else _copy(policy)

    def load(self, trained: LocalPolicy) -> Any:
        """The starting policy; `trained` carries it where an adapter was trained, or lends its model."""
        if self.adapter:
            return AdapterOff(trained)
        if self.reload is not None:
            policy = self.reload()
            policy.name += " before"
            return policy
        return StartingWeights(trained, self.weights or {})


class StartingWeights:
    """A policy with other weights, which are swapped in for as long as a call lasts, and without users.

    Args:
        policy: lends model, tokenisation and engine.
        weights: by the names of the model's parameters.
    """

    def __init__(self, policy: LocalPolicy, weights: dict[str, Tensor]) -> None:
        self.policy, self.weights, self.name = policy.for_nobody(), weights, f"{policy.name} before"
        self.tokenizer, self.encoder = policy.tokenizer, self.policy.encoder

    def generate(self, *args: Any, **options: Any) -> Any:
        """`Policy.generate` with the starting weights."""
        with self._swapped():
            return self.policy.generate(*args, **options)

    def logprobs(self, records: Any) -> Any:
        """`LocalPolicy.logprobs` with the starting weights."""
        with self._swapped():
            return self.policy.logprobs(records)

    def score_groups(self, groups: Any) -> Any:
        """`LocalPolicy.score_groups` with the starting weights."""
        with self._swapped():
            return self.policy.score_groups(groups)

    @contextlib.contextmanager
    def _swapped(self) -> Iterator[None]:
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.policy.model.named_parameters():
            now = parameter.detach().cpu().clone()
            parameter.copy_(self.weights[name])
            self.weights[name] = now


def _copy(policy: LocalPolicy) -> dict[str, Tensor]:
    return {name: p.detach().cpu().clone() for name, p in policy.model.named_parameters()}
