"""Teachers: models whose distributions a policy learns from, live or written down before training.

A live teacher is one forward pass per batch and exact. A stored one keeps the k entries per token that matter and
needs no model while the policy trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from accordance.models.distributions import Table, TopTable, top_tables
from accordance.models.packing import Group, batches
from accordance.models.reference import Reference, group_keys


class Teacher:
    """A teacher's distributions, and those of its own reference, straight from the models.

    Args:
        teacher: the teacher.
        reference: what the teacher was aligned from, or None where nobody asks for advantages.
    """

    def __init__(self, teacher: Reference, reference: Reference | None = None) -> None:
        self.models = [model for model in (teacher, reference) if model is not None]
        for model in self.models:
            model.table = True

    def __call__(self, groups: Sequence[Group]) -> list[Table]:
        """The tables of the teacher and, where there is one, of its reference, at the labels of the groups."""
        found = [model(groups).table for model in self.models]
        return [table for table in found if table is not None]


class StoredTeacher:
    """What a teacher says, cut to k entries per token and kept in memory.

    Args:
        teacher: whom to ask.
        k: entries kept per token, likely ones and, of two models, those that they tell apart most.
    """

    def __init__(self, teacher: Teacher, k: int) -> None:
        self.teacher: Teacher | None = teacher
        self.k = k
        self._kept: dict[bytes, list[TopTable]] = {}

    def prepare(self, groups: Sequence[Group], *, step: Callable[[int], object] | None = None) -> None:
        """Ask the teacher about all groups, then let go of it.

        Args:
            groups: what training will ask for.
            step: called with the number of groups done, for progress.
        """
        assert self.teacher is not None
        done = 0
        for batch in batches(groups, self.teacher.models[0].max_tokens):
            tables = self.teacher(batch)
            sizes = [len(r) - (not group.prompt) for group in batch for r in group.responses]
            cut = top_tables(tables, sum(sizes), self.k)
            parts = [
                [TopTable(ids, kept, table.vocabulary) for ids, kept in zip(*_split(table, sizes))]
                for table in cut
            ]
            keys = [key for group in batch for key in group_keys(group)]
            self._kept |= {key: list(found) for key, *found in zip(keys, *parts)}
            done += len(batch)
            if step is not None:
                step(done)
        self.teacher = None

    def __call__(self, groups: Sequence[Group]) -> list[Table]:
        """The tables at the labels of the groups; KeyError for groups that were not prepared."""
        found = [self._kept[key] for group in groups for key in group_keys(group)]
        return [
            TopTable(torch.cat([t.ids for t in each]), torch.cat([t.kept for t in each]), each[0].vocabulary)
            for each in zip(*found)
        ]


def _split(table: TopTable, sizes: list[int]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    return table.ids.cpu().split(sizes), table.kept.cpu().split(sizes)
