"""One tokenisation: prefixes hold, end tokens are there, nothing is cut in silence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from accordance.core.errors import ModelError
from accordance.core.record import Message, Response, chat, user
from accordance.models import Encoder, Group, fit
from tests.tiny import tokenizer

TEXTS = st.text(min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_prompt_and_response_are_what_the_template_says(question: str, first: str, second: str) -> None:
    words = tokenizer()
    out = Encoder(words).encode(user(question), [Response.of(first), Response.of(second)])
    for text, ids in zip((first, second), out.response_ids):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        assert out.prompt_ids + ids == words.apply_chat_template(turns, tokenize=True, return_dict=False)


@pytest.mark.parametrize("text", ["emoji 🙂🏳️‍🌈", "עברית ועוד", "اَلْعَرَبِيَّةُ", "a\u200fb", "\x00", "<|end|>"])
def test_any_script_round_trips(text: str) -> None:
    encoder = Encoder(tokenizer())
    ids = encoder.encode(user(text), [Response.of(text)]).response_ids[0]
    assert encoder.decode(ids, special=True) == text + "<|end|>"


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """One that merges `a` and `b` across whatever seam there is."""
    raw = Tokenizer(models.BPE({"</s>": 0, "a": 1, "b": 2, "ab": 3, "c": 4}, [("a", "b")]))
    raw.pre_tokenizer = pre_tokenizers.Split("|", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>")


def test_a_token_that_spans_the_seam_is_split_as_generation_sees_it() -> None:
    encoder = Encoder(merging_tokenizer())
    out = encoder.encode((Message("text", "ca"),), [Response.of("bc", role="text")])
    assert out.prompt_ids == [4, 1] and out.response_ids == [[2, 4, 0]]
    assert any("span prompt and response" in note for note in encoder.notes)


def test_a_leading_space_that_the_tokenizer_adds_is_not_in_the_response() -> None:
    raw = Tokenizer(models.WordLevel({"</s>": 0, "▁hi": 1, "▁you": 2, "you": 3, "hi": 4}, unk_token="</s>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    words = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>")
    encoder = Encoder(words)
    out = encoder.encode((Message("text", "hi"),), [Response.of(" you", role="text")])
    assert [*out.prompt_ids, *out.response_ids[0]] == words("hi you</s>")["input_ids"]


def test_plain_text_gets_an_end_token_once() -> None:
    encoder = Encoder(tokenizer())
    answers = [Response.of("yes", role="text"), Response.of("yes<|end|>", role="text")]
    first, second = encoder.encode((Message("text", "q"),), answers).response_ids
    assert first == second and first[-1] == 1 and first.count(1) == 1


def test_a_template_without_an_end_token_gets_one_and_says_so() -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    encoder = Encoder(tokenizer(template=template))
    assert encoder.encode(user("a"), [Response.of("b")]).response_ids[0][-1] == 1
    assert any("end-of-turn token added" in note for note in encoder.notes)


def test_a_template_that_renders_the_past_differently_is_said() -> None:
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}<think>{% endif %}"
    encoder = Encoder(tokenizer(template=template))
    out = encoder.encode(user("q"), [Response.of("a")])
    assert encoder.decode(out.response_ids[0], special=True) == "a<|end|>"
    assert any("renders the prompt differently" in note for note in encoder.notes)


def test_no_chat_template_names_the_way_out() -> None:
    with pytest.raises(ModelError, match="no chat template[\\s\\S]*chat_template='plain'"):
        Encoder(tokenizer(template=None)).encode(user("q"), [Response.of("a")])


def test_a_template_that_refuses_the_roles_names_them() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="roles must alternate[\\s\\S]*user / user"):
        Encoder(tokenizer(template=template)).encode(chat(("user", "a"), ("user", "b")), [])


def test_no_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Encoder(tokenizer(eos_token=None))


def test_fit_cuts_responses_never_prompts_and_says_what_it_did() -> None:
    group = Group([1] * 5, [[2] * 3, [2] * 9])
    assert fit(group, None) == (group, "") and fit(group, 14) == (group, "")
    cut, what = fit(group, 10)
    assert cut is not None and [len(r) for r in cut.responses] == [3, 5] and "cut" in what
    assert fit(group, 5) == (None, "prompt as long as max_length or longer")
