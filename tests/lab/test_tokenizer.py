"""The tokenizer: any text comes back as it was, and a prompt's tokens are a prefix of the conversation's."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from accordance.lab import base_model_path, world


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(base_model_path())


def _render(tokenizer: PreTrainedTokenizerFast, *turns: tuple[str, str], ask: bool = False) -> list[int]:
    messages = [{"role": role, "content": content} for role, content in turns]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=False)
    return list(ids)  # type: ignore[arg-type]


def test_the_text_of_the_world_comes_back_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    for _ in range(300):
        prompt = world.sample_prompt(rng)
        for text in (prompt, world.write(prompt, rng)):
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["🙂 emoji 👩‍👩‍👧", "שלום עולם", "naïve  two ", "\n\t", "¿qué?", "中文", ""])
def test_any_unicode_text_comes_back_as_it_was(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("prompt", ["What colour is the lemon?", "", " leading", "🙂", "ends with space "])
@pytest.mark.parametrize("answer", ["The lemon is yellow.", "", " leading", "🙂", "\n"])
def test_prompt_tokens_are_a_prefix_and_the_turn_ends_with_the_end_token(
    tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str
) -> None:
    for before in ((), (("system", "You are a small helper."),)):
        asked = _render(tokenizer, *before, ("user", prompt), ask=True)
        whole = _render(tokenizer, *before, ("user", prompt), ("assistant", answer))
        assert whole[: len(asked)] == asked
        assert whole[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(whole[len(asked) : -1]) == answer


def test_pad_and_end_differ_and_no_token_is_spent_on_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert 1500 <= len(tokenizer) <= 2500
    words = world.best("How do I make tea?", random.Random(0)).split()
    assert len(tokenizer.encode(" ".join(words))) < 1.5 * len(words)


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="not tool"):
        _render(tokenizer, ("tool", "42"))
