"""Whole distributions beside the labels: equal to a plain forward's full scores, values and gradients."""

from __future__ import annotations

import pytest
import torch

from accordance.models import Compared, Engine, Group, Reference, StoredTeacher, Teacher, TopTable
from accordance.models import head as heads
from tests.tiny import llama

GROUPS = [
    Group([5, 6, 7], [[8, 9, 10, 1], [11, 1]]),
    Group([20, 21], [[22, 23, 24], [25], [26, 27, 28, 29, 1]]),
    Group([], [[30, 31, 32, 33]]),
]


def full_scores(model: torch.nn.Module, group: Group) -> torch.Tensor:
    """Log-softmax at every label of every response, one by one, shape [labels, vocabulary]."""
    rows = []
    for response in group.responses:
        ids = torch.tensor([[*group.prompt, *response]])
        first = max(len(group.prompt), 1)
        rows.append(model(input_ids=ids, use_cache=False).logits[0, first - 1 : -1].log_softmax(-1))
    return torch.cat(rows)


def everything(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([full_scores(model, group) for group in GROUPS])


def tables(*models: torch.nn.Module) -> list:
    teacher = Teacher(*(Reference(Engine(model)) for model in models))
    return list(teacher(GROUPS))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rows", [1 << 24, 16 * 261])
def test_divergences_and_expectations_equal_those_of_full_scores(shared, rows, monkeypatch):
    monkeypatch.setattr(heads, "CHUNK_SCORES", rows)  # the smaller one cuts the labels into two chunks
    model, teacher, before = llama(0, 0.2).eval(), llama(1, 0.2).eval(), llama(2, 0.2).eval()
    engine = Engine(model, shared=shared)
    first, second = tables(teacher, before)
    out = engine(GROUPS, compared=Compared(kl=second, teacher_kl=first, advantage=(first, second)))
    own, t, r = everything(model), everything(teacher).detach(), everything(before).detach()
    expected = {
        "kl": (r.exp() * (r - own)).sum(-1),
        "teacher_kl": (t.exp() * (t - own)).sum(-1),
        "advantage": (own.exp() * (t - r)).sum(-1),
    }
    weight = torch.randn(len(own), generator=torch.Generator().manual_seed(0))
    for name, value in expected.items():
        found = getattr(out, name)
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5)
        wanted = torch.autograd.grad((value * weight).sum(), list(model.parameters()), retain_graph=True)
        got = torch.autograd.grad((found * weight).sum(), list(model.parameters()), retain_graph=True)
        for a, b in zip(got, wanted):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(out.tokens, engine(GROUPS).tokens, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1 << 24, 16 * 261])
def test_how_concentrated_the_policys_own_distribution_is_equals_that_of_full_scores(rows, monkeypatch):
    monkeypatch.setattr(heads, "CHUNK_SCORES", rows)
    model = llama(0, 0.2).eval()
    out = Engine(model)(GROUPS, compared=Compared(collision=True, greatest=True))
    probs = everything(model).exp().detach()
    torch.testing.assert_close(out.collision, (probs**2).sum(-1).log(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.greatest, probs.amax(-1).log(), rtol=1e-5, atol=1e-5)
    reached = torch.autograd.grad(
        (out.collision + out.greatest).sum(), list(model.parameters()), retain_graph=True
    )
    assert out.kl is None and not any(gradient.any() for gradient in reached)
    torch.testing.assert_close(out.tokens, Engine(model)(GROUPS).tokens, rtol=1e-5, atol=1e-5)


def test_nothing_but_the_log_probabilities_is_computed_unless_asked_for():
    out = Engine(llama())(GROUPS)
    assert (
        out.kl
        is out.teacher_kl
        is out.advantage
        is out.table
        is out.layers
        is out.hidden
        is out.collision
        is None
    )


@pytest.mark.parametrize("shared", [True, False])
def test_layers_are_those_of_the_tokens_themselves(shared):
    model = llama(0, 0.2).eval()
    out = Engine(model, shared=shared)(GROUPS, layers=True)
    expected = []
    for group in GROUPS:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt, *response]])
            states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            first = max(len(group.prompt), 1)
            expected.append(torch.stack([state[0, first:] for state in states], 1))
    assert out.layers is not None and not out.layers.requires_grad
    torch.testing.assert_close(out.layers, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_switched_off_adapter_is_off_in_its_table_too():
    from peft import LoraConfig, get_peft_model

    base = llama(0, 0.2).eval()
    expected = everything(base).detach()
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    engine = Engine(model)
    reference = Reference(engine, context=model.disable_adapter)
    reference.table = True
    found = reference(GROUPS)
    assert found.table is not None
    torch.testing.assert_close(found.table.logps(slice(None)), expected, rtol=1e-4, atol=1e-5)
    out = engine(GROUPS, compared=Compared(kl=found.table))
    assert out.kl is not None and float(out.kl.detach().min()) >= -1e-5 and float(out.kl.detach().max()) > 0.01
    out.kl.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_B" in n)


def test_a_stored_teacher_with_nearly_all_entries_is_the_live_one_and_with_few_sums_to_one():
    teacher, before = llama(1, 0.2).eval(), llama(2, 0.2).eval()
    live = Teacher(Reference(Engine(teacher)), Reference(Engine(before)))
    stored = StoredTeacher(live, k=260)
    stored.prepare(GROUPS)
    assert stored.teacher is None
    for exact, kept in zip(live(GROUPS[1:]), stored(GROUPS[1:])):
        torch.testing.assert_close(kept.logps(slice(None)), exact.logps(slice(None)), rtol=2e-3, atol=4e-3)
    few = StoredTeacher(live, k=8)
    few.prepare(GROUPS)
    first, second = few(GROUPS)
    assert isinstance(first, TopTable) and first.ids.shape[1] == 8
    torch.testing.assert_close(
        first.logps(slice(None)).exp().sum(-1), torch.ones(len(first.ids)), rtol=2e-3, atol=2e-3
    )
    whole = [table.logps(slice(None)) for table in live(GROUPS)]
    gap = (whole[0] - whole[1]).abs()
    likely, far = torch.stack(whole).amax(0).argmax(-1), gap.argmax(-1)
    for position, ids in enumerate(first.ids.tolist()):
        assert int(likely[position]) in ids and int(far[position]) in ids
    assert torch.equal(first.ids, second.ids)
