"""Our own sampling loop says what transformers' says, and how likely that was, on every ordinary architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from accordance.models import Engine, Group, naive_logps
from accordance.models.generation import Draw, _asks_for_more, _batch, _draw, _own_batch, sample
from tests.models.test_exact import SHARED, ids
from tests.tiny import randomise, tokenizer


def model(name: str) -> Any:
    torch.manual_seed(0)
    made = hf.AutoModelForCausalLM.from_config(SHARED[name]())
    randomise(made, 3, 0.2)
    return made.eval()


def prompts() -> list[list[int]]:
    draw = torch.Generator().manual_seed(2)
    return [ids(size, draw) for size in (3, 14, 8)]


ENDS = frozenset(range(2, 12))  # some of many tokens end a response, so that lengths differ


@pytest.mark.parametrize("name", SHARED)
def test_greedy_answers_and_log_probabilities_are_those_of_transformers(name: str) -> None:
    net = model(name)
    Engine(net, shared=True)
    options = (ENDS, prompts(), Draw(1, 9, temperature=0.0))
    with torch.no_grad():
        ours, theirs = _own_batch(net, tokenizer(), *options), _batch(net, tokenizer(), *options)
    for (a,), (b,) in zip(ours, theirs):
        assert a.token_ids == b.token_ids and a.finished == b.finished
        assert a.logprobs == pytest.approx(b.logprobs, abs=2e-4)


@pytest.mark.parametrize("name", ["llama", "mistral with a window", "gemma3", "gpt2", "opt with a projection"])
def test_samples_are_as_likely_as_a_plain_forward_says(name: str) -> None:
    """Lengths differ, so responses leave the batch at different steps and the rest must not notice."""
    net = model(name)
    Engine(net, shared=True)
    torch.manual_seed(0)
    with torch.no_grad():
        made = _own_batch(net, tokenizer(), ENDS, prompts(), Draw(12, 16))
    lengths = {len(c.token_ids) for group in made for c in group}
    assert len(lengths) > 6 and any(c.finished for c in made[0])
    for prompt, group in zip(prompts(), made):
        assert all((c.token_ids[-1] in ENDS) == c.finished for c in group)
        assert all(not ENDS & set(c.token_ids[:-1]) for c in group)
        plain = naive_logps(net, Group(prompt, [list(c.token_ids) for c in group]))
        found = torch.tensor([sum(c.logprobs) for c in group])
        torch.testing.assert_close(found, plain.detach(), rtol=1e-4, atol=2e-4)


def test_draws_follow_the_distribution_its_temperature_and_its_nucleus() -> None:
    logp = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    torch.manual_seed(0)
    rows = logp.expand(40_000, -1)

    def shares(**options: Any) -> torch.Tensor:
        return torch.bincount(_draw(rows, **options), minlength=4) / len(rows)

    torch.testing.assert_close(shares(temperature=1.0, top_p=1.0), logp.exp(), atol=0.01, rtol=0)
    torch.testing.assert_close(
        shares(temperature=0.5, top_p=1.0), torch.softmax(2 * logp, 0), atol=0.01, rtol=0
    )
    cut = shares(temperature=1.0, top_p=0.7)
    torch.testing.assert_close(cut, torch.tensor([0.625, 0.375, 0, 0]), atol=0.01, rtol=0)
    assert _draw(rows[:1], 0.0, 1.0).item() == 0


def test_a_checkpoint_that_asks_for_more_than_sampling_goes_through_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = model("llama")
    assert not _asks_for_more(net)
    net.generation_config.repetition_penalty = 1.3
    assert _asks_for_more(net)
    monkeypatch.setattr("accordance.models.generation._own_batch", None)
    made = sample(
        net, tokenizer(), ENDS, prompts(), n=2, max_new_tokens=3, temperature=1.0, top_p=1.0, seed=0,
        max_tokens=512, ordinary=True,
    )  # fmt: skip
    assert [len(group) for group in made] == [2, 2, 2]
