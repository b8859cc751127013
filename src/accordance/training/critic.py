"""A critic that is a model of its own: begun as a language model, or as a reward model with its head (PPO)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from accordance.core.errors import ConfigError
from accordance.models import LocalPolicy
from accordance.models.engine import Engine


@dataclass(frozen=True)
class Critic:
    """What values are read off.

    Attributes:
        engine: of the model whose hidden states are read.
        weight: of its head, shape [1, width], where it has been a reward model.
        bias: of that head, shape [1], where it has one.
    """

    engine: Engine
    weight: Tensor | None = None
    bias: Tensor | None = None


def load_critic(name: str, policy: LocalPolicy) -> Critic:
    """The critic of a checkpoint.

    Args:
        name: path or hub name of a causal language model, or of a sequence classifier with one output.
        policy: who is criticised; the critic reads its tokens.

    Raises:
        ConfigError: it can't be loaded, has several outputs, or another vocabulary.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        scores = any("SequenceClassification" in kind for kind in config.architectures or ())
        kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
        found: Any = kind.from_pretrained(name, dtype=policy.engine.bare.dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the critic can't be loaded", where="critic_model", found=f"{name}: {error}"
        ) from error
    sizes = [model.get_input_embeddings().weight.shape[0] for model in (policy.engine.bare, found)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            "the critic reads the policy's tokens and has another vocabulary",
            where=f"critic_model {Path(name)}",
            found=f"{sizes[1]} tokens",
            expected=f"{sizes[0]} tokens",
        )
    if not scores:
        return Critic(Engine(found.to(policy.engine.device).eval(), shared=policy.engine.shared))
    if found.num_labels != 1:
        raise ConfigError(
            "a critic begins as a reward model with one output",
            where=f"critic_model {Path(name)}",
            found=f"{found.num_labels} outputs",
        )
    model: Any = AutoModelForCausalLM.from_config(config, dtype=policy.engine.bare.dtype)
    model.base_model.load_state_dict(found.base_model.state_dict())
    with torch.no_grad():
        weight = found.score.weight.detach().clone()
        bias = getattr(found.score, "bias", None)
        engine = Engine(model.to(policy.engine.device).eval(), shared=policy.engine.shared)
        return Critic(engine, weight, None if bias is None else bias.clone())
