"""Verifiable constraints: what is proposed for a text holds of it, and IFEval's instructions mean what they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accordance.core.constraints import Constraint, between, following, ifeval, instructions, kinds
from accordance.core.errors import ConfigError, DataError

WORDS = [
    "river",
    "Mountain",
    "GARDEN",
    "a",
    "of",
    "- item",
    "market,",
    "winter.",
    "Why?",
    '"so"',
    "\n\n",
    "\n",
    "<<T>>",
]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(texts, texts, st.integers(0, 999))
def test_proposed_constraints_hold_of_their_text_and_fail_of_the_other(text, other, seed):
    draw = random.Random(seed)
    own, apart = following(text, draw), between(text, other, draw)
    assert all(c.met(text) for c in own + apart)
    assert not any(c.met(other) for c in apart)
    for some in (own, apart):
        assert len({c.kind for c in some}) == len(some)
        assert all(c.instruction and "{" not in c.instruction for c in some)
    if text == other:
        assert not apart


CASES = [
    ("words", {"relation": "least", "count": 3}, "one two three", "one two"),
    ("words", {"relation": "most", "count": 3}, "one two-two's three", "one two three four"),
    ("sentences", {"relation": "exactly", "count": 2}, "It is. Is it?", "It is, is it."),
    ("bullets", {"relation": "exactly", "count": 2}, "So:\n- a\n* b", "- a"),
    ("paragraphs", {"relation": "least", "count": 2}, "a\n\nb", "a\nb"),
    ("keyword", {"word": "sun", "relation": "least", "count": 2}, "Sun, sun.", "Sun, sunny."),
    ("forbidden", {"word": "sun"}, "sunny", "The SUN"),
    ("start", {"phrase": "Dear"}, " dear all", "all dear"),
    ("end", {"phrase": "the end."}, "So. The end. ", "the end"),
    ("lowercase", {}, "all lower", "Not all"),
    ("uppercase", {}, "ALL CAPS 3", "ALL CAPs"),
    ("no_comma", {}, "a b", "a, b"),
    ("question", {}, "Is it? ", "It is."),
    ("quoted", {}, '"so it is"', '"so" it is'),
    ("json", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("title", {}, "<<A title>>\ntext", "<<>> text"),
]


@pytest.mark.parametrize("kind, arguments, good, bad", CASES)
def test_each_kind_tells_a_text_that_follows_it_from_one_that_does_not(kind, arguments, good, bad):
    constraint = Constraint(kind, arguments)
    assert constraint.met(good) and not constraint.met(bad)


def test_every_kind_has_a_case_and_an_unknown_one_is_refused():
    assert {case[0] for case in CASES} == set(kinds())
    with pytest.raises(ConfigError, match="keyword"):
        Constraint("keywrod", {})


def test_instructions_are_worded_in_the_singular_for_one():
    one = Constraint("keyword", {"word": "sun", "relation": "least", "count": 1})
    many = Constraint("words", {"relation": "most", "count": 21}, wording=2)
    assert instructions([one, many]) == 'Use the word "sun" at least 1 time. Write at most 21 words.'


def test_ifeval_instructions_become_constraints_of_the_same_meaning():
    (few,) = ifeval("length_constraints:number_words", {"relation": "less than", "num_words": 3})
    assert few.met("one two") and not few.met("one two three")
    both = ifeval("keywords:existence", {"keywords": ["sun", "moon"]})
    assert [c.met("only the moon") for c in both] == [False, True]
    (ends,) = ifeval("startend:end_checker", {"end_phrase": "Bye."})
    assert ends.met("Well. bye.")
    with pytest.raises(DataError, match="can't be checked"):
        ifeval("language:response_language", {"language": "kn"})
