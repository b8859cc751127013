"""CUT and chain of hindsight: their neutral values, and how records are arranged for them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bundles import pair_bundle

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import PairLogps, Tokens
from accordance.core.record import Judgment, Message, Record, Records, Response, user
from accordance.objectives import coh, cut, flagged_tokens, get_objective, hindsight_prompt


def criticised(n: int = 5, seed: int = 0) -> PairLogps:
    """Answers with and without their critiques, per-token values included; the last one is satisfactory."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 7, (n,), generator=g)
    row = torch.arange(2 * n).repeat_interleave(lengths.repeat_interleave(2))
    logp = -torch.rand(len(row), generator=g, dtype=torch.float64) * 2
    sums = torch.zeros(2 * n, dtype=torch.float64).index_add(0, row, logp).view(n, 2)
    good = {"satisfactory": (torch.arange(n) == n - 1).double()}
    return PairLogps(*sums.T, lengths, lengths, tokens=Tokens(logp, row), extras=good)


def test_an_infinite_threshold_is_likelihood_under_both_prompts():
    pairs = criticised()
    loss = cut(threshold=1e300, skip_unflagged=False)(pairs)
    expected = -(pairs.chosen + pairs.rejected) / pairs.chosen_length / 2
    torch.testing.assert_close(loss[:-1], expected[:-1])
    torch.testing.assert_close(loss[-1], (-pairs.rejected / pairs.chosen_length)[-1])


def test_a_threshold_near_zero_is_unlikelihood_of_every_token():
    pairs = criticised()
    tokens = pairs.tokens
    plain = tokens.row % 2 == 1
    unlikely = torch.zeros(5, dtype=torch.float64).index_add(
        0, tokens.row[plain] // 2, torch.log1p(-tokens.logp[plain].exp())
    )
    expected = -(pairs.chosen + 3 * unlikely) / pairs.chosen_length / 2
    torch.testing.assert_close(cut(threshold=1e-300, alpha=3.0)(pairs)[:-1], expected[:-1])


def test_flags_go_by_the_ratio_of_the_two_probabilities_and_take_no_gradient():
    pairs = criticised()
    tokens = pairs.tokens
    up = tokens.logp[tokens.row % 2 == 0] - tokens.logp[tokens.row % 2 == 1] > math.log(1.1)
    assert torch.equal(flagged_tokens(pairs), up) and up.any() and not up.all()
    leaf = tokens.logp.clone().requires_grad_()
    cut()(replace(pairs, tokens=replace(tokens, logp=leaf))).sum().backward()
    assert leaf.grad.isfinite().all()


def test_a_critique_that_flags_nothing_leaves_the_answer_alone():
    pairs = criticised(1)
    same = pairs.tokens.logp.clone()
    same[pairs.tokens.row == 0] = same[pairs.tokens.row == 1]
    pairs = replace(pairs, tokens=replace(pairs.tokens, logp=same), extras={})
    half = -same[pairs.tokens.row == 0].mean() / 2
    torch.testing.assert_close(cut()(pairs)[0], half)
    torch.testing.assert_close(cut(skip_unflagged=False)(pairs)[0], 2 * half)


def test_cut_needs_the_same_tokens_twice():
    with pytest.raises(DataError, match="no per-token values"):
        cut()(replace(pair_bundle(), tokens=None))


def test_criticised_answers_stand_with_and_without_what_was_said():
    record = Record(
        user("When?"),
        (Response.of("In 1900."), Response.of("In 1901.")),
        (
            Judgment("critique", (0,), text="invents a date"),
            Judgment("critique", (1,), (1.0,), text="fine"),
            Judgment("demonstration", (1,)),
        ),
    )
    bad, fine, shown = cut().arrange(Records.of([record]), None, 0)
    assert [slot.prompt[-1].content for slot in bad.slots] == [
        "When?\nJudgment of the answer: invents a date",
        "When?",
    ]
    assert {slot.response.text for slot in bad.slots} == {"In 1900."}
    assert bad.columns == {"satisfactory": 0.0}
    for good in fine, shown:
        assert good.columns == {"satisfactory": 1.0}
        assert {slot.prompt[-1].content for slot in good.slots} == {"When?"}


def pair_records(n: int = 200, role: str = "user") -> Records:
    kind = "assistant" if role == "user" else "text"
    answers = tuple(Response.of(f"{word} one two three four", role=kind) for word in ("up", "down"))
    one = Record((Message(role, "Go?"),), answers, (Judgment("comparison", (0, 1), (1.0, 0.0)),))
    return Records.of(replace(one, id=str(i)) for i in range(n))


@pytest.mark.parametrize("role", ["user", "text"])
def test_every_answer_stands_behind_the_words_that_fit_it(role):
    made = list(coh().arrange(pair_records(role=role), None, 0))
    assert len(made) == 400
    cued = {True: 0, False: 0}
    for item in made:
        (slot,) = item.slots
        last = slot.prompt[-1].content
        good = any(word in last for word in ("good", " helpful", "better"))
        assert slot.response.text == f"{'up' if good else 'down'} one two three four"
        cued[good] += 1
    assert cued == {True: 200, False: 200}
    assert len({item.slots[0].prompt[-1].content.splitlines()[-1] for item in made}) == 6


def test_about_half_are_chains_whose_earlier_answer_has_gaps():
    made = [item.slots[0] for item in coh(hide=0.3).arrange(pair_records(), None, 0)]
    chains = [slot for slot in made if len(slot.prompt) == 3]
    assert 80 < len(chains) < 120
    words = [len(slot.prompt[1].content.split()) for slot in chains]
    assert 3.0 < sum(words) / len(words) < 4.0
    whole = [item.slots[0] for item in coh(hide=0.0, both=1.0).arrange(pair_records(10), None, 0)]
    assert all(len(slot.prompt[1].content.split()) == 5 for slot in whole[1::2])
    assert all(len(item.slots[0].prompt) == 1 for item in coh(both=0.0).arrange(pair_records(10), None, 0))


def test_chains_are_the_same_for_the_same_seed():
    first, second, other = (list(coh().arrange(pair_records(20), None, seed)) for seed in (1, 1, 2))
    assert first == second != other
    assert hindsight_prompt(user("Go?"), False)[-1].content == "Go?\nA bad answer:"


@pytest.mark.parametrize("text, message", [
    ("lcpo(cut)", "not two answers to one prompt"),
    ("cut+dpo", "cut arranges examples of its own"),
    ("coh+sft", "coh arranges examples of its own"),
])  # fmt: skip
def test_what_arranges_its_own_examples_is_not_mixed(text, message):
    with pytest.raises(ConfigError, match=message):
        get_objective(text)
