"""A judge that ranks and the policy that it trains teach each other (CycleAlign, S023)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.judge import Judge
from accordance.core.policy import Prompt
from accordance.core.policy_judge import conversation
from accordance.core.record import Judgment, Record, Records, Response
from accordance.core.views import rankings, which_attribute
from accordance.training.loops.iterate import deal, summary
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop
from accordance.training.rollouts import Rollout

#: Extra of a ranked record: the responses on whose order judge and policy agree, best first.
AGREED = "agreed"


@loop("cycle")
@system("S023", "CycleAlign", paper="arXiv:2310.16271")
class Cycle(Loop):
    """In each cycle a judge ranks the policy's own answers, the policy is trained on that, and the judge is shown more.

    The policy ranks its answers too, by their mean log-probability per token when they were sampled. The longest order
    that both rankings share, where it is long enough, becomes a demonstration for the judge; the newest ones and some
    of the records' own rankings stand in its notes. The policy learns from the judge's whole ranking, by any objective
    over lists or pairs: ``pro`` (the default of the run is ``dpo``), or ``hinge + 0.5*sft`` for the hinge form.

    The judge is the run's reward: a `Judge` by ``module:name`` or ``inspect:provider/model``. A plain scorer can be in
    its place; it sees no demonstrations.
    """

    needs_reward = True

    cycles: int = Field(3, ge=1, description="how many")
    prompts: int | None = Field(None, ge=1, description="prompts of a cycle; by default an equal share of all")
    agreement: int = Field(3, ge=2, description="answers that both must order alike to make a demonstration")
    demonstrations: int = Field(8, ge=0, description="of those, the newest so many are shown to the judge")
    given: int = Field(2, ge=0, description="of the records' own rankings, so many are always shown")
    adaptive: bool = Field(False, description="learn only where judge and policy did not agree")
    rubric: str | None = Field(None, description="what the judge is told to look for; by default its own")
    reference: Literal["previous", "start"] = Field("previous", description="of each cycle")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        if len(session.rewards) != 1:
            raise ConfigError(
                "loop cycle has one judge", where="reward", found=f"{len(session.rewards)} rewards"
            )
        judge = getattr(session.rewards[0], "judge", session.rewards[0])
        if not isinstance(judge, Judge):
            judge = None
            unused = {"demonstrations", "given", "rubric"} & self.model_fields_set
            if unused:
                raise ConfigError(
                    f"{', '.join(sorted(unused))}: no effect on a scorer, which is told nothing", where="loop"
                )
        attribute = which_attribute(session.records, ("comparison", "rating"), session.config.attribute)
        pool = Demonstrations()
        if judge is not None:
            pool = Demonstrations(_given(session.records, self.given, attribute), self.demonstrations)
        size = self.prompts or -(-len(session.records) // self.cycles)
        for number in range(self.cycles):
            some = deal(session.records, number, size)
            rank = partial(self._rank, session, judge, some, pool, attribute, number)
            ranked = session.keep(f"ranked-{number + 1}", rank)
            agreed = [len(record.extras[AGREED]) >= self.agreement for record in ranked]
            pool.add(_demonstration(record) for record, there in zip(ranked, agreed) if there)
            if self.adaptive:
                ranked = ranked.select([place for place, there in enumerate(agreed) if not there])
            if len(ranked):
                session.stage(f"cycle-{number + 1}", ranked, reference=self.reference)

    def _rank(
        self,
        session: Session,
        judge: Judge | None,
        some: Records,
        pool: Demonstrations,
        attribute: str | None,
        number: int,
    ) -> Records:
        """Answers to some prompts, ranked by the judge, with what the policy agrees on."""
        ranker = (
            None
            if judge is None
            else GroupRanker(judge, session.config.num_generations, pool.text(), self.rubric)
        )
        drawn = session.sample(some, seed=number, rewards=None if ranker is None else [ranker])
        unreadable = set() if ranker is None else ranker.unreadable
        made = [
            ranked_record(rollout, attribute, "reward" if judge is None else judge.name)
            for place, rollout in enumerate(drawn)
            if place not in unreadable
        ]
        made = [record for record in made if record is not None]
        if not made:
            raise DataError(
                "the judge ranked nothing", where=f"cycle {number + 1}", found=f"{len(drawn)} prompts"
            )
        shares = [len(record.extras[AGREED]) / len(record.responses) for record in made]
        told = {
            "agreement": float(np.mean(shares)),
            "agreed": float(np.mean([len(r.extras[AGREED]) >= self.agreement for r in made])),
            "demonstrations": len(pool),
            "unreadable": len(unreadable),
            "all_alike": len(drawn) - len(unreadable) - len(made),
        }
        session.measure(f"cycle {number + 1}", lambda: told | summary(drawn))
        return Records.of(made)


def agreement(first: Sequence[float], second: Sequence[float]) -> list[int]:
    """The longest subsequence common to two rankings of the same responses, best first.

    Args:
        first, second: one score per response, higher is better. Two that tie in one ranking are in no order there, so
            that they can't both be agreed on.

    Returns:
        Indices of the responses; of several longest ones, the one that keeps to the best of `second`.
    """
    order = sorted(range(len(first)), key=lambda i: (-second[i], -first[i]))
    best: dict[int, list[int]] = {}
    for i in order:
        before = [best[j] for j in best if first[j] > first[i] and second[j] > second[i]]
        best[i] = [*max(before, key=len, default=[]), i]
    return max(best.values(), key=len, default=[])


@dataclass(frozen=True)
class Demonstration:
    """A prompt and some answers to it, best first."""

    prompt: str
    answers: tuple[str, ...]


class Demonstrations:
    """What a ranking judge is shown: some demonstrations always, and the newest of those that came up.

    Args:
        given: are always shown.
        most: how many of the others are kept.
    """

    def __init__(self, given: Sequence[Demonstration] = (), most: int = 0) -> None:
        self.given, self._newest = tuple(given), deque[Demonstration](maxlen=most)

    def __len__(self) -> int:
        return len(self.given) + len(self._newest)

    def __iter__(self) -> Any:
        return chain(self.given, self._newest)

    def add(self, found: Iterable[Demonstration]) -> None:
        """Take in new ones; the oldest leave."""
        self._newest.extend(found)

    def text(self) -> str | None:
        """All of them as notes for the judge; None where there are none."""
        if not len(self):
            return None
        shown = [
            "\n".join([f"Example {number}, best to worst:", f"Prompt: {one.prompt}", *_numbered(one.answers)])
            for number, one in enumerate(self, 1)
        ]
        return "Rankings that were found to be right.\n\n" + "\n\n".join(shown)


class GroupRanker:
    """A judge that ranks as a `Scorer`: so many answers in a row are those to one prompt, and are ranked together.

    Args:
        judge: who ranks.
        size: how many answers there are to each prompt.
        notes: what it is shown with every question.
        rubric: what it is told to look for.

    Attributes:
        unreadable: numbers of the groups, counted over all calls, whose ranking could not be read; they score 0.
    """

    def __init__(self, judge: Judge, size: int, notes: str | None = None, rubric: str | None = None) -> None:
        self.judge, self.size, self.notes, self.rubric = judge, size, notes, rubric
        self.name, self.unreadable, self._asked = judge.name, set[int](), 0

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`."""
        firsts = range(0, len(completions), self.size)
        groups = [list(completions[start : start + self.size]) for start in firsts]
        notes = None if self.notes is None else [self.notes] * len(groups)
        ranked = self.judge.rank([prompts[i] for i in firsts], groups, rubric=self.rubric, notes=notes)
        scores: list[float | None] = []
        for group, found in zip(groups, ranked, strict=True):
            if found.values is None:
                self.unreadable.add(self._asked)
            self._asked += 1
            scores += [0.0] * len(group) if found.values is None else found.values
        return scores


def ranked_record(rollout: Rollout, attribute: str | None, annotator: str) -> Record | None:
    """A rollout as a record with one ranking, and what policy and judge agree on; None where all score alike.

    Of answers with the same text the first is taken.
    """
    texts = [completion.text for completion in rollout.completions]
    own = [i for i, text in enumerate(texts) if text not in texts[:i]]
    scores = [float(rollout.scores[i]) for i in own]
    if len(set(scores)) < 2:
        return None
    likely = [float(np.mean(rollout.completions[i].logprobs)) for i in own]
    judged = Judgment(
        "comparison", tuple(range(len(own))), tuple(scores), annotator=annotator, attribute=attribute
    )
    return replace(
        rollout.record,
        responses=tuple(Response.of(texts[i]) for i in own),
        judgments=(judged,),
        extras={**rollout.record.extras, AGREED: agreement(scores, likely)},
    )


def _demonstration(record: Record) -> Demonstration:
    return Demonstration(
        conversation(record.prompt), tuple(record.responses[i].text for i in record.extras[AGREED])
    )


def _given(records: Records, many: int, attribute: str | None) -> list[Demonstration]:
    """The first rankings of the records; equal ones are left out."""
    found: list[Demonstration] = []
    for item in rankings(records, attribute=attribute):
        if len(found) == many:
            break
        if len(set(item.scores)) == len(item.scores):
            texts = tuple(response.text for response in item.responses)
            found.append(Demonstration(conversation(item.prompt), texts))
    return found


def _numbered(answers: Sequence[str]) -> list[str]:
    return [f"{number}. {text}" for number, text in enumerate(answers, 1)]
