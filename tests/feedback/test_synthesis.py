"""The driver of synthesis: what it costs is known before, nothing is dropped in silence, nothing is paid twice."""

from __future__ import annotations

import random

import pytest

from accordance.core.asking import AnswerCache, Asked, Budget
from accordance.core.errors import ConfigError, ModelError
from accordance.core.policy import Completion
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Account, Record, Records, Response, user
from accordance.feedback.candidates import (
    MARKER,
    CandidateSampler,
    DiverseSampler,
    IndependentSampler,
    JointSampler,
)
from accordance.feedback.self_reference import SelfReference
from accordance.feedback.synthesis import SPENT, SampleAndRank, synthesize, total
from accordance.feedback.ultrafeedback import UltraFeedback
from accordance.lab import world
from accordance.lab.assistants import LabAttacker, LabJudge, LabWriter


def prompts(n=20, seed=0):
    rng = random.Random(seed)
    asked = list(dict.fromkeys(world.sample_prompt(rng) for _ in range(3 * n)))[:n]
    return Records.of(
        [Record(user(p), id=f"r{i}", origin=f"row {i}") for i, p in enumerate(asked)], source="world"
    )


def with_answers(n=20):
    rng = random.Random(1)
    made = [
        Record(r.prompt, tuple(Response.of(world.write(r.prompt, rng)) for _ in range(3)), id=r.id)
        for r in prompts(n)
    ]
    return Records.of(made, source="answered")


def methods(cache=None, budget=None):
    """Every synthesis of this room over one cache and one budget, with what it works on."""

    def asked(policy):
        return Asked(policy, cache=cache, budget=budget)

    writers = [asked(LabWriter(name=f"w{i}", seed=i)) for i in range(4)]
    judge = PolicyJudge(asked(LabJudge()), scale=(1, 5))
    return {
        "rank": (SampleAndRank(IndependentSampler(writers[0], 4), judge), prompts()),
        "joint": (SampleAndRank(JointSampler(writers[0], 3, 1), judge), prompts()),
        "ultrafeedback": (
            UltraFeedback(writers, judge, critique=True, overall_judge=PolicyJudge(judge.policy)),
            prompts(),
        ),
        "self-reference": (SelfReference(asked(LabJudge(noise=1.0)), votes=2), with_answers()),
    }


@pytest.mark.parametrize("name", methods())
def test_the_cost_shown_before_is_what_is_paid(name):
    budget = Budget()
    method, records = methods(AnswerCache(), budget)[name]
    shown = total(method.cost(method.drafts(records, Account())))
    assert budget.spent == 0
    made = synthesize(method, records, block=7)
    assert budget.spent == shown > 0 and len(made) + sum(made.account.dropped.values()) == 20


@pytest.mark.parametrize("name", methods())
def test_a_budget_that_ends_in_the_middle_keeps_what_is_whole_and_the_rest_is_made_for_the_rest(name, tmp_path):
    method, records = methods(tmp_path / "whole.db", whole := Budget())[name]
    expected = synthesize(method, records, block=4)
    first = Budget(whole.spent // 2)
    part = synthesize(methods(AnswerCache(tmp_path / "part.db"), first)[name][0], records, block=4)
    assert 0 < len(part) < len(expected) and part.account.dropped[SPENT] > 0
    assert len(part) + sum(part.account.dropped.values()) == 20 and first.spent <= whole.spent // 2
    second = Budget()
    again = synthesize(methods(AnswerCache(tmp_path / "part.db"), second)[name][0], records, block=4)
    assert first.spent + second.spent == whole.spent and second.saved >= first.spent
    assert again.fingerprint() == expected.fingerprint()


class Failing:
    """A writer that breaks down after some prompts."""

    name = "failing"

    def __init__(self, after, writer):
        self.left, self.writer, self.identity = after, writer, "one writer"

    def generate(self, prompts, **options):
        self.left -= len(prompts)
        if self.left < 0:
            raise ModelError("the server is gone", where=self.name)
        return self.writer.generate(prompts, **options)


def test_a_judge_that_fails_in_mid_run_resumes_without_paying_twice(tmp_path):
    cache, records = tmp_path / "answers.db", prompts()

    def run(after, budget):
        judge = PolicyJudge(Asked(Failing(after, LabJudge()), cache=cache, budget=budget))
        writer = Asked(LabWriter(), cache=cache, budget=budget)
        return synthesize(SampleAndRank(IndependentSampler(writer, 3), judge), records, block=5)

    first, second = Budget(), Budget()
    with pytest.raises(ModelError, match="server is gone"):
        run(12, first)
    made = run(1000, second)
    assert first.spent == 15 * 3 + 10 and first.spent + second.spent == 20 * 3 + 20
    assert len(made) + sum(made.account.dropped.values()) == 20


def test_every_pair_says_where_prompt_responses_and_label_came_from():
    method, records = methods()["rank"]
    made = synthesize(method, records)
    record, judgment = made[0], made[0].judgments[0]
    assert record.extras["provenance"] == {
        "method": "rank",
        "prompt": record.origin,
        "responses": ["w0", "w0"],
        "labels": "lab judge",
    }
    assert record.origin.startswith("row ") and record.prompt == prompts()[int(record.origin[4:])].prompt
    assert judgment.values == (1.0, 0.0) and judgment.strength > 0 and judgment.annotator == "lab judge"


def test_prompts_that_repeat_or_are_missing_and_judges_that_can_not_be_read_are_counted_with_their_rows():
    rows = list(prompts(6))
    given = Records.of([*rows, rows[0], Record((), (), id="none", origin="row 9")], source="x")
    judge = PolicyJudge(LabJudge(unreadable=0.6))
    made = synthesize(SampleAndRank(IndependentSampler(LabWriter(), 3), judge), given)
    dropped = made.account.dropped
    assert dropped["the prompt stood there before"] == dropped["there is no prompt"] == 1
    assert made.account.rows["there is no prompt"] == ["row 9"]
    assert dropped["the judge could not be read"] > 0
    assert len(made) == made.account.kept == 8 - sum(dropped.values())
    with pytest.raises(ConfigError, match="nothing to work on"):
        synthesize(SampleAndRank(IndependentSampler(LabWriter(), 3), judge), given.select([7]))


def test_hostile_responses_are_counted():
    good = LabWriter(skill=dict.fromkeys(("relevance", "correctness", "honesty", "harm", "politeness"), 1.0))
    sampler = IndependentSampler([LabAttacker(), good], 1)
    made = synthesize(SampleAndRank(sampler, PolicyJudge(LabJudge())), prompts())
    assert made.account.notes["responses that may be hostile to the judge"] == 20
    assert all(r.responses[0].source == "lab writer" for r in made)


def test_a_draft_depends_on_its_id_and_not_on_its_neighbours():
    writers = [LabWriter(name=f"w{i}") for i in range(6)]
    judge = PolicyJudge(LabJudge(), scale=(1, 5))
    whole = synthesize(UltraFeedback(writers, judge), prompts())
    alone = synthesize(UltraFeedback(writers, judge), prompts().select([3]))
    assert alone[0] == next(r for r in whole if r.id == "r3")


class Fixed:
    """Says the same to everybody."""

    def __init__(self, text):
        self.name, self.text = "fixed", text

    def generate(self, prompts, *, n=1, **options):
        return [[Completion(self.text)] * n for _ in prompts]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"a\n{MARKER}\nb", "2 joint responses instead of 3"),
        (f"a\n{MARKER}\n\n{MARKER}\nc", "a response is empty"),
        (f"a\n{MARKER}\na\n{MARKER}\na", "all candidates are the same text"),
    ],
)
def test_a_joint_generation_of_another_form_is_dropped_and_says_why(text, reason):
    sampler = JointSampler(Fixed(text), 3, 0)
    assert isinstance(sampler, CandidateSampler)
    made = synthesize(SampleAndRank(sampler, PolicyJudge(LabJudge())), prompts(3))
    assert made.account.dropped == {reason: 3} and len(made) == 0


def test_a_diverse_choice_leaves_out_doubles_and_without_weight_takes_the_best():
    class Pool(IndependentSampler):
        def fill(self, drafts, account):
            for draft in drafts:
                draft.responses = [Response.of(t) for t in ("a b c", "a b c", "a b d", "x y z")]

    def chosen(**options):
        draft = method_drafts()
        DiverseSampler(Pool(LabWriter(), 4), 2, **options).fill(draft, Account())
        return [r.text for r in draft[0].responses]

    def method_drafts():
        return SampleAndRank(Pool(LabWriter(), 4), PolicyJudge(LabJudge())).drafts(prompts(1), Account())

    assert chosen() == ["a b c", "x y z"]
    assert chosen(weight=0.0, quality=lambda p, t: float("d" in t)) == ["a b d", "a b c"]


def test_options_that_make_no_sense_are_refused():
    judge = PolicyJudge(LabJudge())
    for make in (
        lambda: IndependentSampler(LabWriter(), 1),
        lambda: UltraFeedback([LabWriter(name="a"), LabWriter(name="b")], judge),
        lambda: UltraFeedback([LabWriter(), LabWriter()], judge, per_prompt=2),
        lambda: UltraFeedback([LabWriter(name="a"), LabWriter(name="b")], judge, per_prompt=2, critique=True),
        lambda: SelfReference(LabJudge(), votes=3),
        lambda: SelfReference(LabJudge(), limit=float("inf")),
    ):
        with pytest.raises(ConfigError):
            make()
