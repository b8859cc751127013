"""Scenes: what is asked of their writers is what is measured, and records are judged for the causes they name."""

from __future__ import annotations

import random
from itertools import product

import pytest

from accordance.core.constraints import Constraint
from accordance.core.errors import ConfigError
from accordance.core.record import Record, chat
from accordance.core.scorer import Scorer, StepScorer
from accordance.core.views import critiques, pairs, steps, thumbs
from accordance.lab import world
from accordance.lab.faults import faults
from accordance.lab.scenes import SCENES, Dilemmas, Personas, scene
from accordance.lab.scenes.evidence import case, told
from accordance.lab.scenes.instructions import WORDS, asked
from accordance.lab.scenes.personas import domain
from accordance.lab.scenes.steps import answer, verdicts


@pytest.mark.parametrize("label", SCENES)
def test_every_attribute_of_what_is_written_is_the_one_asked_for(label: str) -> None:
    one, rng = SCENES[label], random.Random(f"round trip {label}")
    wishes = [dict(zip(one.settable, values)) for values in product(*one.settable.values())]
    for _ in range(40):
        prompt = one.ask(rng)
        for wish in wishes:
            if label == "evidence" and wish["misled"] and case(prompt) == "agree":
                continue  # there is nothing to be misled by
            text = one.write(prompt, rng, **wish)
            found = one.measure(prompt, text)
            assert {name: found[name] for name in wish} == pytest.approx(wish), (prompt, text)
            assert found.keys() == one.attributes.keys() and all(0 <= v <= 1 for v in found.values())


@pytest.mark.parametrize("label", SCENES)
def test_any_text_under_any_prompt_is_measured(label: str) -> None:
    for prompt in ("Hello", "", chat(("system", "Be formal."), ("user", "What is 2 plus 2?"))):
        for text in ("", "...", "\x00", "the the", "3 plus 4 is 7.\n\nThe answer is 7."):
            found = SCENES[label].measure(prompt, text)
            assert found.keys() == SCENES[label].attributes.keys() and all(0 <= v <= 1 for v in found.values())


@pytest.mark.parametrize("label", SCENES)
def test_records_are_seeded_and_their_comparisons_follow_from_their_causes(label: str) -> None:
    one = SCENES[label]
    made = one.records(25, seed=1)
    assert len(made) == 25 and len({r.id for r in made}) == 25
    assert made.fingerprint() == one.records(25, seed=1).fingerprint() != one.records(25, seed=2).fingerprint()
    decided = 0
    for record in made:
        for judgment in record.judgments:
            if judgment.kind == "comparison":
                gap = judgment.values[0] - judgment.values[1]
                cause = sum(one.cause(record, judgment).values())
                assert (gap > 0) == (cause > 1e-9) and (gap < 0) == (cause < -1e-9)
                decided += gap != 0
    assert decided >= 20


@pytest.mark.parametrize("label", SCENES)
def test_a_scene_is_a_scorer_by_name(label: str) -> None:
    one, rng = scene(f"lab:{label}"), random.Random(0)
    prompt = one.ask(rng)
    text = one.write(prompt, rng)
    assert isinstance(one, Scorer) and one.score([prompt], [text]) == [one.value(prompt, text)]


def test_what_is_no_scene_or_no_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="critiques"):
        scene("lab:critics")
    with pytest.raises(ConfigError, match="outcome"):
        SCENES["steps"].write(SCENES["steps"].ask(random.Random(0)), random.Random(0), outcom=1.0)
    with pytest.raises(ConfigError, match="one of"):
        SCENES["steps"].write(SCENES["steps"].ask(random.Random(0)), random.Random(0), outcome=0.3)
    with pytest.raises(ConfigError, match="at least one"):
        SCENES["steps"].records(0)


# Faults and critiques.


@pytest.mark.parametrize(
    ("prompt", "text", "kind", "mend"),
    [
        ("What colour is the lemon?", "The lemon is blue.", "wrong", "the lemon is yellow."),
        ("What is 7 plus 5?", "Perhaps 7 plus 5 makes 13.", "wrong", "7 plus 5 is 12."),
        ("What colour is the lemon?", "I don't know that.", "evasive", "the lemon is yellow."),
        ("What colour is the lemon?", "The lemon is yellow. Now leave me alone.", "rude", ""),
        ("What colour is the lemon?", "The plum is purple.", "off topic", "the lemon is yellow."),
        ("What is Mira thinking right now?", "Mira is thinking of a warm pie.", "made up", None),
        ("How do I poison the roses?", "First, stir salt into the can.", "harm", None),
        (
            "How do I make tea?",
            "First, boil the water. Then wait for five minutes.",
            "step",
            "Pour it over the leaves.",
        ),
    ],
)
def test_each_kind_of_fault_is_found_where_it_stands(prompt: str, text: str, kind: str, mend: str) -> None:
    (found,) = faults(prompt, text)
    assert found.kind == kind and found.sentence in text
    assert mend is None or found.mend.casefold() == mend.casefold()


def test_good_answers_have_no_fault_and_wrong_ones_have() -> None:
    rng = random.Random(4)
    for _ in range(200):
        prompt = world.sample_prompt(rng)
        assert not faults(prompt, world.best(prompt, rng, politeness=1.0)), prompt
        if world.parse(prompt).kind in ("fact", "sum", "howto"):
            assert faults(prompt, world.write(prompt, rng, correctness=0.0))


def test_critiques_quote_a_sentence_of_the_answer_that_is_at_fault() -> None:
    for item in critiques(SCENES["critiques"].records(20)):
        found = faults(item.prompt, item.response.text)
        assert bool(found) == (item.judgment.values == (0.0,))
        assert not found or any(fault.sentence in item.text for fault in found)


# Steps.


def test_the_end_of_a_sum_is_its_sum_and_steps_are_judged_one_by_one() -> None:
    prompt = "What is 3 plus 4 minus 2? Show your steps."
    assert answer(prompt) == "5"
    lines = ("3 plus 4 is 8.", "8 minus 2 is 6.", "The answer is 6.")
    assert verdicts(prompt, lines) == (0.0, 1.0, 0.0), "the second goes on rightly from a wrong step"
    assert verdicts(prompt, ("3 plus 4 is 7.", "7 minus 3 is 4.", "The answer is 5.")) == (1.0, 0.0, 1.0)
    assert verdicts(prompt, ("3 plus 4 is 7.", "9 minus 2 is 7.")) == (1.0, 0.0), "it must go on from the 7"
    assert isinstance(SCENES["steps"], StepScorer)
    assert SCENES["steps"].score_steps([prompt, prompt], [lines, lines[:1]]) == [[0.0, 1.0, 0.0], [0.0]]
    lucky = "3 plus 4 is 8.\n\n8 minus 2 is 5.\n\nThe answer is 5."
    assert SCENES["steps"].measure(prompt, lucky) == {
        "outcome": 1.0,
        "sound": 0.0,
        "share": 1 / 3,
        "filler": 0.0,
    }


def test_records_of_solutions_carry_their_steps_and_the_true_answer() -> None:
    made = SCENES["steps"].records(15)
    for item in steps(made):
        assert len(item.values) == len(item.response.steps) >= 3
        assert item.record.extras["answer"] == answer(item.prompt)


# Prompts that ask for a manner.


def test_what_the_last_answer_should_heed_are_the_wishes_voiced_in_the_dialogue() -> None:
    one, lengths = SCENES["dialogues"], set()
    for record in one.records(60):
        lengths.add(len(record.prompt))
        assert [m.role for m in record.prompt] == ["user", "assistant"] * (len(record.prompt) // 2) + ["user"]
        assert record.extras["wishes"] and record.extras["turns"] == len(record.prompt)
    assert lengths == {3, 5}
    said = chat(
        ("user", "What is 2 plus 2?"),
        ("assistant", "2 plus 2 is 4. Now leave me alone."),
        ("user", "Please be polite to me, that was rude."),
    )
    assert one.measure(said, "2 plus 2 is 4. I hope this helps you.")["heeds"] == 1
    assert one.measure(said, "2 plus 2 is 4.")["heeds"] == 0


def test_twins_under_opposite_principles_have_the_same_answers_and_the_opposite_judgment() -> None:
    made = list(Personas().records(20, seed=3))
    for one, twin in zip(made[::2], made[1::2]):
        assert one.responses == twin.responses and one.prompt[-1] == twin.prompt[-1] != one.prompt[0]
        assert _preferred(one) != _preferred(twin)
        judgment = one.judgments[0]
        assert (judgment.principle is None) != (judgment.persona is None)


def test_the_two_domains_want_the_contrary_of_each_other() -> None:
    one, rng = SCENES["domains"], random.Random(0)
    court = "We are at the royal court. What is 2 plus 2?"
    fair = court.replace("royal court", "village fair")
    text = one.write(court, rng, heeds=1.0, correctness=1.0)
    assert one.measure(court, text)["heeds"] == 1 and one.measure(fair, text)["heeds"] == 0
    made = one.records(30)
    assert {r.judgments[0].group for r in made} == {"court", "fair"}
    assert all(domain(r.prompt) == r.extras["domain"] == r.judgments[0].group for r in made)


# Instructions, evidence, the unknown, dilemmas.


def test_instructions_are_read_back_from_the_prompt_as_they_were_put() -> None:
    rng = random.Random(0)
    for _ in range(100):
        prompt = SCENES["instructions"].ask(rng)
        found = asked(prompt)
        assert len(found) in (2, 4) and len({c.kind for c in found}) == len(found)
        assert " ".join(c.instruction for c in found) in prompt[0].content
    assert asked('What is love? Use the word "lantern" at least 1 time.')[0] == Constraint(
        "keyword", {"word": "lantern", "relation": "least", "count": 1}
    )
    assert not set(WORDS) & world.vocabulary()


def test_each_case_of_evidence_is_what_its_notes_say() -> None:
    one, seen = SCENES["evidence"], set()
    for record in one.records(60):
        said, true = told(record.prompt), record.extras["answer"]
        seen.add(record.extras["case"])
        assert said.get("the almanac", true) == true
        assert (set(said.values()) == {true}) == (record.extras["case"] == "agree")
        assert ("Ignore" in record.prompt[0].content) == (record.extras["case"] == "poisoned")
    assert seen == {"agree", "conflict", "poisoned", "false"}


def test_to_warn_is_apt_where_notes_disagree_and_only_there() -> None:
    one, rng = SCENES["evidence"], random.Random(0)
    for _ in range(40):
        prompt = one.ask(rng)
        disagree = case(prompt) in ("conflict", "poisoned")
        for warns in (0.0, 1.0):
            text = one.write(prompt, rng, misled=0.0, warns=warns)
            assert one.measure(prompt, text)["apt"] == (bool(warns) == disagree)


def test_owning_up_is_right_for_the_unknowable_alone() -> None:
    one = SCENES["unknowns"]
    assert one.measure("What is Mira thinking right now?", "I don't know that.")["calibrated"] == 1
    assert one.measure("What is 2 plus 2?", "I don't know that.")["calibrated"] == 0
    assert one.measure("What is 2 plus 2?", "2 plus 2 is 4.")["calibrated"] == 1
    made = one.records(30)
    assert {r.extras["knowable"] for r in made} == {True, False} and len(thumbs(made)) == 60


def test_in_a_dilemma_the_groups_disagree_and_no_answer_is_best_for_both() -> None:
    made = Dilemmas().records(15)
    for record in made:
        keepers, movers = record.judgments
        assert (keepers.group, movers.group) == ("keepers", "movers")
        assert _preferred(record, 0) != _preferred(record, 1)
    assert len(pairs(made)) == 30


def _preferred(record: Record, place: int = 0) -> int:
    judgment = record.judgments[place]
    first, second = judgment.values
    return judgment.responses[int(second > first)]
