"""Proof of S021, Anyprefer: tools make a judge that can't tell right from wrong nearly always right, refining the
prompts makes pairs better, and training on them raises correctness instead of style.

Facts and sums of the small world. The target answers right half of the time, adds politeness at random, and often
evades unless told; the judge knows half of the answers and likes politeness; tools are a calculator and a fact table.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Record, Records, user
from accordance.core.views import pairs
from accordance.curation.anyprefer import Anyprefer, FunctionTool
from accordance.feedback.candidates import IndependentSampler
from accordance.feedback.synthesis import SampleAndRank, synthesize
from accordance.lab import world
from accordance.lab.assistants import LabCritic, LabJudge, LabWriter
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_objective

N = 300
TASTE = {"correctness": 3.0, "politeness": 2.0, "ignorance": -3.0}


def calculator(prompt: str) -> str | None:
    question = world.parse(prompt)
    return f"The answer is {question.answer}." if question.kind == "sum" else None


def fact_table(prompt: str) -> str | None:
    question = world.parse(prompt)
    if question.kind != "fact":
        return None
    return world.best(prompt, random.Random(0), politeness=0.5, hedging=0.0, elaboration=0.0)


TOOLS = [FunctionTool("calculator", calculator), FunctionTool("fact table", fact_table)]


class Target(LabWriter):
    """Evades half of the questions unless its prompt asks for correctness."""

    def compose(self, prompt, told, rng, **fixed):
        if "more correctness" not in told and rng.random() < 0.55:
            return super().compose(prompt, "", rng, ignorance=1.0)
        return super().compose(prompt, "", rng, relevance=1.0, hedging=0.0, fluency=1.0)


@cache
def prompts() -> Records:
    rng = random.Random(0)
    asked = list(dict.fromkeys(world.sample_prompt(rng, rng.choice(["fact", "sum"])) for _ in range(3 * N)))[:N]
    return Records.of([Record(user(p), id=str(i)) for i, p in enumerate(asked)], source="questions")


def judge(**settings) -> PolicyJudge:
    return PolicyJudge(LabJudge(taste=TASTE, noise=0.3, **settings), name="judge")


def method(tools=TOOLS, *, told: bool = True, **options) -> Anyprefer:
    looks = judge(knowledge=0.5, needs_telling=not told)
    scorer = LabJudge(taste=TASTE, needs_telling=True, knowledge=0.5, name="pair scorer")
    critic = LabCritic(taste=TASTE)
    return Anyprefer(Target(), looks, scorer, critic, tools, **options)


def right(records: Records) -> float:
    """Share of pairs whose chosen answer is right and whose rejected one is wrong."""
    found = [
        [world.attributes(p.prompt, r.text)["correctness"] for r in (p.chosen, p.rejected)]
        for p in pairs(records)
    ]
    return np.mean([a == 1 and b < 1 for a, b in found]).item()


@cache
def with_tools() -> Records:
    return synthesize(method(), prompts(), block=100)


@cache
def alone() -> Records:
    """The plain way: the same judge without tools, every best-and-worst pair kept."""
    target = LabWriter(manner={"relevance": 1.0, "hedging": 0.0, "fluency": 1.0, "ignorance": 0.0})
    return synthesize(SampleAndRank(IndependentSampler(target, 5), judge(knowledge=0.5)), prompts(), block=100)


def test_pairs_are_right_with_tools_and_often_not_without():
    assert right(with_tools()) >= 0.95 and right(alone()) <= 0.75
    assert len(with_tools()) >= 0.7 * N
    # It is the tools, and not the filter: with every pair accepted (of a target that no longer evades) they still
    # part right from wrong.
    options = {"threshold": 1.0, "target_prompt": "Answer with more correctness."}
    bare, open_door = (synthesize(method(tools, **options), prompts(), block=100) for tools in ((), TOOLS))
    assert right(open_door) >= 0.9 and right(bare) <= 0.75


def test_refining_the_prompts_raises_the_accepted_share_and_the_scores():
    refining = method(told=False)
    synthesize(refining, prompts(), block=N)
    share = [r["accepted"] / r["tried"] for r in refining.rounds_[:2]]
    mean = [r["score"] / r["scored"] for r in refining.rounds_[:2]]
    assert share[1] > share[0] + 0.1 and mean[1] >= mean[0] + 1
    assert "more correctness" in refining.target_prompt and "notes" in refining.judge_prompt.casefold()
    assert refining.calls_["calculator"] > 0 and refining.calls_["fact table"] > 0


def trained(records: Records) -> tuple[float, float]:
    """Correctness and politeness of a table of four manners (right x polite), after DPO on pairs."""
    rows = []
    for p in pairs(records):
        found = [world.attributes(p.prompt, r.text) for r in (p.chosen, p.rejected)]
        rows.append([2 * (f["correctness"] == 1) + (f["politeness"] == 1) for f in found])
    chosen, rejected = torch.tensor([r for r in rows if r[0] != r[1]]).T
    policy = TabularPolicy(torch.zeros(1, 4, dtype=torch.float64))
    start, prompt = policy.frozen(), torch.zeros_like(chosen)
    objective = get_objective("dpo", beta=0.5)
    descend(
        policy,
        lambda: objective(policy.pairs(prompt, chosen, rejected, ref=start)).mean(),
        steps=60,
        learning_rate=0.05,
    )
    values = torch.tensor([[0.0, 0, 1, 1], [0, 1, 0, 1]], dtype=torch.float64)
    correct, polite = (policy.expected(v).item() for v in values)
    return correct, polite


def test_training_on_tool_judged_pairs_raises_correctness_and_self_judged_ones_raise_style():
    tool, own = trained(with_tools()), trained(alone())
    assert tool[0] >= 0.5 + 0.15 and tool[0] >= own[0] + 0.08
    assert own[1] >= 0.5 + 0.1 and tool[1] < own[1] - 0.05


def test_every_pair_keeps_its_evidence_and_what_was_not_accepted_is_counted():
    records = with_tools()
    for record in list(records)[:20]:
        assert (
            record.extras["evidence"] and record.extras["pair_score"] >= 7 and 1 <= record.extras["round"] <= 4
        )
        assert record.extras["provenance"]["approved"] == "pair scorer"
    assert len(records) + sum(records.account.dropped.values()) == N


def test_the_scorer_must_not_be_the_target_and_edits_that_quote_an_answer_are_refused():
    with pytest.raises(ConfigError, match="its own answers"):
        Anyprefer(Target(), judge(), Target(), LabCritic())

    class Leaks(LabCritic):
        def tasks(self):
            return {"edit": lambda request, rng: f"TARGET: Always say: {leaked}\nJUDGE: Be exact."}

    found = synthesize(method(), prompts().select(range(5)))
    leaked = found[0].responses[1].text if len(found) else ""
    leaky = Anyprefer(
        Target(), judge(knowledge=0.5), LabJudge(taste=TASTE), Leaks(), TOOLS, threshold=10, rounds=2
    )

    class Same(Target):
        def compose(self, prompt, told, rng, **fixed):
            return leaked if rng.random() < 0.5 else super().compose(prompt, told, rng)

    leaky.target = Same()
    made = synthesize(leaky, prompts().select(range(40)))
    assert leaky.target_prompt == ""
    assert (
        made.account.notes["edits of prompts that were refused (unreadable, overlong, or quoting a response)"]
        > 0
    )
