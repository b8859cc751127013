"""Proof of S088, self-reference feedback: an answer of its own and swapped votes make a biased annotator a good one.

The annotator's log-odds are the true gap, noise of 1.5 and a bias of 1.2 for the first; with a reference of its own
they are 0.8 and 0.66. Prompts and responses carry their quality as a number, so that the truth is known.
"""

from __future__ import annotations

import math
import re
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from accordance.core.record import Record, Records, Response, user
from accordance.core.views import pairs
from accordance.feedback.self_reference import SelfReference, soft_label
from accordance.feedback.synthesis import synthesize
from accordance.lab.assistants import LabJudge

N = 1500


def quality(prompt: str, text: str) -> float:
    found = re.search(r"worth (-?[\d.]+)", text)
    return float(found.group(1)) if found else 0.0


@cache
def contests() -> Records:
    g = np.random.default_rng(0)
    values = g.normal(0, 0.8, (N, 2)).round(3)
    return Records.of(
        Record(
            user(f"question {i}"),
            tuple(Response.of(f"text {k} of {i}, worth {v}") for k, v in enumerate(row)),
            id=str(i),
        )
        for i, row in enumerate(values)
    )


@cache
def labelled(reference: bool, votes: int, seed: int = 0) -> Records:
    annotator = LabJudge(
        taste=quality, noise=1.5 / math.sqrt(2), position_bias=1.2, relief=0.55 if reference else 1.0, seed=seed
    )
    return synthesize(
        SelfReference(annotator, votes=votes, reference=reference, limit=20.0), contests(), block=500
    )


def gaps(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """True gap of each labelled pair, from the chosen one's side, and its margin."""
    found = [
        (quality("", p.chosen.text) - quality("", p.rejected.text), p.judgment.strength) for p in pairs(records)
    ]
    return np.array(found).T


def single(reference: bool, swap: bool) -> float:
    """Accuracy of one look at each pair (in one order, or in both)."""
    from accordance.core.policy_judge import PolicyJudge

    records = list(contests())
    judge = PolicyJudge(
        LabJudge(taste=quality, noise=1.5 / math.sqrt(2), position_bias=1.2, relief=0.55), log_odds=True
    )
    texts = [[r.responses[k].text for r in records] for k in (0, 1)]
    notes = [f"my own answer {i}" for i in range(N)] if reference else None
    verdicts = judge.compare([r.prompt for r in records], *texts, notes=notes, swap=swap)
    return float(
        np.mean([(v.winner == 1) == (quality("", a) > quality("", b)) for v, a, b in zip(verdicts, *texts)])
    )


def test_a_reference_and_swapped_votes_each_raise_accuracy_and_both_together_most():
    direct, swapped, referred = single(False, False), single(False, True), single(True, False)
    four = gaps(labelled(True, 4))[0]
    accuracy = (four > 0).mean()
    assert direct < 0.73 and swapped >= direct + 0.05 and referred >= direct + 0.05
    assert accuracy >= 0.89 and accuracy >= max(swapped, referred) + 0.1
    assert accuracy >= (gaps(labelled(False, 4))[0] > 0).mean() + 0.03  # the same votes without a reference


def test_strength_follows_the_true_gap_and_tells_sure_labels_from_doubtful_ones():
    true, strength = gaps(labelled(True, 4))
    assert strength.min() >= 0 and strength.max() <= 20.0
    assert np.corrcoef(np.abs(true), strength)[0, 1] >= 0.8
    order = np.argsort(strength)
    low, high = (true[order[::step][: len(true) // 4]] > 0 for step in (1, -1))
    assert high.mean() - low.mean() >= 0.2
    assert soft_label(0.0) == 0.5 and soft_label(3.0) > 0.95


def test_which_was_shown_first_does_not_matter_with_swapped_orders_and_does_without():
    first_wins = np.mean([p.chosen_first for p in pairs(labelled(True, 4))])
    assert abs(first_wins - 0.5) < 0.03

    class NeverSwaps(SelfReference):
        def _vote(self, contests, vote, account, *, first):
            super()._vote(contests, 0, account, first=first)

    annotator = LabJudge(taste=quality, noise=1.5 / math.sqrt(2), position_bias=1.2, relief=0.55)
    stuck = synthesize(NeverSwaps(annotator, votes=2), contests().select(range(500)), block=500)
    assert abs(np.mean([p.chosen_first for p in pairs(stuck)]) - 0.5) > 0.05


@pytest.mark.parametrize("margin", [True, False])
def test_a_reward_learnt_from_the_labels_orders_held_out_texts_by_their_truth(margin):
    """Rewards are linear in eight features of which the true quality is a known mixture."""
    g, torch_g = np.random.default_rng(1), torch.Generator().manual_seed(0)
    mix = torch.randn(8, generator=torch_g, dtype=torch.float64)
    features = torch.randn(2, N, 8, generator=torch_g, dtype=torch.float64)
    # Features that give the responses the qualities they have: shift along the mixture.
    values = torch.tensor([[quality("", r.text) for r in record.responses] for record in contests()]).T.double()
    features = features + ((values - features @ mix) / (mix @ mix))[:, :, None] * mix
    rows = {r.id: i for i, r in enumerate(contests())}
    chosen, rejected, strength = [], [], []
    for p in pairs(labelled(True, 4)):
        i, best = rows[p.record.id], p.record.responses.index(p.chosen)
        chosen.append(features[best, i])
        rejected.append(features[1 - best, i])
        strength.append(p.judgment.strength if margin else 0.0)
    gap, m = torch.stack(chosen) - torch.stack(rejected), torch.tensor(strength, dtype=torch.float64)
    w = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = -logsigmoid(gap @ w - m).mean() + 1e-3 * (w @ w)
        loss.backward()
        return loss

    optimizer.step(closure)
    test = torch.from_numpy(g.normal(size=(2000, 8)))
    accuracy = ((test @ w.detach() > 0) == (test @ mix > 0)).double().mean()
    assert accuracy >= 0.97
