"""A text model as the judge of principles: the judge that asks any policy is a `PrincipleJudge`, too."""

from __future__ import annotations

import random

from accordance.analysis.icai import inverse_constitution
from accordance.analysis.principles import PrincipleJudge
from accordance.core.asking import AnswerCache, Asked, Budget
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.lab import world
from accordance.lab.assistants import LabCritic


def polite_wins(n: int = 60) -> Records:
    rng, made = random.Random(0), []
    for i in range(n):
        prompt = world.sample_prompt(rng, rng.choice(["fact", "sum", "chat"]))
        texts = [world.write(prompt, rng, politeness=v, relevance=1.0) for v in (1.0, 0.0)]
        first = rng.random() < 0.5
        values = (1.0, 0.0) if first else (0.0, 1.0)
        shown = texts if first else texts[::-1]
        made.append(
            Record(
                user(prompt),
                tuple(map(Response.of, shown)),
                (Judgment("comparison", (0, 1), values),),
                id=str(i),
            )
        )
    return Records.of(made)


def test_a_planted_principle_is_recovered_through_requests_and_a_second_run_is_free():
    cache, budgets = AnswerCache(), [Budget(), Budget()]
    for budget in budgets:
        judge = PolicyJudge(Asked(LabCritic(), cache=cache, budget=budget))
        assert isinstance(judge, PrincipleJudge)
        found = inverse_constitution(polite_wins(), judge, many=1)
        assert found.principles[0].text == "Prefer the response with more politeness."
        assert found.accuracy.estimate >= 0.95 and not judge.account.dropped
    assert budgets[0].spent > 60 and budgets[1].spent == 0
