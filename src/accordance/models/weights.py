"""Updates of weights as low-rank matrices: differences, denoising, projection on earlier ones, and back into a model.

A *state* is a mapping from the names of a model's trained parameters to copies of them. An update is the difference
of two states, one `LowRank` per matrix; vectors are matrices of one row. What an adapter adds to a layer is the
product of its two factors, so that its update is taken as that product, whatever basis the factors are in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from accordance.core.errors import DataError

State = dict[str, Tensor]
#: The two factors of an adapter's layer, in names of parameters as PEFT writes them, and of their product.
_FACTORS, _PRODUCT = ("lora_A", "lora_B"), "lora_BA"
#: Singular values below this share of the largest are rounding errors, not directions.
LEAST = 1e-6
_NOTHING = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class LowRank:
    """A matrix as the product ``left @ right``, of shape [m, n] with left [m, k] and right [k, n], in float64."""

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> LowRank:
        """A matrix, or a tensor of another shape with its last dimensions as columns; vectors are one row."""
        flat = matrix.double().reshape(1, -1) if matrix.ndim < 2 else matrix.double().flatten(1)
        if flat.shape[0] <= flat.shape[1]:
            return cls(torch.eye(flat.shape[0], dtype=flat.dtype, device=flat.device), flat)
        return cls(flat, torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device))

    @property
    def rank(self) -> int:
        """An upper bound of the rank: how many columns the left factor has."""
        return self.left.shape[1]

    @property
    def dense(self) -> Tensor:
        """The matrix, shape [m, n]."""
        return self.left @ self.right

    def inner(self, other: LowRank) -> Tensor:
        """The sum of the products of entries, without making either matrix."""
        return ((self.left.mT @ other.left) * (self.right @ other.right.mT)).sum()

    def scaled(self, factor: float | Tensor) -> LowRank:
        """The matrix times a number."""
        return LowRank(self.left * factor, self.right)

    def __add__(self, other: LowRank) -> LowRank:
        return LowRank(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 0))

    def __sub__(self, other: LowRank) -> LowRank:
        return self + other.scaled(-1.0)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U [m, k], singular values [k], V^T [k, n], by way of the factors; k is at most the smaller side."""
        left, right = self.left, self.right
        first, core = torch.linalg.qr(left) if left.shape[1] < left.shape[0] else (None, left)
        second, other = torch.linalg.qr(right.mT) if right.shape[0] < right.shape[1] else (None, right.mT)
        u, values, vh = torch.linalg.svd(core @ other.mT, full_matrices=False)
        return u if first is None else first @ u, values, vh if second is None else vh @ second.mT

    def cut(self, rank: int) -> LowRank:
        """The nearest matrix of at most this rank, its factors of equal size; singular values of 0 are left out."""
        u, values, vh = self.svd()
        rank = min(rank, max(int((values > values[0] * _NOTHING).sum()), 1))
        root = values[:rank].sqrt()
        return LowRank(u[:, :rank] * root, root[:, None] * vh[:rank])


def denoised(update: LowRank, energy: float) -> LowRank:
    """The smallest truncation whose squared singular values add up to this share of all; 1 leaves nothing out."""
    total = update.svd()[1].square().cumsum(0)
    wanted = len(total) if energy >= 1 else int((total < energy * total[-1]).sum()) + 1
    return update.cut(wanted)


def part_within(update: LowRank, earlier: Sequence[LowRank]) -> LowRank | None:
    """The part of an update that lies in the span of earlier ones, all taken as vectors; None for none of it.

    Directions of the span that are shorter than `LEAST` of the longest are left out.
    """
    if not earlier:
        return None
    gram = torch.stack([torch.stack([one.inner(other) for other in earlier]) for one in earlier])
    values, vectors = torch.linalg.eigh(gram)
    kept = values > max(float(values.max()) * LEAST**2, 0.0)
    if not kept.any():
        return None
    along = torch.stack([one.inner(update) for one in earlier])
    basis = vectors[:, kept]
    weights = basis @ ((basis.mT @ along) / values[kept])
    return reduce(LowRank.__add__, [one.scaled(weight) for one, weight in zip(earlier, weights)])


@dataclass(frozen=True)
class Consolidated:
    """What became of an update.

    Attributes:
        written: what goes to long-term memory.
        clean: the update without its noise.
        old: the part of that which lies in directions of earlier updates, as it was found; None for none.
    """

    written: LowRank
    clean: LowRank
    old: LowRank | None


def consolidated(update: LowRank, earlier: Sequence[LowRank], energy: float, keep: float) -> Consolidated:
    """What is written to long-term memory of an update (LifeAlign, arXiv:2509.17183).

    Args:
        update: the weights after a task less those before.
        earlier: what was written of each earlier task.
        energy: share of the squared singular values that is kept; the rest is noise.
        keep: factor of the part that lies in the directions of earlier updates.

    Returns:
        Among others what is written: the denoised update less ``1 - keep`` times that part. With ``energy`` and
        ``keep`` of 1 that is the update itself.
    """
    clean = denoised(update, energy)
    old = part_within(clean, earlier)
    return Consolidated(clean if old is None or keep == 1 else clean - old.scaled(1 - keep), clean, old)


def trained_state(model: nn.Module) -> State:
    """Copies of the trained parameters, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def put_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write a state into a model.

    Raises:
        DataError: the model has no parameter of a name, or one of another shape.
    """
    own = dict(model.named_parameters())
    for name, value in state.items():
        if name not in own or own[name].shape != value.shape:
            raise DataError(
                "these are no weights of this model",
                where=name,
                found=list(value.shape),
                expected=str(list(own[name].shape)) if name in own else "a parameter that it has",
            )
        own[name].copy_(value)


def update_of(before: State, after: State, *, products: bool = True) -> dict[str, LowRank]:
    """The update from one state to another, by name.

    Args:
        before, after: states of the same model.
        products: whether the update of an adapter is that of the product of its factors, under the name of the
            product, or each factor has its own.
    """
    found = {}
    for name in before:
        if products and _FACTORS[0] in name:
            whole = name.replace(_FACTORS[0], _PRODUCT)
            found[whole] = _product(after, name) - _product(before, name)
        elif not (products and _FACTORS[1] in name):
            found[name] = LowRank.of(after[name].double() - before[name].double())
    return found


def updated(before: State, update: Mapping[str, LowRank]) -> State:
    """The state that an update leads to.

    An adapter's product is parted into factors of the adapter's rank; where it has less, the rest of the first factor
    stays as it was, against zeros in the second: two zeros would never be trained again.
    """
    state = dict(before)
    for name, change in update.items():
        if name in before:
            value = before[name]
            state[name] = (value.double() + change.dense.reshape(value.shape)).to(value.dtype)
            continue
        first, second = (name.replace(_PRODUCT, factor) for factor in _FACTORS)
        rank = before[first].shape[0]
        cut = (_product(before, first) + change).cut(rank)
        missing = rank - cut.rank
        left = nn.functional.pad(cut.left, (0, missing))
        right = torch.cat([cut.right, before[first].double()[rank - missing :]])
        state[first], state[second] = right.to(before[first].dtype), left.to(before[second].dtype)
    return state


def _product(state: State, first: str) -> LowRank:
    """What an adapter adds to a layer (but for its constant scale), from the name of its first factor."""
    return LowRank(state[first.replace(*_FACTORS)].double(), state[first].double())


def merged(states: Sequence[State], shares: Sequence[float]) -> State:
    """The weighted mean of states, ``sum_i a_i theta_i`` with ``sum_i a_i = 1``; summed in float64.

    Args:
        states: of models that are alike.
        shares: one number for each; below 0 or above 1 leads away from it or beyond it.

    Raises:
        DataError: the shares don't add up to 1, are not as many as the states, or the states are not alike.
    """
    if len(states) != len(shares) or not states or abs(sum(shares) - 1) > 1e-6:
        raise DataError(
            "shares of a merge add up to 1, one for each state", found=list(shares), expected="sum 1"
        )
    for state in states[1:]:
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in states[0].items()}:
            raise DataError("these are not weights of models that are alike", where="merge")
    made: State = {}
    for name, own in states[0].items():
        weighted = [share * state[name].double() for share, state in zip(shares, states)]
        made[name] = torch.stack(weighted).sum(0).to(own.dtype)
    return made
