"""Proof of S023, CycleAlign: what judge and policy agree on is right more often, so that both get better.

60 prompts with six responses of five features each; utility is linear in them. The judge sees utilities through noise
of standard deviation 3 / sqrt(number of demonstrations it is shown); the policy is a softmax over a linear score that
begins weakly correlated with utility. Agreement, the pool of demonstrations and the ranking of groups are those of the
loop `cycle`; the policy is trained list-wise (PRO without temperatures) on the judge's rankings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from accordance.core.judge import Ranked
from accordance.core.objective import ListLogps
from accordance.objectives import get_objective
from accordance.training.loops.cycle import Demonstration, Demonstrations, GroupRanker, agreement

PROMPTS, RESPONSES, FEATURES, CYCLES, SEEDS = 60, 6, 5, 8, range(5)
EARLY = 4


class NoisyJudge:
    """Ranks by utility and noise that shrinks with the demonstrations in its notes."""

    name = "noisy"

    def __init__(self, utility: np.ndarray, seed: int) -> None:
        self.utility, self.noise = utility, np.random.default_rng(seed)

    def rank(
        self, prompts: Sequence[Any], completions: Sequence[Sequence[str]], *, rubric: Any, notes: Any
    ) -> list[Ranked]:
        many = notes[0].count("best to worst:")
        seen = self.utility + 3 / np.sqrt(many) * self.noise.normal(size=self.utility.shape)
        return [
            Ranked(tuple(seen[int(p), [int(text) for text in row]])) for p, row in zip(prompts, completions)
        ]


def accuracy(order: Sequence[int], utility: np.ndarray) -> list[bool]:
    """Of every two responses in a ranking, whether the first is really better."""
    return [bool(utility[a] > utility[b]) for a, b in combinations(order, 2)]


class Run:
    """One run; what it measured stands in its attributes, one number per cycle.

    Args:
        dynamic: whether the pool grows.
        filtered: whether it is agreement that enters it, or the judge's ranking as it is.
    """

    def __init__(self, seed: int, dynamic: bool = True, filtered: bool = True) -> None:
        g = np.random.default_rng(seed)
        features = g.normal(size=(PROMPTS, RESPONSES, FEATURES))
        truth = g.normal(size=FEATURES)
        truth *= np.sqrt(FEATURES) / np.linalg.norm(truth)
        self.utility, self.features = features @ truth, torch.tensor(features)
        start = 0.6 * truth + g.normal(size=FEATURES)
        self.theta = torch.tensor(0.3 * start, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.theta], lr=0.05)
        self.black: list[float] = []
        self.white: list[float] = []
        self.agreed: list[float] = []
        self.pool_accuracy: list[float] = []
        pool = Demonstrations([Demonstration("given", ("right", "wrong"))], 9)
        judge = NoisyJudge(self.utility, 100 + seed)
        for _ in range(CYCLES):
            self.cycle(judge, pool, dynamic, filtered)

    def cycle(self, judge: NoisyJudge, pool: Demonstrations, dynamic: bool, filtered: bool) -> None:
        prompts = [str(p) for p in range(PROMPTS) for _ in range(RESPONSES)]
        texts = [str(r) for _ in range(PROMPTS) for r in range(RESPONSES)]
        scores = np.array(GroupRanker(judge, RESPONSES, pool.text()).score(prompts, texts)).reshape(PROMPTS, -1)  # type: ignore[arg-type]
        likely = (self.features @ self.theta).detach().numpy()
        whole = [np.argsort(-row).tolist() for row in scores]
        common = [agreement(row, own) for row, own in zip(scores, likely)]
        entering = [(p, order) for p, order in enumerate(common if filtered else whole) if len(order) >= 5]
        if dynamic:
            pool.add(Demonstration(str(p), tuple(map(str, order))) for p, order in entering)
        self.black.append(self.right(enumerate(whole)))
        self.agreed.append(self.right((p, order) for p, order in enumerate(common) if len(order) >= 5))
        self.pool_accuracy.append(self.right(entering))
        self.learn(torch.tensor(scores))
        self.white.append(
            self.right(enumerate(np.argsort(-(self.features @ self.theta).detach().numpy()).tolist()))
        )

    def right(self, orders: Any) -> float:
        return float(np.mean([ok for p, order in orders for ok in accuracy(order, self.utility[p])]))

    def learn(self, scores: torch.Tensor) -> None:
        objective = get_objective("pro", alpha=0.01, temperatures=False)
        ones = torch.ones_like(scores)
        for _ in range(10):
            logps = (self.features @ self.theta).log_softmax(-1)
            loss = objective(ListLogps(logps, ones, ones.bool(), scores)).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


@cache
def run(seed: int, dynamic: bool = True, filtered: bool = True) -> Run:
    return Run(seed, dynamic, filtered)


def mean(name: str, cycle: int, **how: bool) -> float:
    return float(np.mean([getattr(run(seed, **how), name)[cycle] for seed in SEEDS]))


def test_what_both_agree_on_is_right_more_often_than_the_judge_alone():
    shown = [(round(mean("agreed", c), 3), round(mean("black", c), 3)) for c in range(CYCLES)]
    print(f"agreed, judge by cycle: {shown}")
    assert all(mean("agreed", c) >= mean("black", c) + 0.10 for c in range(EARLY))


def test_the_judge_gets_better_with_demonstrations_and_stays_as_it_was_without():
    assert mean("black", 0) < 0.75
    assert mean("black", 5) >= 0.84
    assert all(
        abs(mean("black", c, dynamic=False) - mean("black", 0, dynamic=False)) < 0.05 for c in range(CYCLES)
    )


def test_the_policy_ends_up_right_and_no_worse_than_with_a_judge_that_stands_still():
    print(f"policy: {mean('white', -1):.3f}, static {mean('white', -1, dynamic=False):.3f}")
    assert mean("white", 0) < mean("white", -1) - 0.05
    assert mean("white", -1) >= 0.95
    assert mean("white", -1) >= mean("white", -1, dynamic=False)


def test_the_judges_rankings_as_they_are_make_a_worse_pool():
    ours = np.mean([np.mean(run(seed).pool_accuracy[:EARLY]) for seed in SEEDS])
    raw = np.mean([np.mean(run(seed, filtered=False).pool_accuracy[:EARLY]) for seed in SEEDS])
    print(f"accuracy of the pool: agreed {ours:.3f}, raw {raw:.3f}")
    assert raw <= ours - 0.08


@pytest.mark.parametrize("seed", range(20))
def test_agreement_is_the_longest_common_subsequence(seed):
    g = np.random.default_rng(seed)
    one, other = g.permutation(7), g.permutation(7)
    orders = [np.argsort(-row).tolist() for row in (one, other)]

    def within(some: tuple[int, ...], order: list[int]) -> bool:
        places = [order.index(i) for i in some]
        return places == sorted(places)

    longest = max(k for k in range(1, 8) if any(within(s, orders[1]) for s in combinations(orders[0], k)))
    found = tuple(agreement(one.tolist(), other.tolist()))
    assert len(found) == longest and within(found, orders[0]) and within(found, orders[1])
