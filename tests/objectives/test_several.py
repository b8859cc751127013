"""Objectives over several responses around a pair: the pair's own loss is untouched, what is added is what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bundles import list_bundle, pair_bundle
from torch.nn.functional import logsigmoid

from accordance.core.errors import ConfigError
from accordance.core.objective import ListLogps, Tokens
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.objectives import get_objective
from accordance.objectives.several import places


def six(seed: int = 0) -> ListLogps:
    lists = list_bundle(n=4, k=6, seed=seed)
    return replace(lists, mask=torch.ones_like(lists.mask))


def with_real_tokens(lists: ListLogps, seed: int = 0) -> ListLogps:
    """Random values of tokens that add up to the log-probs, three for each response."""
    g = torch.Generator().manual_seed(seed)
    values = -torch.rand(lists.logp.numel(), 3, generator=g, dtype=torch.float64)
    row = torch.arange(lists.logp.numel()).repeat_interleave(3)
    total = values.sum(1).view_as(lists.logp)
    return replace(
        lists, logp=total, ref=total - 1, tokens=Tokens(values.flatten(), row, values.flatten() - 1 / 3)
    )


@pytest.mark.parametrize("chosen, rejected", [(0, 1), (2, 3), (5, 1)])
def test_two_places_of_a_list_are_a_pair_with_its_tokens(chosen, rejected):
    lists = with_real_tokens(six())
    pairs = places(lists, chosen, rejected)
    assert torch.equal(pairs.chosen, lists.logp[:, chosen]) and torch.equal(
        pairs.rejected, lists.logp[:, rejected]
    )
    assert pairs.tokens is not None and pairs.tokens.ref is not None
    sums = torch.zeros(8, dtype=torch.float64).index_add(0, pairs.tokens.row, pairs.tokens.logp)
    torch.testing.assert_close(sums[0::2], pairs.chosen)
    torch.testing.assert_close(sums[1::2], pairs.rejected)
    refs = torch.zeros(8, dtype=torch.float64).index_add(0, pairs.tokens.row, pairs.tokens.ref)
    torch.testing.assert_close(refs[0::2], pairs.ref_chosen)
    assert (pairs.tokens.row.diff() >= 0).all()


@pytest.mark.parametrize("base", ["dpo", "simpo", "lcpo(dpo)", "dpo+0.1*sft"])
def test_mapl_without_weights_is_the_wrapped_loss(base):
    lists = six()
    neutral = get_objective(f"mapl({base})", intra=0.0, inter=0.0)
    torch.testing.assert_close(neutral(lists), get_objective(base)(places(lists)))


def test_mapl_adds_what_it_says():
    lists = six()
    made = get_objective("mapl(dpo)", **{"dpo.beta": 0.3, "intra": 2.0, "inter": 0.5})
    assert lists.ref is not None
    r = (0.3 * (lists.logp - lists.ref)).unbind(1)
    base = -logsigmoid(r[0] - r[1])
    intra = -(logsigmoid(r[2] - r[4]) + logsigmoid(r[5] - r[3])) / 2
    m = r[0] - r[1], r[2] - r[3], r[4] - r[5]
    inter = -(logsigmoid(m[1] - m[0]) + logsigmoid(m[0] - m[2]) + logsigmoid(-m[2])) / 3
    torch.testing.assert_close(made(lists), base + 2 * intra + 0.5 * inter)
    off = replace(lists, extras={"instructions_added": torch.tensor([0.0, 1, 0, 1])})
    torch.testing.assert_close(made(off)[[0, 2]], base[[0, 2]])


def test_mapl_arranges_prompts_that_each_answer_follows_and_the_other_breaks():
    texts = ["The river is long, and cold.", "Mountains are high!"], ["Same.", "Same."]
    records = Records.of(
        Record(
            user("Tell me."),
            tuple(map(Response.of, t)),
            (Judgment("comparison", (0, 1), (1.0, 0.0)),),
            id=str(i),
        )
        for i, t in enumerate(texts)
    )
    objective = get_objective("mapl(dpo)")
    assert objective.arrange is not None
    first, second = objective.arrange(records, None, 0)
    prompts = [slot.prompt[-1].content for slot in first.slots]
    assert prompts[0] == prompts[1] == "Tell me." and prompts[2] == prompts[3] != prompts[4] == prompts[5]
    assert all(p.startswith("Tell me.\n") for p in prompts[2:])
    assert [slot.response.text for slot in first.slots] == texts[0] * 3
    assert first.columns["instructions_added"] == 1 and second.columns["instructions_added"] == 0
    assert {slot.prompt[-1].content for slot in second.slots} == {"Tell me."}


def test_what_mapl_can_not_do_is_refused():
    with pytest.raises(ConfigError, match="did you mean"):
        get_objective("mapl(dpo)", constraints="keywrod")
    with pytest.raises(ConfigError, match="goes around losses of a chosen and a rejected answer"):
        get_objective("lcpo(mapl(dpo))")
    with pytest.raises(ConfigError, match="goes around losses"):
        get_objective("mapl(kto)")
    assert pair_bundle().kind == "pair"
