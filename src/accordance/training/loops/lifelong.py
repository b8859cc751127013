"""Tasks one after another without forgetting: updates consolidated, replay, the matrix of scores (LifeAlign, S117)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Record, Records
from accordance.core.views import pairs, which_attribute
from accordance.core.weights import keeping
from accordance.models.weights import (
    Consolidated,
    LowRank,
    consolidated,
    put_state,
    trained_state,
    update_of,
    updated,
)
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop

#: The update of every matrix by its name.
Update = dict[str, LowRank]


@loop("lifelong")
@system("S117", "LifeAlign", paper="arXiv:2509.17183")
class Lifelong(Loop):
    """Aligns a policy on a sequence of tasks; each update is denoised, and shrunk where it would undo earlier ones.

    Each task is a stage of imitation of its chosen responses and one of the config's objective (``focal(dpo)`` for
    the paper's), both from the policy as they find it and with that as reference. After each stage the update of
    every matrix goes through `accordance.models.weights.consolidated`: truncated to `energy` of its squared singular
    values, then its part in the span of earlier updates times `keep`. A share of each task is seen again in later
    ones, and a share is held out: after each task the accuracy on the held-out pairs of every task is measured (how
    often the log-ratio to the start is higher for the chosen response), and at the end the backward transfer.

    Here the update of an adapter is that of the product of its factors, parted again afterwards; the authors' code
    treats the factors apart (`adapter_as: factors`). Optimisers start anew at each stage.
    """

    by: str = Field("extras.task", description="what tells tasks apart: attribute, group, file, extras.NAME")
    order: list[str] | None = Field(None, description="the tasks in order; by default as they first appear")
    energy: float = Field(0.9, gt=0, le=1, description="share of squared singular values kept of an update")
    keep: float = Field(0.5, ge=0, le=1, description="factor of the part in directions of earlier updates")
    adapter_as: Literal["product", "factors"] = Field(
        "product", description="what of an adapter is consolidated"
    )
    sft: bool = Field(True, description="whether each task starts with imitation of its chosen responses")
    sft_learning_rate: float | None = Field(None, gt=0, description="of that; by default the run's own")
    replay: float = Field(
        0.2, ge=0, le=1, description="share of each task that later ones see again, its first"
    )
    replay_most: int = Field(1000, ge=0, description="records of the replay buffer at most, the newest")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of each task's prompts that its score is on")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        tasks = tasks_of(session.records, self.by, self.order, session.config.attribute)
        parts = {name: task.split(self.held_out, session.config.seed) for name, task in tasks.items()}
        held = {name: part[1] for name, part in parts.items()}
        for name, some in held.items():
            if not len(pairs(some)):
                remedy = "a larger held_out, or leave the task out of `order`"
                raise DataError(f"task {name!r} has no held-out pair to be scored on", remedy=remedy)
        start = {name: _margins(session, some) for name, some in held.items()}
        memory: list[Update] = []
        replayed: list[Record] = []
        table: list[dict[str, float]] = []
        for name, (own, _) in parts.items():
            learned = Records.of([*own, *replayed], source=f"task {name}")
            if self.sft:
                rate: dict[str, Any] = (
                    {"learning_rate": self.sft_learning_rate} if self.sft_learning_rate is not None else {}
                )
                self._stage(session, f"{name}-sft", learned, memory, objective="sft", **rate)
            self._stage(session, name, learned, memory)
            scores = session.measure(
                f"after {name}",
                lambda: {other: _accuracy(session, some, start[other]) for other, some in held.items()},
            )
            table.append({other: scores[other] for other in held})
            replayed += [own[i] for i in range(round(self.replay * len(own)))]
            replayed = replayed[max(len(replayed) - self.replay_most, 0) :]
        session.measure("sequence", lambda: transfer(table))

    def _stage(
        self, session: Session, name: str, records: Records, memory: list[Update], **options: Any
    ) -> None:
        """Train, consolidate, and remember the update as it was written."""
        before = trained_state(session.policy.model)
        products = self.adapter_as == "product"

        def consolidate() -> None:
            change = update_of(before, trained_state(session.policy.model), products=products)
            made = {
                matrix: consolidated(update, [old[matrix] for old in memory], self.energy, self.keep)
                for matrix, update in change.items()
            }
            session.measure(f"consolidation of {name}", lambda: _shares(change, made))
            put_state(session.policy.model, updated(before, {m: found.written for m, found in made.items()}))

        plain = self.energy == 1 and self.keep == 1
        session.stage(_file_name(name), records, after=None if plain else consolidate, **options)
        # From the weights, so that a loop that goes on remembers what an unbroken one does.
        if not plain:
            memory.append(update_of(before, trained_state(session.policy.model), products=products))


def tasks_of(
    records: Records, by: str, order: list[str] | None = None, attribute: str | None = None
) -> dict[str, Records]:
    """Records parted into tasks.

    Args:
        records: of all tasks.
        by: ``attribute`` or ``group`` of the judgments (a record may be in several tasks, with the judgments of
            each), ``file`` the record came from, or ``extras.NAME``.
        order: the tasks to take, in this order; by default all, as they first appear.
        attribute: that the run learns from; with ``by="attribute"`` it would have no effect.

    Returns:
        The tasks by name, in order; where they are parted by attribute, their judgments are overall ones.

    Raises:
        ConfigError: `by` is unknown, `order` names a task that is not there, or there is one task alone.
        DataError: a record belongs to no task.
    """
    if by == "attribute" and attribute is not None:
        raise ConfigError(
            "attribute has no effect: each task is an attribute", where="loop.by", found=attribute
        )
    found: dict[str, list[Record]] = {}
    for record in records:
        for name, part in _named_parts(record, by):
            found.setdefault(name, []).append(part)
    names = list(found) if order is None else order
    if len(names) < 2 or any(name not in found for name in names) or len(set(names)) < len(names):
        raise ConfigError(
            "these are no tasks to follow each other",
            where="loop.order" if order else "loop.by",
            found=", ".join(names),
            expected=f"two or more of: {', '.join(found)}",
        )
    return {name: Records.of(found[name], source=f"task {name}") for name in names}


def transfer(table: list[dict[str, float]]) -> dict[str, float]:
    """What became of the tasks in the end.

    Args:
        table: after each task, in order, the score of every task.

    Returns:
        ``mean_final``, the mean score at the end; ``last``, that of the last task; ``backward_transfer``, the mean
        over earlier tasks of their score at the end less that just after they were learned.
    """
    names, final = list(table[-1]), table[-1]
    kept = [final[name] - row[name] for name, row in zip(names[:-1], table)]
    return {
        "mean_final": float(np.mean(list(final.values()))),
        "last": final[names[-1]],
        "backward_transfer": float(np.mean(kept)),
    }


def _named_parts(record: Record, by: str) -> list[tuple[str, Record]]:
    if by in ("attribute", "group"):
        names = list(dict.fromkeys(getattr(judgment, by) for judgment in record.judgments))
        if not names or None in names:
            raise DataError(f"a judgment has no {by} to tell its task by", where=record.origin or record.id)
        made = []
        for name in names:
            mine = keeping(record, [i for i, j in enumerate(record.judgments) if getattr(j, by) == name])
            if by == "attribute":
                mine = replace(mine, judgments=tuple(replace(j, attribute=None) for j in mine.judgments))
            made.append((str(name), mine))
        return made
    if by == "file":
        return [(re.sub(r":\d+$", "", record.origin) or "memory", record)]
    if not by.startswith("extras."):
        raise ConfigError(
            "unknown", where="loop.by", found=by, expected="attribute, group, file or extras.NAME"
        )
    value = record.extras.get(by.removeprefix("extras."))
    if value is None:
        raise DataError(
            f"a record has no {by} to tell its task by",
            where=record.origin or record.id,
            found=f"extras {sorted(record.extras)}",
            remedy="--loop.by attribute, group or file, or the name of an extra that all records have",
        )
    return [(str(value), record)]


def _margins(session: Session, records: Records) -> np.ndarray:
    """Log-probability of the chosen less that of the rejected response of every pair, shape [pairs]."""
    wanted = which_attribute(records, ("comparison", "rating"), session.config.attribute)
    asked = [
        Record(pair.prompt, (pair.chosen, pair.rejected), extras=pair.record.extras)
        for pair in pairs(records, attribute=wanted)
    ]
    found = session.policy.logprobs(asked)["logprob"].to_numpy().reshape(-1, 2)
    return found[:, 0] - found[:, 1]


def _accuracy(session: Session, records: Records, start: np.ndarray) -> float:
    gained = _margins(session, records) - start
    return float(np.mean((gained > 0) + 0.5 * (gained == 0)))


def _shares(change: Update, made: dict[str, Consolidated]) -> dict[str, float]:
    """How much of an update was noise, and how much of the rest lay in directions of earlier ones."""

    def size(updates: Iterable[LowRank | None]) -> float:
        return sum(float(update.inner(update)) for update in updates if update is not None)

    total, clean = size(change.values()), size(found.clean for found in made.values())
    within = size(found.old for found in made.values())
    return {"noise_share": 1 - clean / total if total else 0.0, "old_share": within / clean if clean else 0.0}


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
