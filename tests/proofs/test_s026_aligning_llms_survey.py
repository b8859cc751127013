"""Proof of S026, the survey's recipe book: its map names what is there, its recipes run, its findings show in small.

(a) self-instruction keeps what is new; (b) few diverse rows beat many repeated ones; (c) the best of eight, imitated,
earns more each round; (d) a judge asked in both orders errs less; (e) an adapter of rank 4 does most of what full
fine-tuning does. (b) and (e) train a small Llama whose skill is to answer two symbols with two others.
"""

from __future__ import annotations

import copy
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from accordance.core.aggregate import Comparisons, win_share
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.curation import Pipeline
from accordance.curation.steps_instruct import rouge_l, self_instruct
from accordance.curation.survey import recipe_book
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import sft
from accordance.training import TrainingConfig


def test_the_map_names_only_what_is_there_and_says_what_is_not():
    entries, recipes = recipe_book()
    assert all(entry.there == bool(entry.where) for entry in entries), [
        e.where for e in entries if e.where and not e.there
    ]
    branches = {"from people", "from strong models", "management", "training", "evaluation"}
    assert {entry.branch for entry in entries} == branches
    assert all(entry.how for entry in entries) and sum(entry.there for entry in entries) > 15 and recipes


@pytest.mark.parametrize("recipe", recipe_book()[1], ids=lambda recipe: recipe.name)
def test_every_recipe_is_one_that_curation_and_training_take(recipe):
    assert Pipeline.of(*recipe.curate).steps
    assert TrainingConfig.of(recipe.align).build_objective()


SKILLS = [" ".join(f"{stem}{n}" for stem in ("take", "find", "turn", "tell", "give")) for n in range(20)]


def generator(shown, number):
    """Proposes instructions for skills at random; two in five only reword one it was shown."""
    g = np.random.default_rng(number)
    for _ in range(10):
        if g.random() < 0.4:
            yield f"please {shown[int(g.integers(len(shown)))]} now"
        else:
            skill = SKILLS[int(g.integers(len(SKILLS)))]
            yield skill


def test_a_self_instruction_keeps_what_is_new_and_covers_the_planted_skills():
    found = self_instruct(SKILLS[:2], generator, 200, rounds=30)
    words = [text.split() for text in found]
    assert max(rouge_l(a, b) for a, b in combinations(words, 2)) < 0.7
    covered = {skill for skill in SKILLS if any(rouge_l(skill.split(), text) > 0.99 for text in words)}
    assert len(covered) / len(SKILLS) >= 0.9
    everything = [text for number in range(30) for text in generator(found, number)]
    assert max(rouge_l(a.split(), b.split()) for a, b in combinations(everything[:60], 2)) > 0.7


SYMBOLS = 16


def rows(pairs: Tensor, *, turned: bool = False) -> Tensor:
    """Two symbols and the two that answer them (in the other order where `turned`), shape [n, 4]."""
    g = torch.Generator().manual_seed(0)
    first, second = (torch.randperm(SYMBOLS, generator=g) for _ in range(2))
    answers = [2 * SYMBOLS + first[pairs[:, 0]], 3 * SYMBOLS + second[pairs[:, 1]]]
    return torch.stack([pairs[:, 0], SYMBOLS + pairs[:, 1], *(answers[::-1] if turned else answers)], 1)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=4 * SYMBOLS, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=8)
    )  # fmt: skip


def fine_tune(model, data: Tensor, steps: int, rate: float) -> None:
    g = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        batch = data[torch.randint(len(data), (64,), generator=g)]
        labels = batch.clone()
        labels[:, :2] = -100
        optimizer.zero_grad()
        model(input_ids=batch, labels=labels).loss.backward()
        optimizer.step()


@torch.no_grad()
def right(model, data: Tensor) -> float:
    """Share of rows whose two answers are both the likeliest tokens."""
    said = model(input_ids=data).logits[:, 1:3].argmax(-1)
    return float((said == data[:, 2:]).all(1).double().mean())


@cache
def held_out() -> Tensor:
    return torch.cartesian_prod(torch.arange(SYMBOLS), torch.arange(SYMBOLS))


@cache
def based() -> LlamaForCausalLM:
    """The model after 500 diverse rows."""
    g, model = torch.Generator().manual_seed(2), llama()
    fine_tune(model, rows(torch.randint(SYMBOLS, (500, 2), generator=g)), 150, 3e-3)
    return model


def test_b_few_diverse_rows_beat_many_repeated_ones():
    g, model = torch.Generator().manual_seed(3), llama()
    templates = torch.randint(SYMBOLS, (10, 2), generator=g)
    fine_tune(model, rows(templates[torch.randint(10, (5000,), generator=g)]), 150, 3e-3)
    assert right(based(), rows(held_out())) > right(model, rows(held_out())) + 0.15


def test_e_an_adapter_of_rank_four_does_nine_tenths_of_what_full_fine_tuning_does():
    data = rows(held_out(), turned=True)
    full, adapted = copy.deepcopy(based()), copy.deepcopy(based())
    start = right(full, data)
    fine_tune(full, data, 80, 3e-3)
    adapter = get_peft_model(adapted, LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"))
    trained = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    fine_tune(adapter, data, 150, 1e-2)
    assert trained < 0.1 * sum(p.numel() for p in full.parameters())
    assert right(full, data) - start > 0.5
    assert right(adapter, data) - start >= 0.9 * (right(full, data) - start)


@pytest.mark.parametrize("seed", range(3))
def test_c_imitating_the_best_of_eight_earns_more_each_round(seed):
    g = torch.Generator().manual_seed(seed)
    reward = torch.randn(12, 20, generator=g, dtype=torch.float64)
    policy, earned, objective = TabularPolicy(torch.zeros(12, 20, dtype=torch.float64)), [], sft()
    earned.append(policy.expected(reward).mean().item())
    for _ in range(3):
        prompt = torch.arange(12).repeat(20)
        drawn = policy.sample(prompt, 8, generator=g).tolist()
        records = Records.of(
            Record(user(str(p)), tuple(Response.of(str(y)) for y in ys),
                   (Judgment("rating", tuple(range(8)), tuple(reward[p, ys].tolist())),))
            for p, ys in zip(prompt.tolist(), drawn)
        )  # fmt: skip
        best = Pipeline.of("keep_best").run(records).records
        asked = torch.tensor([int(r.prompt_text) for r in best])
        shown = torch.tensor([int(r.responses[0].text) for r in best])
        descend(
            policy, lambda a=asked, y=shown: objective(policy.single(a, y)).mean(), steps=60, learning_rate=0.1
        )
        earned.append(policy.expected(reward).mean().item())
    assert all(after > before for before, after in pairwise(earned))
    assert earned[-1] - earned[0] > 0.5 * reward.std()


@pytest.mark.parametrize("seed", range(3))
def test_d_asking_in_both_orders_cuts_the_error_of_a_judge_who_favours_the_first(seed):
    g, strength = np.random.default_rng(seed), np.linspace(0.8, -0.8, 6)
    truth = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))

    def share(both: bool) -> np.ndarray:
        first, second, outcome = [], [], []
        for a, b in combinations(range(6), 2):
            for _ in range(400):
                for x, y in ((a, b), (b, a))[: 2 if both else 1]:
                    first.append(x)
                    second.append(y)
                    outcome.append(float(g.random() < np.clip(truth[x, y] + 0.2, 0, 1)))
        games = Comparisons.of(first, second, outcome)
        return win_share(games.wins())[np.argsort(games.items)]

    exact = (truth.sum(1) - 0.5) / 5
    assert np.abs(share(True) - exact).mean() <= np.abs(share(False) - exact).mean() / 3
