"""Proof of S170: a crowd grows trees and ranks their replies; one order comes out of many people's; pairs come out.

40 people of whom 10% rank upside down and all are noisy (15% of pairs turned); trees of a few messages.
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau

from accordance.core.views import pairs
from accordance.feedback.growing import Forest, Limits
from accordance.feedback.trees import (
    MessageTree,
    Node,
    load_trees,
    merge_rankings,
    ranking_records,
    split_trees,
)

PEOPLE, NOISE, REVERSED = 40, 0.15, 0.1


def ranking(size: int, person: int, g: np.random.Generator) -> list[int]:
    """How a person orders items whose true order is 0, 1, 2, ...: neighbouring pairs are turned, some reverse all."""
    felt = np.arange(size) + g.normal(scale=0.68, size=size)  # turns 15% of neighbouring pairs
    order = [int(i) for i in np.argsort(felt)]
    return order[::-1] if person < PEOPLE * REVERSED else order


def test_the_noise_is_what_it_says() -> None:
    g = np.random.default_rng(0)
    turned = [(o := ranking(5, 39, g)).index(i) > o.index(i + 1) for _ in range(2000) for i in range(4)]
    assert np.mean(turned) == pytest.approx(NOISE, abs=0.02)


def test_ranked_pairs_finds_the_order_that_single_people_miss() -> None:
    g = np.random.default_rng(1)
    merged, single = [], []
    for _ in range(200):
        size = int(g.integers(4, 7))
        orders = [ranking(size, person, g) for person in g.choice(PEOPLE, 9, replace=False)]
        order, _ = merge_rankings(orders, size)
        truth = np.arange(size)
        merged.append(kendalltau([order.index(i) for i in truth], truth).statistic)
        single += [kendalltau([o.index(i) for i in truth], truth).statistic for o in orders]
    assert np.mean(merged) >= 0.85, np.mean(merged)
    assert np.mean(merged) - np.mean(single) >= 0.15, (np.mean(merged), np.mean(single))


@pytest.mark.parametrize("names", list(permutations(range(3))))
def test_circles_are_broken_at_their_weakest_link_and_nowhere_else(names: tuple[int, int, int]) -> None:
    a, b, c = names  # whatever the items are called: a over b by 5, b over c by 3, c over a by 1; 3 below all
    orders = [[a, b, c, 3]] * 4 + [[b, c, a, 3]] * 2 + [[c, a, b, 3]] * 3
    order, wins = merge_rankings(orders, 4)
    margin = wins - wins.T
    assert (margin[a, b], margin[b, c], margin[c, a]) == (5, 3, 1), "the crowd goes round in circles"
    assert sorted(order) == [0, 1, 2, 3]
    kept = [(i, j) for i in range(4) for j in range(4) if margin[i, j] > 1]
    assert len(kept) == 5
    assert all(order.index(i) < order.index(j) for i, j in kept)


def grown(trees: int, seed: int) -> Forest:
    """A crowd at work: everybody takes what the scheduler gives, some write spam, some take tasks and never return."""
    g = np.random.default_rng(seed)
    limits = Limits(depth=4, children=3, size=10, reviews=3, rankings=3, growing=15)
    forest = Forest(limits, prompts=trees, seed=seed)
    worth: dict[int, float] = {}
    seen: dict[tuple[int, int], int] = {}
    for _ in range(200_000):
        person = int(g.integers(PEOPLE))
        task = forest.next_task(person)
        if task is None:
            if not any(s in ("initial_prompt_review", "growing", "ranking") for s in forest.states):
                break
            continue
        for message in () if task.message is None else (task.message, *task.replies):
            seen[person, message] = seen.get((person, message), 0) + 1
        if g.random() < 0.03:
            forest.give_up(task)
        elif task.kind == "label":
            assert task.message is not None
            spam = worth[task.message] < -1.6
            forest.label(
                task, {"spam": float(spam ^ (g.random() < 0.1)), "quality": expit(worth[task.message])}
            )
        elif task.kind == "rank":
            felt = {r: worth[r] + g.normal(scale=0.3) for r in task.replies}
            forest.rank(task, sorted(task.replies, key=lambda r: -felt[r]))
        else:
            number = forest.write(task, f"text {len(forest.messages)}")
            worth[number] = float(g.normal())
    assert max(seen.values()) == 1, "nobody had two tasks on one message"
    forest.worth = worth  # type: ignore[attr-defined]
    return forest


@pytest.fixture(scope="module")
def forest() -> Forest:
    return grown(100, 2)


def test_trees_reach_export_within_their_limits(forest: Forest) -> None:
    ready = sum(state == "ready_for_export" for state in forest.states)
    begun = sum(state != "aborted_low_grade" for state in forest.states)
    assert ready >= 0.95 * begun and ready >= 95, forest.states
    assert any(state == "aborted_low_grade" for state in forest.states), (
        "spam was never sent, so nothing was tested"
    )
    for tree in forest.export():
        nodes = list(tree.root.walk())
        assert 2 <= len(nodes) <= forest.limits.size
        assert all(len(node.replies) <= forest.limits.children for node in nodes)
        assert all(len(path) <= forest.limits.depth for path in tree.threads())
        assert all(node.accepted and node.labels["spam"] <= 0.5 for node in nodes)


def test_pairs_are_counted_right_and_rank_by_worth(forest: Forest) -> None:
    trees = forest.export()
    asked = [node for tree in trees for node in tree.root.walk() if node.role == "user"]
    sizes = [sum(reply.rank is not None for reply in node.replies) for node in asked]
    made = pairs(ranking_records(trees))
    assert len(made) == sum(k * (k - 1) // 2 for k in sizes) > 200
    worth = forest.worth  # type: ignore[attr-defined]
    right = [
        worth[int(a.id)] > worth[int(b.id)]
        for tree in trees
        for _, replies in tree.ranked()
        for a, b in combinations(replies, 2)
    ]
    assert np.mean(right) > 0.9


def written(count: int, seed: int) -> list[MessageTree]:
    """Trees of one prompt and five replies with flat rows; a reply's features say part of its worth."""
    g = np.random.default_rng(seed)
    rows = []
    for t in range(count):
        worth = g.normal(size=5)
        rows.append({"message_id": f"{t}", "parent_id": None, "text": "q", "role": "prompter",
                     "message_tree_id": f"{t}"})  # fmt: skip
        for place, i in enumerate(np.argsort(-worth)):
            style = " ".join(f"{x:.3f}" for x in np.append(worth[i] + g.normal(scale=0.45), g.normal(size=7)))
            rows.append({"message_id": f"{t}-{i}", "parent_id": f"{t}", "text": style, "role": "assistant",
                         "rank": place, "message_tree_id": f"{t}"})  # fmt: skip
    return load_trees(rows)


def reward_accuracy(train: list[tuple[Node, Node]], test: list[tuple[Node, Node]]) -> float:
    """Log-sigmoid loss on pairs over a text's numbers and the text itself (what a large model could remember)."""
    names = {n.id: i for i, n in enumerate({n.id: n for p in (*train, *test) for n in p}.values())}

    def row(pair: tuple[Node, Node]) -> np.ndarray:
        x = np.zeros(8 + len(names))
        x[:8] = np.subtract(*[np.array(n.text.split(), float) for n in pair])
        x[8 + names[pair[0].id]], x[8 + names[pair[1].id]] = 1.0, -1.0
        return x

    x, weights = np.array([row(p) for p in train]), np.zeros(8 + len(names))
    for _ in range(300):
        weights += 0.5 * (x.T @ expit(-(x @ weights)) / len(x) * 8 - 0.002 * weights)
    return float(np.mean(np.array([row(p) for p in test]) @ weights > 0))


def test_a_reward_holds_on_new_trees_and_a_split_by_message_flatters_it() -> None:
    trees = written(120, 3)
    couples = lambda some: [p for t in some for _, r in t.ranked() for p in combinations(r, 2)]  # noqa: E731
    rest, held_out = split_trees(trees, 0.3, seed=1)
    honest = reward_accuracy(couples(rest), couples(held_out))
    g = np.random.default_rng(4)
    every = couples(trees)
    places = g.permutation(len(every))
    cut = int(0.7 * len(every))
    leaky = reward_accuracy([every[i] for i in places[:cut]], [every[i] for i in places[cut:]])
    assert honest >= 0.75, honest
    assert leaky - honest >= 0.02, (leaky, honest)
