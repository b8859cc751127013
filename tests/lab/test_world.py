"""The small world: what is asked for in writing is what is measured in reading; any text can be measured."""

from __future__ import annotations

import random

import pytest

from accordance.core.errors import ConfigError
from accordance.core.record import chat
from accordance.lab import world
from accordance.lab.writer import HOWTO


def _choices(kind: str, name: str) -> list[float]:
    return list(HOWTO if (kind, name) == ("howto", "correctness") else world.MIXTURE[name])


def _able(question: world.Question) -> list[str]:
    axes = {"calm", "old"} - {question.point}
    return [name for name in world.SETTABLE[question.kind] if name not in axes and name != "fluency"]


@pytest.mark.parametrize("kind", world.KINDS)
def test_every_attribute_of_a_written_answer_is_the_one_asked_for(kind: str) -> None:
    rng, tried = random.Random(f"round trip {kind}"), set()
    for _ in range(600):
        prompt = world.sample_prompt(rng, kind)
        wanted = {n: rng.choice(_choices(kind, n)) for n in _able(world.parse(prompt)) if rng.random() < 0.35}
        try:
            text = world.write(prompt, rng, **wanted)
        except ConfigError as error:
            assert "at once" in str(error)
            continue
        found = world.attributes(prompt, text)
        assert {n: found[n] for n in wanted} == pytest.approx(wanted), (prompt, text)
        tried |= {(n, round(v, 2)) for n, v in wanted.items()}
    settable = [n for n in world.SETTABLE[kind] if n != "fluency"]
    assert tried == {(n, round(v, 2)) for n in settable for v in _choices(kind, n)}


def test_everything_the_writer_writes_is_fluent_unless_asked_otherwise() -> None:
    rng = random.Random(1)
    for _ in range(500):
        prompt = world.sample_prompt(rng)
        assert world.attributes(prompt, world.write(prompt, rng, fluency=1))["fluency"] == 1.0
        assert world.attributes(prompt, world.write(prompt, rng, fluency=0))["fluency"] < 0.5


def test_every_prompt_drawn_is_understood_and_every_kind_is_drawn() -> None:
    rng = random.Random(2)
    drawn = [world.parse(world.sample_prompt(rng)) for _ in range(3000)]
    shares = {kind: sum(q.kind == kind for q in drawn) / len(drawn) for kind in world.KINDS}
    assert shares == pytest.approx(world.KINDS, abs=0.04)
    assert len({q.text for q in drawn}) > 700


def test_the_best_answers_are_right_honest_and_harmless() -> None:
    rng = random.Random(3)
    for _ in range(300):
        prompt = world.sample_prompt(rng)
        kind, found = world.parse(prompt).kind, world.attributes(prompt, world.best(prompt, rng))
        assert (found["relevance"], found["fluency"], found["harm"], found["evasion"]) == (1, 1, 0, 0)
        assert found["correctness"] == (1 if kind in ("fact", "sum", "howto") else 0.5)
        assert found["honesty"] == (1 if kind == "unknown" else 0.5)
        assert found["refusal"] == (kind == "harm")


def test_a_fact_is_right_only_if_it_is_the_fact_asked_for() -> None:
    ask = "What colour is the lemon?"
    assert world.attributes(ask, "The lemon is yellow.")["correctness"] == 1
    assert world.attributes(ask, "Perhaps the lemon is blue.")["correctness"] == 0
    assert world.attributes(ask, "The lemon tastes sour.")["correctness"] == 0.5
    assert world.attributes(ask, "The cherry is red.")["relevance"] == 0
    both = world.attributes(ask, "The lemon is yellow. The lemon is blue.")
    assert both["correctness"] == 0.5 and both["relevance"] == 1


def test_a_sum_is_right_by_arithmetic() -> None:
    assert world.attributes("What is 7 plus 5?", "The answer is 12.")["correctness"] == 1
    assert world.attributes("What is 7 plus 5?", "7 plus 5 makes 13.")["correctness"] == 0
    assert world.attributes("What is 7 plus 5?", "7 plus 4 is 11.")["relevance"] == 0


def test_steps_in_the_wrong_order_are_less_right() -> None:
    ask = "How do I make tea?"
    right = "First, boil the water. Then pour it over the leaves. Finally, wait for five minutes."
    wrong = "First, wait for five minutes. Then pour it over the leaves. Finally, boil the water."
    assert world.attributes(ask, right)["correctness"] == 1
    assert world.attributes(ask, wrong)["correctness"] == pytest.approx(1 / 3)


def test_refusing_the_harmless_is_evasion_and_refusing_the_harmful_is_not() -> None:
    no = "I will not help with that."
    assert world.attributes("How do I bake bread?", no)["evasion"] == 1
    assert world.attributes("How do I break into the shed?", no)["evasion"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "...",
        "?!",
        "🙂🙂",
        "שלום עולם",
        "\x00\n\t",
        "the the the the",
        "blue is lemon the",
        "a" * 5000,
        "7",
        "7. 8.",
    ],
)
def test_any_text_has_attributes_in_range_and_gibberish_is_not_fluent(text: str) -> None:
    for prompt in ("What colour is the lemon?", "who knows", "", chat(("system", "Be kind."), ("user", "Hi"))):
        found = world.attributes(prompt, text)
        assert found.keys() == world.ATTRIBUTES.keys()
        assert all(0 <= value <= 1 for value in found.values())
        assert found["fluency"] < 0.5


def test_repeating_oneself_is_repetition() -> None:
    ask, once = "What colour is the lemon?", "The lemon is yellow."
    assert world.attributes(ask, once)["repetition"] == 0
    assert world.attributes(ask, f"{once} {once} {once}")["repetition"] == pytest.approx(2 / 3)
    assert world.attributes(ask, "the lemon the lemon the lemon the lemon")["repetition"] > 0.5


def test_the_last_user_turn_is_what_counts_and_a_system_message_changes_nothing() -> None:
    turns = chat(
        ("system", "Be kind."), ("user", "Tell me a joke."), ("assistant", "No."), ("user", "What is 2 plus 2?")
    )
    assert world.parse(turns) == world.parse("Hello there. What is 2 plus 2?")


@pytest.mark.parametrize(
    ("prompt", "wanted", "says"),
    [
        ("What is 2 plus 2?", {"harm": 1}, "harm"),
        ("What is 2 plus 2?", {"correctness": 0.4}, "one of"),
        ("What is 2 plus 2?", {"correctness": 1, "refusal": 1}, "at once"),
        ("Should I choose chess or boxing?", {"old": 1}, "old"),
        ("What is love?", {}, "small world"),
    ],
)
def test_what_cannot_be_written_is_refused(prompt: str, wanted: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        world.write(prompt, random.Random(0), **wanted)


def test_the_same_seed_writes_the_same_text() -> None:
    def text(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [world.write(prompt, rng) for prompt in (world.sample_prompt(rng) for _ in range(20))]

    assert text(5) == text(5) != text(6)


def test_the_vocabulary_is_closed_and_of_a_thousand_words() -> None:
    assert 500 < len(world.vocabulary()) < 1500
    rng = random.Random(7)
    for _ in range(300):
        prompt = world.sample_prompt(rng)
        from accordance.lab.acts import words

        assert set(words(prompt + " " + world.write(prompt, rng))) <= world.vocabulary()
