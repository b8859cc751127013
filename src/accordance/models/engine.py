"""The one log-prob path: packed groups in, log-probabilities of their responses out.

`Engine` teaches a causal LM one more way to be called. The computation happens *inside* the model's own forward,
so that whatever wraps the model (DDP, FSDP2, PEFT, autocast, quantisation, gradient checkpointing) sees an
ordinary call. Inside it, the head is held back: it receives the hidden states of every position, takes those that
predict a label, and returns their log-probabilities.

Which layout a model can take is measured when it is loaded, not looked up: both are run on a few tokens, and
where the shared one does not give the plain one's log-probabilities, the plain one is used and said.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from accordance.core.errors import ModelError
from accordance.models import attention
from accordance.models.attention import Layout
from accordance.models.distributions import Compared, HeadTable, compared_logps
from accordance.models.head import ScoreTransform, label_logps
from accordance.models.heads import heads_of, logps_by_head
from accordance.models.packing import Group, Packed, pack

_ARGUMENT = "accordance_packed"

#: How far log-probabilities may lie apart, relative to their size, before two paths count as different.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}


@dataclass(frozen=True)
class GroupLogps:
    """Log-probabilities of the responses of a batch of groups.

    Attributes:
        logp: summed over the tokens of each response, in nats, shape [responses].
        lengths: number of tokens summed, shape [responses].
        group: which group each response belongs to, shape [responses].
        tokens: log-probability of each token, shape [tokens].
        row: which response each token belongs to, shape [tokens], ascending.
        entropy: entropy of each token's distribution, shape [tokens], where asked for.
        hidden: last hidden state at the end of each response, shape [responses, width], where asked for.
        kl, teacher_kl, advantage, collision, greatest: what `Compared` asks for, shape [tokens] each.
        table: this model's distributions at the labels, without gradient, where asked for.
        layers: every layer's hidden state *at* each token (not before it), the embedding first, shape [tokens,
            layers + 1, width], where asked for; without gradient.
        states: the last hidden state from which each token is predicted, shape [tokens, width], where asked for.
    """

    logp: Tensor
    lengths: Tensor
    group: Tensor
    tokens: Tensor
    row: Tensor
    entropy: Tensor | None = None
    hidden: Tensor | None = None
    kl: Tensor | None = None
    teacher_kl: Tensor | None = None
    advantage: Tensor | None = None
    collision: Tensor | None = None
    greatest: Tensor | None = None
    table: HeadTable | None = None
    layers: Tensor | None = None
    states: Tensor | None = None


class Engine:
    """Computes log-probabilities of packed groups under one model.

    Args:
        model: a transformers causal LM, bare or wrapped in PEFT.
        shared: True or False to insist on a layout; None to measure which one is exact.

    Attributes:
        shared: whether every prompt is computed once.
        reason: why not, where not.

    Raises:
        ModelError: the model has no output head, or does something unknown to its scores.
    """

    def __init__(self, model: nn.Module, *, shared: bool | None = None) -> None:
        self.model = model
        self.bare = unwrap(model)
        if self.bare.get_output_embeddings() is None:
            raise ModelError(
                "the model has no language-model head",
                where=type(self.bare).__name__,
                remedy="load it with a causal LM class, such as AutoModelForCausalLM",
            )
        self.transform = ScoreTransform.of(self.bare.config)
        self.shared, self.reason = True, ""
        _patch(self.bare)
        if shared is False:
            self.shared, self.reason = False, "switched off"
            return
        if not getattr(self.bare, "_supports_attention_backend", False):
            self._plain(f"{type(self.bare).__name__} does not use transformers' attention interface")
        else:
            self._implementation = self.bare.config._attn_implementation
            self.bare.set_attn_implementation(attention.NAME)
            if shared is None:
                self._measure()

    def _plain(self, reason: str) -> None:
        self.shared, self.reason = False, reason
        warnings.warn(f"every prompt is computed once per response (slower): {reason}", stacklevel=4)

    @torch.no_grad()
    def _measure(self) -> None:
        """Try both layouts on a few tokens; keep the shared one only where it is exact."""
        vocabulary = self.bare.get_input_embeddings().weight.shape[0]
        draw = torch.Generator().manual_seed(0)
        sizes = ((5, (3, 4)), (7, (6, 2, 1)))
        groups = [
            Group(*(_draw(vocabulary, p, draw), [_draw(vocabulary, r, draw) for r in rs])) for p, rs in sizes
        ]
        training = self.bare.training
        self.bare.eval()
        try:
            ours = self(groups).logp
            plain = torch.cat([naive_logps(self.bare, group) for group in groups]).to(ours.device)
            off = relative_gap(ours, plain)
            if off > self.tolerance:
                self._plain(f"the shared layout is off by {off:.1e} on {type(self.bare).__name__}")
        except Exception as error:
            self._plain(f"the shared layout fails on {type(self.bare).__name__}: {error}")
        finally:
            self.bare.train(training)
        if not self.shared:
            self.bare.set_attn_implementation(self._implementation)

    @property
    def tolerance(self) -> float:
        """How far two paths may lie apart, relative, in the model's type."""
        return TOLERANCE.get(self.bare.get_input_embeddings().weight.dtype, 5e-2)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.bare.get_input_embeddings().weight.device

    def pack(self, groups: Sequence[Group], *, hidden: bool = False) -> Packed:
        """Groups as tensors in this model's layout, on the CPU."""
        return pack(groups, shared=self.shared, keep_last=hidden)

    def __call__(
        self,
        groups: Sequence[Group] | Packed,
        *,
        model: nn.Module | None = None,
        hidden: bool = False,
        entropy: bool = False,
        compared: Compared | None = None,
        table: bool = False,
        layers: bool = False,
        states: bool = False,
    ) -> GroupLogps:
        """Log-probabilities of every response.

        Args:
            groups: the groups, or what `pack` made of them.
            model: the wrapped model to call (what Accelerate returned); by default the one given first.
            hidden: whether to return the hidden state at the end of each response.
            entropy: whether to return the entropy of each token's distribution.
            compared: other models' distributions to compare each token's with.
            table: whether to return this model's own, for such comparisons.
            layers: whether to return the hidden states of all layers.
            states: whether to return the hidden state from which each token is predicted.
        """
        packed = groups if isinstance(groups, Packed) else self.pack(groups, hidden=hidden or layers)
        packed = packed.to(self.device)
        if packed.heads is not None and (compared is not None or table):
            raise ModelError("whole distributions can't be compared under heads of their own for each group")
        call: dict[str, Any] = {
            "input_ids": packed.input_ids,
            "use_cache": False,
            _ARGUMENT: {
                "source": packed.source,
                "labels": packed.labels,
                "which": packed.heads,
                "last": packed.last if hidden else None,
                "entropy": entropy,
                "transform": self.transform,
                "compared": compared,
                "states": table or states,
            },
        }
        if layers:
            call["output_hidden_states"] = True
        if packed.segments:
            call["attention_mask"] = Layout(packed.segments, packed.input_ids.device).marker()
            call["position_ids"] = packed.position_ids
        else:
            call["attention_mask"] = packed.attention_mask
        out = (model if model is not None else self.model)(**call)
        tokens = out["logps"]
        sums = torch.zeros(packed.responses, dtype=tokens.dtype, device=tokens.device)
        return GroupLogps(
            logp=sums.index_add(0, packed.row, tokens),
            lengths=packed.lengths,
            group=packed.group,
            tokens=tokens,
            row=packed.row,
            entropy=out.get("entropy") if entropy else None,
            hidden=out.get("hidden"),
            kl=out.get("kl"),
            teacher_kl=out.get("teacher_kl"),
            advantage=out.get("advantage"),
            collision=out.get("collision"),
            greatest=out.get("greatest"),
            table=HeadTable(out["states"].detach(), self._own_head(), self.transform) if table else None,
            layers=_at_tokens(out["layers"], packed) if layers else None,
            states=out["states"] if states else None,
        )

    def _own_head(self) -> nn.Module:
        """The head as the call just made saw it: without its adapter, where that is switched off."""
        head = self.bare.get_output_embeddings()
        if getattr(head, "disable_adapters", False):
            return getattr(head, "base_layer", getattr(head, "original_module", head))
        return head

    @torch.no_grad()
    def check(self, groups: Sequence[Group], *, most: int = 4) -> float:
        """Compare this path with an unpadded one-by-one forward on the first groups.

        Returns:
            The largest relative gap between the two.

        Raises:
            ModelError: the gap is larger than the model's type explains.
        """
        some = [replace(g, responses=list(g.responses)[:4]) for g in groups[:most]]
        training = self.bare.training
        self.bare.eval()
        try:
            ours = self(some).logp
            plain = torch.cat([naive_logps(self.model, group) for group in some]).to(ours.device)
        finally:
            self.bare.train(training)
        off = relative_gap(ours, plain)
        if off > self.tolerance:
            raise ModelError(
                "the fast log-probabilities differ from a plain forward pass",
                where=type(self.bare).__name__,
                found=f"relative gap {off:.2e}",
                expected=f"at most {self.tolerance:.0e} in {self.bare.get_input_embeddings().weight.dtype}",
                remedy="load_policy(..., shared=False) uses the plain path; please report the architecture",
            )
        return off


def naive_logps(model: nn.Module, group: Group) -> Tensor:
    """Log-probability of each response by the model's ordinary forward: one by one, no padding, full scores.

    The yardstick for the fast path; differentiable.

    Returns:
        Shape [responses].
    """
    device, heads = unwrap(model).get_input_embeddings().weight.device, heads_of(unwrap(model))
    sums = []
    for response in group.responses:
        ids = torch.tensor([[*group.prompt, *response]], device=device)
        first = max(len(group.prompt), 1)
        with contextlib.nullcontext() if heads is None or group.head is None else heads.using(group.head):
            scores = model(input_ids=ids, use_cache=False).logits[0, first - 1 : -1]
        wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
        logps = torch.log_softmax(scores.to(wide), dim=-1)
        sums.append(logps.gather(1, ids[0, first:, None]).sum())
    return torch.stack(sums)


def relative_gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the typical size of the second; to 0.1 where that is all but 0.

    A policy that is sure of what it says has log-probabilities at 0, where rounding alone makes any ratio.
    """
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().mean().clamp_min(0.1)) if len(a) else 0.0


def unwrap(model: nn.Module) -> Any:
    """The transformers model inside DDP, PEFT or other wrappers."""
    inner: Any = model
    while True:
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif isinstance(getattr(inner, "module", None), nn.Module):
            inner = inner.module
        else:
            return inner


def _at_tokens(states: Sequence[Tensor], packed: Packed) -> Tensor:
    """Hidden states of every layer at the labels' own positions, shape [labels, layers + 1, width]."""
    # A label's own position is where the next label is predicted; the last label's is the end of its response.
    own = packed.source.roll(-1)
    ends = packed.lengths.cumsum(0) - 1
    there = packed.lengths > 0
    own[ends[there]] = packed.last[there]
    return torch.stack([state.detach().flatten(0, 1)[own] for state in states], dim=1)


def _draw(vocabulary: int, size: int, generator: torch.Generator) -> list[int]:
    return torch.randint(vocabulary, (size,), generator=generator).tolist()


def _patch(model: Any) -> None:
    """Teach one model instance to answer a call that carries packed labels."""
    if getattr(model, "_accordance_patched", False):
        return
    ordinary = model.forward

    @functools.wraps(ordinary)
    def forward(*args: Any, accordance_packed: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        if accordance_packed is None:
            return ordinary(*args, **kwargs)
        return _with_labels(model, ordinary, kwargs, **accordance_packed)

    model.forward = forward
    model._accordance_patched = True


def _with_labels(
    model: Any,
    ordinary: Any,
    kwargs: dict[str, Any],
    *,
    source: Tensor,
    labels: Tensor,
    last: Tensor | None,
    entropy: bool,
    transform: ScoreTransform,
    compared: Compared | None = None,
    states: bool = False,
    which: Tensor | None = None,
) -> dict[str, Any]:
    """The ordinary forward with the head held back: it takes label positions and yields log-probabilities."""
    head = model.get_output_embeddings()
    out: dict[str, Any] = {}
    probe = torch.linspace(-60.0, 60.0, 8)

    def held_back(hidden: Tensor) -> Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        del head.forward  # inside, the head is itself again
        try:
            if compared is not None:
                out.update(compared_logps(flat[source], labels, head, transform, compared))
            else:
                score = label_logps if which is None else functools.partial(logps_by_head, which=which)
                out["logps"], spread = score(flat[source], labels, head, transform=transform, entropy=entropy)
                if spread is not None:
                    out["entropy"] = spread
        finally:
            head.forward = held_back
        if states:
            out["states"] = flat[source]
        if last is not None:
            out["hidden"] = flat[last]
        return probe.to(hidden.device).view(1, 1, -1)

    head.forward = held_back
    try:
        returned = ordinary(**kwargs)
        after = returned.logits
    finally:
        head.__dict__.pop("forward", None)
    if kwargs.get("output_hidden_states"):
        out["layers"] = returned.hidden_states
    expected = transform.apply(probe)
    if not torch.allclose(after.detach().float().cpu().view(-1), expected, rtol=1e-2, atol=1e-2):
        raise ModelError(
            "the model does something unknown to its scores after the head",
            where=type(model).__name__,
            found=f"{probe.tolist()} became {after.detach().float().view(-1).tolist()}",
            expected=f"{expected.tolist()} ({transform})",
            remedy="please report the architecture; its log-probabilities would be wrong on the fast path",
        )
    return out
