"""Proof of S124, Curry-DPO: staged pairs beat a single pair per prompt, and the reference must move with the stages.

Tabular lab, 10 prompts x 8 responses; 600 times four responses are rated with noise of one standard deviation.
Equal total steps. Stages come from `accordance.curation.stages`; DPO is trained on one after the other. With tables
the order of the stages can't matter where the reference is refreshed (DPO sees increments only), which is asserted;
that the stages run from easy to hard shows in how often their labels are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.curation import stages
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import dpo

SEEDS = range(4)
PROMPTS, RESPONSES, STEPS = 10, 8, 75


def world(seed: int) -> tuple[np.ndarray, Records]:
    """True rewards, shape [prompts, responses], and rated records whose texts are the indices."""
    g = np.random.default_rng(seed)
    reward = g.normal(size=(PROMPTS, RESPONSES))
    records = []
    for number in range(600):
        prompt, answers = int(g.integers(PROMPTS)), g.choice(RESPONSES, 4, replace=False)
        ratings = reward[prompt, answers] + g.normal(size=4)
        judgments = tuple(Judgment("rating", (i,), (float(r),)) for i, r in enumerate(ratings))
        responses = tuple(Response.of(str(answer)) for answer in answers)
        records.append(Record(user(str(prompt)), responses, judgments, id=str(number)))
    return reward, Records.of(records)


def tensors(records: Records) -> Tensor:
    """(prompt, chosen, rejected) of every pair, shape [3, n]."""
    rows = []
    for record in records:
        values = record.judgments[0].values
        best = values.index(max(values))
        rows.append([int(record.prompt_text), *(int(record.responses[i].text) for i in (best, 1 - best))])
    return torch.tensor(rows).T


def train(reward: Tensor, parts: Sequence[Tensor], *, refresh: bool = True) -> TabularPolicy:
    """DPO on one part after the other; equal steps in all, whatever the number of parts."""
    policy = TabularPolicy(torch.zeros(reward.shape, dtype=torch.float64))
    objective, first = dpo(beta=0.5), policy.frozen()
    for prompt, chosen, rejected in parts:
        ref = policy.frozen() if refresh else first
        descend(
            policy,
            lambda p=prompt, c=chosen, r=rejected, ref=ref: objective(policy.pairs(p, c, r, ref=ref)).mean(),
            steps=3 * STEPS // len(parts),
            learning_rate=0.03,
        )
    return policy


@cache
def outcome(seed: int) -> dict[str, float]:
    table, records = world(seed)
    reward, parts = torch.tensor(table), [tensors(stage) for stage in stages(records, 3)]
    made = {
        "single": train(reward, parts[:1]),
        "pooled": train(reward, [torch.cat(parts, 1)]),
        "staged": train(reward, parts),
        "fixed": train(reward, parts, refresh=False),
        "reversed": train(reward, [tensors(stage) for stage in stages(records, 3, reverse=True)]),
    }
    return {name: policy.expected(reward).mean().item() for name, policy in made.items()}


def mean(name: str) -> float:
    return float(np.mean([outcome(seed)[name] for seed in SEEDS]))


def test_staged_training_earns_more_than_a_single_pair_per_prompt():
    assert mean("staged") > mean("single") + 0.1


def test_staged_training_is_no_worse_than_all_pairs_pooled():
    assert all(outcome(seed)["staged"] > outcome(seed)["pooled"] - 0.01 for seed in SEEDS)


def test_the_reference_has_to_move_with_the_stages():
    assert mean("staged") > mean("fixed") + 0.04
    assert all(outcome(seed)["staged"] > outcome(seed)["fixed"] for seed in SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_the_stages_is_indifferent_to_tables(seed):
    assert abs(outcome(seed)["staged"] - outcome(seed)["reversed"]) < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_stages_run_from_easy_to_hard_so_early_labels_are_right_more_often(seed):
    reward, records = world(seed)
    right = [
        np.mean([reward[p, c] > reward[p, r] for p, c, r in tensors(stage).T.tolist()])
        for stage in stages(records, 3)
    ]
    assert right[0] > right[1] + 0.03 and right[1] > right[2] + 0.03
    assert all(len(stage) == 600 for stage in stages(records, 3))
