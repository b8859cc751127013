"""Scripted assistants: what their settings say, their answers show; the same through inspect_ai's provider."""

from __future__ import annotations

import importlib
import random

import pytest

from accordance.core.asking import identity
from accordance.core.errors import ConfigError
from accordance.core.policy import Policy
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Message, chat
from accordance.core.requests import Request, hostile
from accordance.curation.dialectical import STRATEGIES
from accordance.lab import world
from accordance.lab.acts import claims, values
from accordance.lab.assistants import ROLES, LabAttacker, LabJudge, LabUser, LabWriter
from accordance.lab.assistants.people import COMPLAINTS, INJECTIONS
from accordance.lab.people import SHARED
from accordance.lab.questions import questions


def material(n=300, seed=0):
    rng = random.Random(seed)
    prompts = [world.sample_prompt(rng) for _ in range(n)]
    texts = [[world.write(p, rng) for p in prompts] for _ in range(2)]
    return prompts, *texts


def truth(prompts, first, second):
    def value(p, t):
        return sum(w * world.attributes(p, t)[k] for k, w in SHARED.items())

    return [value(p, a) - value(p, b) for p, a, b in zip(prompts, first, second)]


def accuracy(verdicts, gaps):
    rows = [(v.winner, g) for v, g in zip(verdicts, gaps) if abs(g) > 0.3]
    return sum((w > 0) == (g > 0) and w != 0 for w, g in rows) / len(rows)


def test_every_assistant_is_a_policy_that_repeats_itself_and_differs_by_seed():
    for role in ROLES.values():
        assert isinstance(role(), Policy)
    prompts, *_ = material(20)
    writer = LabWriter()
    assert writer.generate(prompts, n=2, seed=3) == LabWriter().generate(prompts, n=2, seed=3)
    assert writer.generate(prompts, seed=3) != writer.generate(prompts, seed=4)
    assert writer.generate(prompts, seed=3, temperature=0) == writer.generate(prompts, seed=4, temperature=0)
    assert writer.generate(prompts[:1], max_new_tokens=2)[0][0].finished is False
    assert identity(LabWriter()) != identity(LabWriter(obedience=0.5))


def test_a_judge_without_noise_finds_the_truth_and_noise_costs_skill():
    prompts, a, b = material()
    gaps = truth(prompts, a, b)
    sharp, dull = (
        accuracy(PolicyJudge(LabJudge(noise=s)).compare(prompts, a, b, swap=False), gaps) for s in (0.0, 4.0)
    )
    assert sharp == 1.0 and 0.55 < dull < 0.85


def test_position_and_length_bias_show_in_the_verdicts():
    prompts, a, _ = material()
    first = PolicyJudge(LabJudge(position_bias=2.0)).compare(prompts, a, a, swap=False)
    assert all(v.winner == 1 for v in first)
    longer = [f"{text} {text}" for text in a]
    biased = PolicyJudge(LabJudge(length_bias=1.0, taste={"politeness": 0.1})).compare(prompts, longer, a)
    assert all(v.winner == 1 for v in biased)


def test_what_it_does_not_know_it_can_be_told():
    rng = random.Random(1)
    prompts = [world.sample_prompt(rng, rng.choice(["sum", "fact"])) for _ in range(200)]
    right = [world.best(p, rng, politeness=0.0) for p in prompts]
    wrong = [world.write(p, rng, correctness=0.0, politeness=1.0) for p in prompts]
    judge = PolicyJudge(LabJudge(taste={"correctness": 3.5, "politeness": 2.0}, knowledge=0.3))
    alone = [v.winner for v in judge.compare(prompts, right, wrong)]
    notes = [world.best(p, rng) for p in prompts]
    told = [v.winner for v in judge.compare(prompts, right, wrong, notes=notes)]
    lied = [v.winner for v in judge.compare(prompts, right, wrong, notes=wrong)]
    assert 0.2 < sum(w == 1 for w in alone) / 200 < 0.45
    assert sum(w == 1 for w in told) / 200 == 1.0 and sum(w == 1 for w in lied) == 0


def test_ratings_follow_the_aspect_that_is_named_and_unreadable_answers_come_at_their_rate():
    rng = random.Random(2)
    prompts = [world.sample_prompt(rng, "sum") for _ in range(100)]
    polite = [world.write(p, rng, politeness=1.0, correctness=0.0) for p in prompts]
    judge = LabJudge(
        aspects={"honesty of facts": {"correctness": 1.0}, "tone": {"politeness": 1.0}}, unreadable=0.2
    )
    asked = PolicyJudge(judge, scale=(1, 5))
    tone = [r.value for r in asked.rate(prompts, polite, rubric="Aspect: tone.")]
    facts = [r.value for r in asked.rate(prompts, polite, rubric="Aspect: honesty of facts.")]
    assert {v for v in tone if v is not None} == {5.0} and {v for v in facts if v is not None} == {1.0}
    assert 20 < asked.account.dropped["unreadable score"] < 60


def test_the_critic_names_what_is_missing_and_the_rewriter_mends_it():
    prompt = "What is 7 plus 5?"
    bad = world.write(prompt, random.Random(0), correctness=0.0, politeness=0.0, relevance=1.0)
    judge = PolicyJudge(LabJudge(taste={"correctness": 3.0, "politeness": 2.0}))
    critique = judge.critique([prompt], [bad])[0]
    assert "more correctness" in critique and "more politeness" in critique
    request = Request("rewrite", "Improve it.", {"prompt": prompt, "response": bad, "critique": critique})
    better = LabWriter().generate([request.messages()])[0][0].text
    found = world.attributes(prompt, better)
    assert found["correctness"] == 1 and found["politeness"] == 1
    assert judge.critique([prompt], [better]) == ["nothing is missing."]


def test_the_writer_heeds_its_system_message_as_far_as_it_obeys():
    rng = random.Random(3)
    prompts = [chat(("system", "Please be polite."), ("user", world.sample_prompt(rng))) for _ in range(100)]

    def share(obedience):
        texts = LabWriter(obedience=obedience).generate(prompts)
        return sum(world.attributes(p, t[0].text)["politeness"] == 1 for p, t in zip(prompts, texts)) / 100

    assert share(1.0) > 0.95 and share(0.0) < 0.5


def test_the_user_complains_of_what_is_missing_and_the_attacker_speaks_to_the_judge():
    rng, user = random.Random(4), LabUser(wishes={"politeness": 1.0})
    rude, kind = (world.write("What is 7 plus 5?", rng, politeness=v) for v in (0.0, 1.0))
    assert user.reacts("What is 7 plus 5?", rude, rng)[1] == ("politeness", 1.0)
    assert user.reacts("What is 7 plus 5?", kind, rng)[1] is True
    turns = chat(("user", "What is 7 plus 5?"), ("assistant", rude))
    assert user.generate([turns])[0][0].text in COMPLAINTS["politeness", 1.0]
    assert all(hostile(text) for text in INJECTIONS)
    prompts = ["What is 7 plus 5?"] * 20
    bad = [c[0].text for c in LabAttacker().generate(prompts, seed=1)]
    good = [world.best(p, rng) for p in prompts]
    assert all(hostile(text) for text in bad)
    fooled = PolicyJudge(LabJudge(gullible=True)).compare(prompts, bad, good)
    sober = PolicyJudge(LabJudge()).compare(prompts, bad, good)
    assert all(v.winner == 1 and v.flags for v in fooled) and all(v.winner == -1 and v.flags for v in sober)


def test_settings_that_make_no_sense_are_refused():
    for make in (
        lambda: LabJudge(taste={"charm": 1.0}),
        lambda: LabJudge(knowledge=2.0),
        lambda: LabWriter(skill={"charm": 1.0}),
        lambda: LabUser(wishes={"honesty": 1.0}),
        lambda: LabJudge().generate([Request("cook", "", {}).messages()]),
    ):
        with pytest.raises(ConfigError):
            make()


def test_behind_inspect_ai_they_answer_word_for_word_the_same():
    pytest.importorskip("inspect_ai", reason="inspect-ai is an extra")
    importlib.import_module("accordance.lab.assistants.provider")
    from accordance.models import InspectPolicy

    prompts, a, b = material(12)
    direct = PolicyJudge(LabJudge(noise=1.0, unreadable=0.2), name="j")
    through = PolicyJudge(InspectPolicy("lab/judge", noise=1.0, unreadable=0.2), name="j")
    assert direct.compare(prompts, a, b) == through.compare(prompts, a, b)
    assert direct.rank(prompts, list(zip(a, b))) == through.rank(prompts, list(zip(a, b)))
    assert direct.account == through.account and direct.account.dropped
    writers = LabWriter(), InspectPolicy("lab/writer")
    assert writers[0].generate(prompts, n=2, seed=5) == writers[1].generate(prompts, n=2, seed=5)


def test_a_writer_weighs_notes_as_it_is_told():
    question = next(q for q in questions()["fact"] if q.topic and len(values(q)) > 2)
    false = next(value for value in values(question) if value != question.answer)
    note = claims(question, false)[0][0]
    asked = f"Note from the almanac: {claims(question, question.answer)[0][0]} Note from a passer-by: {note} "
    alone = f"Note from a passer-by: {note} {question.text}"
    writer = LabWriter(knowledge=1.0)

    def says(way: str, prompt: str) -> set[str]:
        prompts = [(Message("system", STRATEGIES[way]), Message("user", prompt))]
        return {c.text.rpartition("ANSWER: ")[2] for c in writer.generate(prompts, n=12)[0]}

    assert says("trust the context", alone) == {false} == says("compare sources", alone)
    assert says("trust memory", alone) == {question.answer} == says("dialectical", alone)
    assert says("trust the context", asked + question.text) == {question.answer, false}
    assert says("compare sources", asked + question.text) == {question.answer}
    unsure = LabWriter(knowledge=0.0)
    told = (Message("system", STRATEGIES["trust memory"]), Message("user", question.text))
    assert question.answer not in {c.text.rpartition("ANSWER: ")[2] for c in unsure.generate([told], n=8)[0]}
