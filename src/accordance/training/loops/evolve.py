"""Prompts that evolve with the policy: a creator asks where the policy has most to gain (eva, S130)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.named import named_object
from accordance.core.record import Message, Record, Records
from accordance.models import InspectPolicy
from accordance.training.loops.iterate import summary
from accordance.training.loops.session import Session, best_and_worst
from accordance.training.prompts import (
    Choice,
    Evolver,
    Information,
    PolicyEvolver,
    PromptPool,
    choose,
    informativeness,
)
from accordance.training.registry import Loop, loop

#: Extras that hold of a new prompt as they held of the one that it was made from.
_INHERITED = ("tools", "chat_template_kwargs")


@loop("evolve")
@system("S130", "eva", paper="arXiv:2411.00062")
class Evolve(Loop):
    """Alternates a creator of prompts with the policy that learns to answer them.

    In each round the policy answers the prompts of the round before (first those of the records); by how far the
    rewards of its answers to a prompt lie apart, some prompts are drawn and new ones made of them. The policy is
    then trained on the new ones and, for a share, on older ones: on samples where the objective is an online one,
    else on the best against the worst answer to each. A new prompt's id is its parent's, a stroke, round and number;
    it inherits no column of the data but ``tools`` and ``chat_template_kwargs``.
    """

    needs_reward = True

    evolver: str = Field(
        "self",
        description="who writes prompts: self, a model's path or hub name, module:function(prompts, n, seed)",
    )
    rounds: int = Field(3, ge=1, description="how many")
    prompts: int | None = Field(
        None, ge=1, description="prompts of a round; by default as many as there are records"
    )
    information: Information = Field(
        "min", description="best reward less the worst (min), mean (avg) or second (duel)"
    )
    choice: Choice = Field(
        "proportion", description="which prompts evolve: in proportion to that, the top, or uniform"
    )
    parents: float = Field(0.25, gt=0, le=1, description="share of a round's prompts that evolve")
    children: int = Field(4, ge=1, description="new prompts asked for of each")
    replay: float = Field(0.2, ge=0, lt=1, description="share of older prompts in a round")
    longest: int = Field(2000, ge=1, description="characters of a new prompt at most")
    reference: Literal["previous", "start"] = Field("previous", description="of each round")
    least_gap: float = Field(0.0, ge=0, description="pairs whose rewards differ by no more are left out")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        evolver = evolver_named(self.evolver, session)
        pool = PromptPool(_seeds(session.records), key=lambda record: record.prompt)
        size = self.prompts or len(pool)
        current = pool.mixed(range(len(pool)), size, 0.0, session.config.seed)
        online = session.config.build_objective().online
        for number in range(1, self.rounds + 1):
            asked = [pool.items[place] for place in current]
            make = partial(self._next, session, evolver, pool, asked, size, number)
            made = session.keep(f"prompts-{number}", make)
            current = _taken_in(pool, list(made))
            if online:
                session.stage(f"round-{number}", made, online=True, reference=self.reference)
            else:
                pairs = session.keep(f"pairs-{number}", partial(self._pairs, session, made, number))
                session.stage(f"round-{number}", pairs, reference=self.reference)

    def _next(
        self,
        session: Session,
        evolver: Evolver,
        pool: PromptPool[Record],
        asked: Sequence[Record],
        size: int,
        number: int,
    ) -> Records:
        """The prompts of a round: new ones made of the informative ones among `asked`, and older ones."""
        seed = session.config.seed * 1000 + number
        drawn = session.sample(Records.of(asked), seed=2 * number)
        information = informativeness(np.array([rollout.scores for rollout in drawn]), self.information)
        many = max(round(self.parents * len(drawn)), 1)
        chosen = [drawn[place].record for place in choose(information, many, self.choice, seed)]
        texts = evolver([record.prompt_text for record in chosen], self.children, seed)
        if len(texts) != len(chosen):
            raise DataError(
                "the evolver answers another number of prompts", found=len(texts), expected=str(len(chosen))
            )
        places = {record.id: place for place, record in enumerate(pool.items)}
        trial = PromptPool(pool.items, key=lambda record: record.prompt)
        new: list[int] = []
        for parent, some in zip(chosen, texts):
            children = [_child(parent, text, f"{number}.{place}") for place, text in enumerate(some)]
            new += trial.add(places[parent.id], children, self._why_not)
        told = {"information": float(information.mean()), "evolved": len(new), **trial.left_out}
        if isinstance(evolver, PolicyEvolver):
            told["unreadable"] = evolver.unreadable
        session.measure(f"prompts {number}", lambda: told | summary(drawn))
        if not new:
            raise DataError(
                "the evolver wrote no new prompt",
                where=f"round {number}",
                found=told,
                remedy="another evolver (--loop.evolver), more children, or a larger --loop.longest",
            )
        return Records.of([trial.items[place] for place in trial.mixed(new, size, self.replay, seed)])

    def _pairs(self, session: Session, prompts: Records, number: int) -> Records:
        drawn = session.sample(prompts, seed=2 * number + 1)
        session.measure(f"round {number}", lambda: summary(drawn))
        return best_and_worst(drawn, least=self.least_gap)

    def _why_not(self, record: Record) -> str | None:
        text = record.prompt_text
        return "empty" if not text.strip() else "too long" if len(text) > self.longest else None


def evolver_named(name: str, session: Session) -> Evolver:
    """Who writes new prompts.

    Args:
        name: ``self`` for the policy as it stands, a path or hub name of a model, ``inspect:provider/model`` for one
            behind an API, or ``module:name``: an `accordance.training.prompts.Evolver`, or an object that generates
            (a `Policy`).

    Raises:
        ConfigError: there is no such thing, or it can do neither.
    """
    if name == "self":
        return PolicyEvolver(session.policy)
    found: Any
    if name.startswith("inspect:"):
        found = InspectPolicy(name.removeprefix("inspect:"))
    else:
        given = name in session.names.given or ":" not in name
        found = session.names.policy(name) if given else named_object(name, where="loop.evolver")
    if hasattr(found, "generate"):
        return PolicyEvolver(found)
    if not callable(found):
        raise ConfigError("this writes no prompts", where="loop.evolver", found=name)
    return cast(Evolver, found)


def _seeds(records: Records) -> list[Record]:
    """The prompts of records, each once and with an id of its own."""
    bare = [replace(record, responses=(), judgments=()) for record in records if record.prompt]
    known: set[str] = set()
    made = []
    for number, record in enumerate(bare):
        name = record.id if record.id and record.id not in known else f"seed-{number}"
        known.add(name)
        made.append(replace(record, id=name))
    if not made:
        raise DataError("there is no prompt to begin with", where=records.source)
    return made


def _child(parent: Record, text: str, name: str) -> Record:
    """The parent's conversation with another last question."""
    last = max(i for i, message in enumerate(parent.prompt) if message.role in ("user", "text"))
    turns = list(parent.prompt[: last + 1])
    turns[last] = Message(turns[last].role, text)
    extras = {key: parent.extras[key] for key in _INHERITED if key in parent.extras}
    return Record(tuple(turns), id=f"{parent.id}/{name}", origin=f"evolved from {parent.id}", extras=extras)


def _taken_in(pool: PromptPool[Record], made: Sequence[Record]) -> list[int]:
    """The places of a round's prompts, new ones taken in."""
    places = {record.id: place for place, record in enumerate(pool.items)}
    taken = []
    for record in made:
        if record.id in places:
            taken.append(places[record.id])
        else:
            taken += pool.add(places[record.id.rpartition("/")[0]], [record])
    return taken
