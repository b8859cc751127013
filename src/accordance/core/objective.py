"""Objectives: differentiable losses over the log-probabilities of groups of responses.

A *bundle* names the tensors that an objective may use; an `Objective` wraps a pure function from a bundle to
one loss per example. Whoever calls it weighs, reduces and logs. No model, data loader or device code in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from accordance.core.errors import MissingReference
from accordance.core.record import Message, Record, Records, Response


@dataclass(frozen=True)
class Tokens:
    """Ragged per-token values of some responses, flat.

    Attributes:
        logp: log-probability of each token under the policy, shape [tokens].
        ref: the same under the reference, shape [tokens], or None.
        row: which response of the bundle's flat list each token belongs to, shape [tokens], ascending.
        kl: KL(reference || policy) between the two distributions over the vocabulary at each token's place, in
            nats, shape [tokens], where the objective asks for it.
        teacher_kl: KL(teacher || policy), likewise.
        advantage: expectation under the policy of log teacher - log teacher's reference over the vocabulary,
            likewise.
        layers: what every layer of the reference makes of each token, the embedding first, shape [tokens,
            layers + 1, width], where the objective asks for it; no gradient.
        states: the last hidden state from which each token is predicted, shape [tokens, width], of the policy or of
            a critic's own model, where the objective asks for it.
        extras: further values per token by name, shape [tokens] each.
        collision: log of the summed squared probabilities of the policy's own distribution at each token's place,
            shape [tokens], where the objective asks for it; no gradient.
        greatest: log of the largest probability in it, likewise.
    """

    logp: Tensor
    row: Tensor
    ref: Tensor | None = None
    kl: Tensor | None = None
    teacher_kl: Tensor | None = None
    advantage: Tensor | None = None
    layers: Tensor | None = None
    states: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    collision: Tensor | None = None
    greatest: Tensor | None = None

    def select(self, index: Tensor, row: Tensor) -> Tokens:
        """Some of the tokens (indices, or True where kept), under these rows."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("row", "extras")}
        some: dict[str, Any] = {name: None if v is None else v[index] for name, v in values.items()}
        return Tokens(row=row, extras={name: v[index] for name, v in self.extras.items()}, **some)

    def responses(self, wanted: Tensor) -> Tokens:
        """The tokens of some responses (rows, in any order, one perhaps several times) under the rows 0, 1, ..."""
        most = int(max(self.row.max(), wanted.max())) + 1 if len(self.row) and len(wanted) else 1
        many = torch.bincount(self.row, minlength=most)
        sizes, first = many[wanted], (many.cumsum(0) - many)[wanted]
        row = torch.arange(len(wanted), device=wanted.device).repeat_interleave(sizes)
        within = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
        return self.select(first[row] + within, row)


@dataclass(frozen=True)
class Bundle:
    """What all bundles share. `n` is the number of examples.

    Attributes:
        weight: how much each example counts in the batch loss, shape [n], or None for 1.
        extras: further columns by name, each of shape [n], or [n, K] for one value per response of a list.
        hidden: the policy's last hidden state at the final token of each response, shape [responses, width] in
            the order of the rows of `Tokens` (0 where a list has no response), where the objective asks for it.
    """

    weight: Tensor | None = field(default=None, kw_only=True)
    hidden: Tensor | None = field(default=None, kw_only=True)
    extras: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    kind: ClassVar[str] = ""


@dataclass(frozen=True)
class UnaryLogps(Bundle):
    """Single responses.

    Attributes:
        logp: log-probability of each response, summed over its tokens, shape [n].
        length: its number of tokens, shape [n].
        label: True for desirable (thumbs up), False for undesirable, shape [n]; None for demonstrations.
        ref: `logp` under the reference, shape [n], or None.
        kl_logp: log-probability of a *mismatched* response to the same prompt, shape [n], or None; KTO's
            estimate of the KL term. No gradient flows through it.
        kl_ref: the same under the reference, shape [n], or None.
        tokens: per-token values; row i of them is response i.
    """

    logp: Tensor
    length: Tensor
    label: Tensor | None = None
    ref: Tensor | None = None
    kl_logp: Tensor | None = None
    kl_ref: Tensor | None = None
    tokens: Tokens | None = None

    kind: ClassVar[str] = "unary"

    @property
    def ratio(self) -> Tensor:
        """log pi - log ref of each response, shape [n]. Raises MissingReference without a reference."""
        return self.logp - need_reference(self.ref)


@dataclass(frozen=True)
class PairLogps(Bundle):
    """Pairs of responses to one prompt.

    Attributes:
        chosen, rejected: log-probabilities summed over tokens, shape [n].
        chosen_length, rejected_length: numbers of tokens, shape [n].
        ref_chosen, ref_rejected: the same under the reference, shape [n], or None.
        gap: how much better the chosen response was judged to be, shape [n], or None; 0 for a tie.
        tokens: per-token values; rows 2i and 2i + 1 are chosen and rejected of pair i.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None
    gap: Tensor | None = None
    tokens: Tokens | None = None

    kind: ClassVar[str] = "pair"

    @property
    def chosen_ratio(self) -> Tensor:
        """log pi - log ref of the chosen responses, shape [n]."""
        return self.chosen - need_reference(self.ref_chosen)

    @property
    def rejected_ratio(self) -> Tensor:
        """log pi - log ref of the rejected responses, shape [n]."""
        return self.rejected - need_reference(self.ref_rejected)

    def swapped(self) -> PairLogps:
        """The same pairs with chosen and rejected exchanged."""
        tokens = self.tokens
        if tokens is not None:
            order = (tokens.row ^ 1).argsort(stable=True)
            tokens = tokens.select(order, (tokens.row ^ 1)[order])
        hidden = self.hidden
        if hidden is not None:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device) ^ 1]
        return PairLogps(
            self.rejected,
            self.chosen,
            self.rejected_length,
            self.chosen_length,
            self.ref_rejected,
            self.ref_chosen,
            None if self.gap is None else -self.gap,
            tokens=tokens,
            weight=self.weight,
            extras=self.extras,
            hidden=hidden,
        )


@dataclass(frozen=True)
class ListLogps(Bundle):
    """Groups of K responses to one prompt, K may differ; padded to the longest group.

    Attributes:
        logp: log-probabilities summed over tokens, shape [n, K]; 0 where there is no response.
        length: numbers of tokens, shape [n, K]; 1 where there is no response.
        mask: True where there is a response, shape [n, K].
        scores: how good each response is, larger is better, shape [n, K], or None. For a ranking, best first.
        ref: `logp` under the reference, shape [n, K], or None.
        old: `logp` under the policy that sampled the responses, shape [n, K], or None.
        tokens: per-token values; row i * K + k is response k of group i.
        old_tokens: log-probability of each token when it was sampled, shape [tokens], or None.
    """

    logp: Tensor
    length: Tensor
    mask: Tensor
    scores: Tensor | None = None
    ref: Tensor | None = None
    old: Tensor | None = None
    tokens: Tokens | None = None
    old_tokens: Tensor | None = None

    kind: ClassVar[str] = "list"


@dataclass(frozen=True)
class CrossLogps(Bundle):
    """Every response of a prompt under every condition of it (principles, a persona, a system message).

    Attributes:
        logp: log-probability of response j under condition i, summed over its tokens, shape [n, C, R]. Where
            responses were written under the conditions, the j-th was written under the j-th.
        length: numbers of tokens of the responses, shape [n, R].
        ref: `logp` under the reference, shape [n, C, R], or None.
    """

    logp: Tensor
    length: Tensor
    ref: Tensor | None = None

    kind: ClassVar[str] = "cross"


@dataclass(frozen=True)
class Slot:
    """A response under a condition: the conversation in front of it, whatever the record's own prompt is."""

    prompt: tuple[Message, ...]
    response: Response


@dataclass(frozen=True)
class Arranged:
    """One example that an objective made of a record itself, where none of the usual views will do.

    Attributes:
        record: where it comes from.
        slots: its responses, each with its own prompt; they take the places of the bundle's responses. Beginnings
            that the prompts share are computed once.
        columns: numbers for the bundle's extras.
    """

    record: Record
    slots: tuple[Slot, ...]
    columns: Mapping[str, float] = field(default_factory=dict)


#: From records, the attribute asked for (None for overall judgments) and a seed to examples.
Arrange = Callable[[Records, str | None, int], Iterable[Arranged]]


class Auxiliary(nn.Module):
    """Trainable parts of a loss (a head, a mask network) beside the policy; empty until `attach` makes them.

    The trainer attaches it to a model, trains it with the policy and keeps it in checkpoints; it is no part of
    the policy that is saved.
    """

    def attach(self, width: int, layers: int) -> None:
        """Make the parameters for hidden states of that width, and so many layers (the embedding not counted)."""
        raise NotImplementedError


B = TypeVar("B", bound=Bundle)
Unit = Literal["examples", "tokens"]

#: What of whole distributions over the vocabulary an objective may ask for; fields of `Tokens`.
Whole = Literal["kl", "teacher_kl", "advantage", "collision", "greatest"]


@dataclass(frozen=True)
class Objective(Generic[B]):
    """A named loss over one kind of bundle.

    Attributes:
        name: what recipes call it.
        bundle: the class of bundle that it takes.
        function: from a bundle to one loss per example, shape [n].
        options: its options and their values, as recipes write them.
        reference: whether it needs reference log-probabilities.
        tokens: whether it needs per-token values.
        mismatched: whether it needs `kl_logp` (and `kl_ref`) of a unary bundle.
        labels: whether it needs the labels of a unary bundle: it learns from thumbs, not from demonstrations.
        columns: the bundle's extras that it reads: ``annotator`` (an index per judge) or numbers that the records
            carry in their extras under these names.
        online: whether only rollouts carry what it needs (log-probabilities at the time of sampling, answers
            under several conditions), so that records alone can't feed it.
        arrange: makes the examples, for objectives that set responses under other prompts than the record's own;
            None for those that take the usual view of their bundle.
        unit: what the batch loss is a mean over. ``"tokens"``: the sum of the losses over the number of
            response tokens, as language modelling has it.
        rewards: from a bundle to the implicit reward of each response: (chosen, rejected) of shape [n] each for
            pairs, shape [n] for unary, shape [n, K] for lists; None where the loss implies none.
        state: running values that belong to the loss (BCO's shift), saved with checkpoints; empty for most.
            They change in place; restore them with ``state[name].copy_(saved)``.
        advantages: what each response of some rollouts is worth, shape [n, K], where that takes statistics over a
            whole batch: who samples then computes it once, for all that one update is made of, from a bundle with
            `old` in the place of `logp`, and hands it back in the extra ``advantages``. None where each list
            stands for itself.
        whole: what of whole distributions it reads off the tokens. ``kl`` takes a live reference; ``teacher_kl`` a
            teacher, ``advantage`` a teacher and its reference; ``collision`` and ``greatest`` the policy alone.
        ranked: whether an example's loss hangs on its rank among the others of the batch, so that wrappers, which
            weigh and swap single examples, make no sense around it.
        hidden: whether it needs the policy's hidden state at the end of each response.
        layers: whether it needs the reference's hidden states of all layers.
        module: its trainable parts, or None.
        own_answers: whether rejected answers are replaced by the policy's own, sampled before training.
        pairs: where examples hold more than a pair: from the bundle to the pairs that metrics (and `rewards`) are
            about.
        states: whether it needs the hidden state from which each token is predicted; its `module` makes one number
            of each, what the rest of the response is worth.
        credit: as `advantages`, for single tokens: from a bundle of rollouts with the log-probabilities of sampling
            in the place of the policy's, and in the tokens' extra ``value`` what the module made of their states,
            to values by name, shape [tokens] each; they come back in the tokens' extras.
        metrics: from a bundle to numbers by name, of any shape, whose means are logged; None for nothing further.
    """

    name: str
    bundle: type[B]
    function: Callable[[B], Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: bool = True
    tokens: bool = False
    mismatched: bool = False
    labels: bool = False
    columns: tuple[str, ...] = ()
    arrange: Arrange | None = None
    online: bool = False
    unit: Unit = "examples"
    rewards: Callable[[B], Any] | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    advantages: Callable[[Any], Tensor] | None = None
    whole: tuple[Whole, ...] = ()
    ranked: bool = False
    hidden: bool = False
    layers: bool = False
    module: Auxiliary | None = None
    own_answers: bool = False
    pairs: Callable[[B], PairLogps] | None = None
    states: bool = False
    credit: Callable[[Any], Mapping[str, Tensor]] | None = None
    metrics: Callable[[B], Mapping[str, Tensor]] | None = None

    def __call__(self, bundle: B) -> Tensor:
        """One loss per example, shape [n].

        Raises:
            TypeError: the bundle is of another kind.
            MissingReference: reference log-probabilities are needed and missing.
        """
        if not isinstance(bundle, self.bundle):
            raise TypeError(f"{self.name} takes {self.bundle.__name__}, got {type(bundle).__name__}")
        return self.function(bundle)


def need_reference(ref: Tensor | None) -> Tensor:
    """The reference log-probabilities, or a clear error."""
    if ref is None:
        raise MissingReference(
            "this objective needs reference log-probabilities and the bundle carries none",
            remedy="pass a reference, or use an objective without one (simpo, orpo, cpo, sft)",
        )
    return ref
