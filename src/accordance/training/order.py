"""The order in which a run sees its examples: from the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers import TrainingArguments

from accordance.training.examples import Examples

#: The column that says which member an example belongs to.
MEMBER = "member"


class SeededSampler(Sampler[int]):
    """A new permutation every epoch, from the seed and the epoch alone.

    Args:
        size: number of examples.
        seed: of the permutations.
        members: which member each example belongs to; every stretch of the order then holds of each member its share
            of all examples, but for one, so that no member is missing from a batch by chance.
    """

    def __init__(self, size: int, seed: int, members: Sequence[int] | None = None) -> None:
        self.size, self.seed, self.epoch = size, seed, 0
        self.members = None if members is None else torch.tensor(members)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)
        if self.members is not None:
            own, place = self.members[order], torch.zeros(self.size, dtype=torch.float64)
            for member in own.unique():
                mine = (own == member).nonzero()[:, 0]
                place[mine] = (torch.arange(len(mine), dtype=torch.float64) + 0.5) / len(mine)
            order = order[place.argsort(stable=True)]
        yield from order.tolist()


def sampler_of(examples: Examples, seed: int) -> SeededSampler:
    """The order of some examples; spread evenly over their members, where they have any."""
    members = [
        example.columns[MEMBER] for example in getattr(examples, "items", ()) if MEMBER in example.columns
    ]
    return SeededSampler(len(examples), seed, members or None)


def order_seed(args: TrainingArguments) -> int:
    """The seed of the order of examples: `data_seed`, 0 included, or else `seed`."""
    return args.seed if args.data_seed is None else args.data_seed
