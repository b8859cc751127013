"""Several output heads over one backbone, by name: each group is scored by its own, answers come from a blend.

Heads stand in the place of the model's output embedding, so that generation, the engine, checkpoints and optimisers
see one module. A blend averages scores, hence is one linear layer with averaged weights (`Heads.blended`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, ModelError, unknown
from accordance.models.head import ScoreTransform, label_logps, wide_type

#: What a checkpoint's config says of its heads: their names, in the order of their numbers.
CONFIG = "accordance_heads"
Blend = str | Mapping[str, float]


@system("S006", "MAH-DPO", paper="arXiv:2510.01167")
class Heads(nn.Module):
    """Named output heads over one backbone; trained one objective each, chosen or blended at inference.

    Called without a choice it gives the scores of its blend, ``sum_h alpha_h W_h x``. Groups with a `head` are scored
    by that one alone, through `logps_by_head`, so that they move it and the backbone and no other head. Training is
    ``heads: attribute`` (or ``group``) in a recipe, `accord blend` writes a blend as an ordinary checkpoint, and
    `accordance.inference.GuidedPolicy` guides answers step by step.

    Departs from the paper: examples are drawn in proportion to each objective's data and weighted so that every
    objective counts the same, in the place of equal numbers in each batch; process reward models are not trained here.

    Args:
        names: of the heads.
        first: what each begins as, noise aside.
        scale: standard deviation of the noise; every head, the first too, has noise of its own.
        seed: of the noise.

    Attributes:
        heads: one linear layer for each name, of shape [vocabulary, width].
        alpha: the blend, one share for each, summing to 1; all equal at first.

    Raises:
        ConfigError: there are fewer than two names, or a name twice.
        ModelError: the model's own head is no plain linear layer.
    """

    def __init__(self, names: Sequence[str], first: nn.Module, *, scale: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        if len(set(names)) != len(names) or len(names) < 2:
            raise ConfigError("heads need two or more different names", where="heads", found=list(names))
        if type(first) is not nn.Linear or not first.weight.is_floating_point():
            raise ModelError(
                "the output head can't be copied",
                found=type(first).__name__,
                expected="a plain linear layer",
                remedy="load the model without quantisation, and without an adapter on its head",
            )
        self.names = tuple(names)
        self.alpha = (1 / len(names),) * len(names)
        self.in_features, self.out_features = first.in_features, first.out_features
        self.heads = nn.ModuleList(_noisy(first, scale, seed * 1_000_003 + n) for n in range(len(names)))
        self.register_state_dict_post_hook(_add_blend)
        self.register_load_state_dict_pre_hook(_drop_blend)

    @property
    def weight(self) -> Tensor:
        """The weights of the blend, shape [vocabulary, width]."""
        return self._mixed("weight", self.alpha)

    def forward(self, states: Tensor) -> Tensor:
        """Scores of the blend, shape [..., vocabulary]."""
        parts = [alpha * head(states) for alpha, head in zip(self.alpha, self.heads) if alpha]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def choose(self, blend: Blend) -> None:
        """Answer from now on by one head, or by a blend of several.

        Args:
            blend: a name, or weights by name, which are brought to a sum of 1; who is not named has none.

        Raises:
            ConfigError: a name is unknown, a weight below 0, or all are 0.
        """
        self.alpha = self.shares(blend)

    @contextlib.contextmanager
    def using(self, blend: Blend | int) -> Iterator[None]:
        """`choose`, for as long as the context lasts; a number is that of a head."""
        before = self.alpha
        self.alpha = self.shares(self.names[blend] if isinstance(blend, int) else blend)
        try:
            yield
        finally:
            self.alpha = before

    def shares(self, blend: Blend) -> tuple[float, ...]:
        """The share of each head in a blend, summing to 1; see `choose`."""
        weights = {blend: 1.0} if isinstance(blend, str) else dict(blend)
        for name in weights:
            if name not in self.names:
                raise unknown("head", name, self.names)
        total = sum(weights.values())
        if not all(math.isfinite(w) and w >= 0 for w in weights.values()) or total <= 0:
            raise ConfigError("shares of heads are not below 0, and not all 0", where="blend", found=weights)
        return tuple(weights.get(name, 0.0) / total for name in self.names)

    @torch.no_grad()
    def blended(self, blend: Blend | None = None) -> nn.Linear:
        """A blend as one linear layer with averaged weights; by default the present one."""
        alpha = self.alpha if blend is None else self.shares(blend)
        weight = self._mixed("weight", alpha)
        made = nn.Linear(
            self.in_features, self.out_features, self.heads[0].bias is not None, weight.device, weight.dtype
        )
        made.weight.copy_(weight)
        if made.bias is not None:
            made.bias.copy_(self._mixed("bias", alpha))
        return made

    def _mixed(self, name: str, alpha: Sequence[float]) -> Tensor:
        values: list[Tensor] = [getattr(head, name) for head in self.heads]
        wide = torch.stack([share * value.to(wide_type(value.dtype)) for share, value in zip(alpha, values)])
        return wide.sum(0).to(values[0].dtype)


def heads_of(model: nn.Module) -> Heads | None:
    """The heads of a model, bare or wrapped; None where it has the usual one."""
    bare: Any = getattr(model, "get_base_model", lambda: model)()
    head = bare.get_output_embeddings()
    return head if isinstance(head, Heads) else None


def add_heads(model: nn.Module, names: Sequence[str], *, scale: float = 1e-3, seed: int = 0) -> Heads:
    """Put named heads in the place of a model's output embedding; one that was tied to the input's is no longer.

    Args:
        model: a transformers causal LM, changed in place.
        names, scale, seed: see `Heads`.

    Raises:
        ConfigError, ModelError: see `Heads`; or the model has heads of other names already.
    """
    there = heads_of(model)
    if there is not None:
        if set(there.names) != set(names):
            raise ConfigError(
                "the model has heads of other names already",
                where="heads",
                found=", ".join(there.names),
                expected=", ".join(names),
                remedy="start from an ordinary checkpoint, or from a blend of those heads (`accord blend`)",
            )
        return there
    made = Heads(names, _own_head(model), scale=scale, seed=seed)
    _put(model, made)
    setattr(model.config, CONFIG, list(made.names))
    return made


def merge_heads(model: nn.Module, blend: Blend | None = None) -> None:
    """Leave of a model's heads one blend of them: an ordinary model again, in place.

    Args:
        model: with heads.
        blend: see `Heads.choose`; by default the present one.

    Raises:
        ModelError: the model has no heads.
        ConfigError: see `Heads.choose`.
    """
    heads = heads_of(model)
    if heads is None:
        raise ModelError(
            "the model has one output head: there is nothing to blend",
            remedy="train one with heads: accord align --heads attribute",
        )
    _put(model, heads.blended(blend))
    delattr(model.config, CONFIG)


def restore_heads(model: nn.Module, files: Sequence[str | Path]) -> None:
    """Give a model that was loaded from a checkpoint with heads those heads back.

    Args:
        model: as transformers loaded it, with the blend as its head.
        files: the safetensors files of the checkpoint.

    Raises:
        ModelError: the heads that its config names are not in the files.
    """
    names = list(getattr(model.config, CONFIG))
    place = next(name for name, module in model.named_modules() if module is _own_head(model))
    heads = Heads(names, _own_head(model), scale=0.0)
    wanted, found = {f"{place}.heads.{key}": key for key, _ in heads.heads.named_parameters()}, {}
    for file in files:
        with safe_open(str(file), framework="pt") as opened:
            there = wanted.keys() & set(opened.keys())
            found |= {wanted[name]: opened.get_tensor(name) for name in there}
    if len(found) < len(wanted):
        raise ModelError(
            "the checkpoint's config names heads that its weights lack",
            where=str(files[0]) if files else type(model).__name__,
            found=f"{len(found)} of {len(wanted)} tensors",
            expected=", ".join(sorted(wanted)[:3]) + ", ...",
        )
    heads.heads.load_state_dict(found)
    _put(model, heads)


def logps_by_head(
    hidden: Tensor,
    labels: Tensor,
    head: nn.Module,
    which: Tensor,
    transform: ScoreTransform,
    *,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each label under the head that it belongs to; see `label_logps`.

    Args:
        hidden, labels, transform, entropy: as `label_logps` takes them.
        head: the model's `Heads`.
        which: the number of each label's head, shape [labels].

    Raises:
        ModelError: the model has no such heads.
    """
    if not isinstance(head, Heads) or (len(which) and int(which.max()) >= len(head.names)):
        raise ModelError(
            "groups are to be scored by heads that the model does not have",
            found=", ".join(head.names) if isinstance(head, Heads) else "one head",
            expected=f"{int(which.max()) + 1} heads or more",
            remedy="score them by the model that was trained with these heads, or leave Group.head out",
        )
    logps = torch.zeros(len(labels), dtype=wide_type(hidden.dtype), device=hidden.device)
    spread = torch.zeros_like(logps) if entropy else None
    for number, one in enumerate(head.heads):
        mine = (which == number).nonzero()[:, 0]
        some, entropies = label_logps(hidden[mine], labels[mine], one, transform, entropy=entropy)
        logps = logps.index_add(0, mine, some.to(logps.dtype))
        if spread is not None and entropies is not None:
            spread = spread.index_add(0, mine, entropies.to(logps.dtype))
        if not len(mine) and torch.is_grad_enabled():  # its gradient is 0, not absent: processes must agree
            logps = logps + 0.0 * sum(value.flatten()[0] for value in one.parameters())
    return logps, spread


def _noisy(first: nn.Linear, scale: float, seed: int) -> nn.Linear:
    weight, draw = first.weight.detach(), torch.Generator().manual_seed(seed)
    made = nn.Linear(first.in_features, first.out_features, first.bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        noise = torch.randn(weight.shape, generator=draw)
        made.weight.copy_(weight + scale * noise.to(weight))
        if first.bias is not None:
            made.bias.copy_(first.bias)
    return made


def _own_head(model: Any) -> nn.Module:
    return model.get_output_embeddings()


def _put(model: Any, head: nn.Module) -> None:
    """A head in the place of the model's own, no longer tied to the input embedding."""
    model.set_output_embeddings(head)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False


def _add_blend(module: Heads, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Beside the heads a checkpoint keeps their blend, so that whoever knows no heads reads an ordinary model."""
    state[f"{prefix}weight"] = module.weight.detach()
    if module.heads[0].bias is not None:
        state[f"{prefix}bias"] = module._mixed("bias", module.alpha).detach()


def _drop_blend(module: Heads, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in ("weight", "bias"):
        state.pop(prefix + name, None)
