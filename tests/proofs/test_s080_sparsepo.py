"""Proof of S080, SparsePO: the mask finds the token that people judge by, and leaves the others to the reference.

A tiny Llama over 24 tokens, pre-trained on answers of 12 tokens: filler drawn at random and, somewhere, a cue with
one of four words after it. Two of them are kind (chosen), two are harsh (rejected), which is all that the label
depends on. DPO and SparsePO take the same 48 pairs, steps and learning rate; so few pairs can be told apart by their
filler as well. Held-out: 64 fresh pairs. Measured: masks by kind of token, their zeros, and KL(policy || reference)
at the places of filler tokens. Control: the masks that were learned, dealt out to tokens at random.

A mask above 1 works as a larger beta, which alone lowers divergences; so SparsePO is held against DPO with a beta three
times as large, too (on words its mask comes to about 3), at equal margins between chosen and rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from tests.tiny import llama
from torch import Tensor

from accordance.core.objective import Objective, PairLogps
from accordance.models import Compared, Engine, Group, Reference
from accordance.objectives import get_objective
from accordance.training import bundle_for

CUE, KIND, HARSH, FILLER = 20, (21, 22), (23, 19), range(2, 18)
SEEDS = range(2)
STEPS, L1 = 40, 0.01
SIZES = {"vocab_size": 24, "max_position_embeddings": 32}


def pairs(count: int, seed: int) -> list[Group]:
    """Pairs of answers to one bare prompt."""
    g = torch.Generator().manual_seed(seed)

    def one(words: tuple[int, ...]) -> list[int]:
        filler = torch.randint(FILLER.start, FILLER.stop, (12,), generator=g).tolist()
        place = int(torch.randint(0, 11, (1,), generator=g))
        word = words[int(torch.randint(len(words), (1,), generator=g))]
        return [*filler[:place], CUE, word, *filler[place + 2 :]]

    return [Group([1, 2], [one(KIND), one(HARSH)]) for _ in range(count)]


@dataclass
class Trained:
    """A policy, its reference and the objective that it was trained with."""

    policy: Engine
    reference: Reference
    objective: Objective[PairLogps]

    def bundle(self, groups: list[Group]) -> PairLogps:
        known = self.reference(groups)
        out = self.policy(groups, compared=Compared(kl=known.table))
        return bundle_for(self.objective, out, known, {})


@cache
def start(seed: int) -> dict[str, Tensor]:
    """Weights of a policy that knows how answers are built: any filler, and after a cue any of the four words."""
    model, sft = llama(seed, 0.2, **SIZES), get_objective("sft")
    optimizer, engine = torch.optim.Adam(model.parameters(), lr=1e-2), Engine(model)
    for step in range(70):
        optimizer.zero_grad()
        out = engine(pairs(16, 10_000 + 100 * seed + step))
        (sft(bundle_for(sft, out, None, {})).sum() / len(out.tokens)).backward()
        optimizer.step()
    return model.state_dict()


def base(seed: int) -> Any:
    model = llama(seed, 0.2, **SIZES)
    model.load_state_dict(start(seed))
    return model


@cache
def trained(seed: int, how: str, l1: float = 0.0, beta: float = 0.5) -> Trained:
    options: dict[str, Any] = {"beta": beta}
    if how in ("sparse", "random"):
        options |= {"l1_reward": l1}
    else:
        options |= {"alpha": 0.0 if how == "dpo" else 1.0, "detach_chosen": False}
    objective = get_objective("sparsepo" if how in ("sparse", "random") else "tdpo", **options)
    model = base(seed)
    reference = Reference(Engine(base(seed).requires_grad_(False)))
    reference.table = reference.layers = True
    made = Trained(Engine(model), reference, objective)
    groups = [{"params": list(model.parameters()), "lr": 2e-3}]
    if objective.module is not None:
        torch.manual_seed(seed)
        objective.module.attach(32, 2)
        if how == "random":  # a mask of noise, fixed: what the token is says nothing
            made.objective = objective = noisy(objective, seed, l1)
        else:
            groups.append({"params": list(objective.module.parameters()), "lr": 5e-2})
    optimizer = torch.optim.Adam(groups)
    data = pairs(48, seed)
    for _ in range(STEPS):
        optimizer.zero_grad()
        objective(made.bundle(data)).mean().backward()
        optimizer.step()
    if objective.module is not None:
        objective.module.eval()
    return made


def noisy(objective: Objective[PairLogps], seed: int, l1: float) -> Objective[PairLogps]:
    """The objective with the masks that were learned, dealt out to the tokens at random."""
    learned = trained(seed, "sparse", l1).objective.module
    assert objective.module is not None and learned is not None

    def forward(layers: Tensor) -> Tensor:
        order = torch.randperm(len(layers), generator=torch.Generator().manual_seed(seed))
        return learned(layers)[order].detach()

    objective.module.forward = forward  # type: ignore[method-assign]
    return objective


@torch.no_grad()
def measure(made: Trained, seed: int) -> dict[str, float]:
    groups = pairs(64, 1000 + seed)
    bundle = made.bundle(groups)
    tokens = bundle.tokens
    assert tokens is not None and tokens.ref is not None
    ids = torch.tensor([token for group in groups for response in group.responses for token in response])
    word = torch.isin(ids, torch.tensor([*KIND, *HARSH]))
    filler = torch.isin(ids, torch.tensor(list(FILLER)))
    own = made.policy(groups, table=True).table.logps(slice(None))  # type: ignore[union-attr]
    ref = made.reference(groups).table.logps(slice(None))  # type: ignore[union-attr]
    kl = (own.exp() * (own - ref)).sum(-1)
    ratio = torch.zeros(128).index_add(0, tokens.row, tokens.logp - tokens.ref)
    found = {"kl": float(kl[filler].mean()), "accuracy": float((ratio[0::2] > ratio[1::2]).float().mean())}
    gap = ratio[0::2] - ratio[1::2]
    found |= {"margin": float(gap.mean()), "at_word": float(kl[word].mean())}
    if made.objective.module is not None:
        mask = made.objective.module(tokens.layers)[:, 0]
        found |= {"word": float(mask[word].mean()), "filler": float(mask[filler].mean())}
        found["zeros"] = float((mask == 0).float().mean())
    return found


@cache
def measured(seed: int, how: str, l1: float = 0.0, beta: float = 0.5) -> dict[str, float]:
    return measure(trained(seed, how, l1, beta), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_finds_the_word_that_people_judge_by(seed):
    sparse, control = measured(seed, "sparse", L1), measured(seed, "random", L1)
    assert sparse["word"] >= 3 * sparse["filler"] and sparse["word"] > 0.5
    assert control["word"] < 3 * control["filler"]
    assert 0.3 <= sparse["zeros"] <= 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_filler_stays_with_the_reference_at_no_cost_in_accuracy(seed):
    sparse, control = measured(seed, "sparse", L1), measured(seed, "random", L1)
    dpo, larger = measured(seed, "dpo"), measured(seed, "dpo", 0.0, 1.5)
    assert sparse["kl"] <= 0.75 * dpo["kl"]
    for other in (dpo, larger):
        assert sparse["accuracy"] >= max(other["accuracy"] - 0.02, 0.9)
        # Not a smaller step all over: divergences grow as the square of the margin, and are held against that.
        assert sparse["kl"] / sparse["margin"] ** 2 <= 0.75 * other["kl"] / other["margin"] ** 2
    assert control["kl"] > 2 * sparse["kl"] and control["accuracy"] < sparse["accuracy"]


def test_there_are_more_zeros_the_larger_the_l1_weight():
    zeros = [measured(0, "sparse", l1)["zeros"] for l1 in (0.0, 0.0005, L1)]
    assert zeros[0] < zeros[1] < zeros[2]
