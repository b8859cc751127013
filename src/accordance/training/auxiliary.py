"""Trainable parts of an objective (a head, a mask network), trained with the policy and kept in checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from accordance.core.objective import Objective
from accordance.models import Group, GroupLogps, LocalPolicy, Packed, batches
from accordance.objectives import ValueHead
from accordance.training.critic import Critic

#: Before the names of a critic's own weights in a checkpoint.
_OWN = "critic."


class AuxiliaryParts:
    """The module of an objective in a training run.

    Args:
        objective: one with a module; it is given its parameters here.
        policy: what the module reads hidden states of.
        seed: of the initial values; the run's own random numbers are left alone.
        device: where it goes.
        critic: the model whose hidden states are read in the place of the policy's, and its head; trained along.
    """

    def __init__(
        self,
        objective: Objective[Any],
        policy: LocalPolicy,
        seed: int,
        device: torch.device,
        critic: Critic | None = None,
    ) -> None:
        assert objective.module is not None
        self.module = objective.module
        self.own = None if critic is None else critic.engine
        self.engine = self.own or policy.engine
        bare = self.engine.bare
        text = bare.config.get_text_config() if hasattr(bare.config, "get_text_config") else bare.config
        head = bare.get_output_embeddings()
        width = text.hidden_size if objective.layers else int(head.weight.shape[1])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module.attach(width, int(text.num_hidden_layers))
        if critic is not None and critic.weight is not None and isinstance(self.module, ValueHead):
            self.module.begin(critic.weight, critic.bias)
        self.module.to(device)

    def seen(self, packed: Packed, logps: GroupLogps) -> GroupLogps:
        """With the hidden states of the critic's own model in the place of the policy's, where it has one."""
        return logps if self.own is None else replace(logps, states=self.own(packed, states=True).states)

    @torch.no_grad()
    def values(self, groups: Sequence[Group], max_tokens: int) -> Tensor:
        """What the module makes of the hidden state before each token of the groups, shape [tokens]."""
        bare = self.engine.bare
        training, found = bare.training, []
        bare.eval()
        self.module.eval()
        try:
            for batch in batches(groups, max_tokens, shared=self.engine.shared):
                found.append(self.module(self.engine(batch, states=True).states))
        finally:
            bare.train(training)
        return torch.cat(found)

    def join(
        self,
        optimizer: torch.optim.Optimizer,
        rate: float,
        own_rate: float,
        weight_decay: float,
        accelerator: Any,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let the optimiser move the module too, in a group of its own; it alone where `alone` says so.

        A critic's own model is a third group, with `own_rate`: whether its loss reaches it the objective decides.
        Gradients are averaged over processes (nothing else does it: the module is outside what is wrapped), are not
        clipped, and are cleared after each step.
        """
        parameters, own = list(self.module.parameters()), self._own_parameters()
        policy = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.add_param_group({"params": parameters, "lr": rate, "weight_decay": weight_decay})
        if own:
            optimizer.add_param_group({"params": own, "lr": own_rate, "weight_decay": weight_decay})

        def before(*_: Any) -> None:
            if alone():
                for parameter in policy:
                    parameter.grad = None
            if accelerator.num_processes > 1:
                for parameter in parameters + own:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda *_: self._clear())

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        kept = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        if self.own is not None:
            kept |= {f"{_OWN}{n}": value.detach().cpu() for n, value in self.own.bare.state_dict().items()}
        return kept

    def restore(self, state: dict[str, Tensor]) -> None:
        """What a checkpoint kept."""
        own = {name.removeprefix(_OWN): value for name, value in state.items() if name.startswith(_OWN)}
        self.module.load_state_dict({name: v for name, v in state.items() if not name.startswith(_OWN)})
        if self.own is not None:
            self.own.bare.load_state_dict(own)

    def _own_parameters(self) -> list[nn.Parameter]:
        return [] if self.own is None else list(self.own.bare.base_model.parameters())

    def _clear(self) -> None:
        self.module.zero_grad()
        if self.own is not None:
            self.own.bare.zero_grad()


def trained_parameters(model: nn.Module, objective: Objective[Any]) -> list[nn.Parameter]:
    """What a step moves: the model's trainable parameters and those of the objective's module."""
    return [*model.parameters(), *(objective.module.parameters() if objective.module is not None else ())]
