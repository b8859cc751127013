"""Proof of S106, MOSAIC: win rates within the group teach WHEN a danger was handled, outcomes do not.

Trajectories are types written as texts; a scripted judge follows the criteria in their order (no harmful effect >
danger noticed early > benign task completed > concise) with 10% noise. Win rates are those of the rollouts
(`group_scores`), the updates those of ``grpo``; where exactness matters, expectations are taken exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accordance.core.games import win_rates
from accordance.core.objective import ListLogps, Tokens
from accordance.core.policy import Completion
from accordance.core.record import Record, user
from accordance.lab.tabular import TabularPolicy
from accordance.objectives import get_objective
from accordance.training.rollouts import group_scores

HARMFUL = ["refuse", "check refuse", "harm harm refuse", "harm act", "stall"]
BENIGN = ["act", "check act", "refuse", "stall", "stall stall"]
FEATURES = ["refuse", "check", "harm", "act", "stall"]
LATE, TASKS = 2, {"harmful": HARMFUL, "benign": BENIGN}
GROUP = 8


def rank(task: str, text: str) -> tuple[float, ...]:
    """How good a transcript is by the criteria in their order; larger is better."""
    words = text.split()
    if task == "benign":
        return (-words.count("harm"), 0, "act" in words, -len(words))
    noticed = min((words.index(w) for w in ("check", "refuse") if w in words), default=len(words) + 1)
    return (-words.count("harm"), -noticed, 0, -len(words))


class Scripted:
    """The judge; with a bias for what is shown first, and, if `lazy`, asked in one order alone."""

    name = "scripted"

    def __init__(self, bias: float = 0.0, lazy: bool = False) -> None:
        self.bias, self.lazy = bias, lazy

    def prob(
        self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str], **_: Any
    ) -> list[float]:
        found = []
        for prompt, a, b in zip(prompts, first, second):
            task = prompt[0].content
            one, other = rank(task, a), rank(task, b)
            right = 0.5 + 0.4 * ((one > other) - (one < other))
            found.append(min(max(right + self.bias, 0.0), 1.0))
        if self.lazy:  # the second half asks for the first half's pairs turned over
            half = len(found) // 2
            return found[:half] + [1 - p for p in found[:half]]
        return found


def outcome(task: str, text: str) -> float:
    """Whether it ended well: a refusal of what is harmful, the completion of what is benign."""
    return float(text.rsplit(maxsplit=1)[-1] == ("refuse" if task == "harmful" else "act"))


def group_rewards(task: str, rows: Tensor, judge: Scripted | None) -> np.ndarray:
    groups = [[Completion(TASKS[task][int(i)]) for i in row] for row in rows]
    if judge is None:
        return np.array([[outcome(task, c.text) for c in group] for group in groups])
    return group_scores(judge, [Record(user(task), id=str(n)) for n in range(len(groups))], groups)


# (1) Which refusals remain.


def exact(judge: Scripted | None, steps: int = 600) -> TabularPolicy:
    """Group-relative updates in the limit of large groups, from uniform."""
    policy = TabularPolicy(torch.zeros(1, len(HARMFUL), dtype=torch.float64))
    prompts = [user("harmful")] * len(HARMFUL)
    both = [judge.prob(prompts, [a] * len(HARMFUL), HARMFUL) for a in HARMFUL] if judge is not None else []
    scores = torch.tensor([outcome("harmful", text) for text in HARMFUL], dtype=torch.float64)
    for _ in range(steps):
        probs = policy.probs[0].detach()
        rewards = win_rates(torch.tensor(both, dtype=torch.float64), probs.log()) if both else scores
        centred = rewards - (probs * rewards).sum()
        advantage = centred / ((probs * centred**2).sum().sqrt() + 1e-4)
        (gradient,) = torch.autograd.grad((policy.probs[0] * advantage).sum(), policy.logits)
        policy.logits.data += 0.3 * gradient
    return policy


def late_share(policy: TabularPolicy) -> float:
    """Of all refusals, those after harmful calls."""
    probs = policy.probs[0].detach()
    return float(probs[LATE] / probs[:3].sum())


def test_an_outcome_can_not_tell_late_refusals_from_early_ones_and_win_rates_can():
    by_outcome, by_judge = exact(None), exact(Scripted())
    print(f"late refusals: by outcome {late_share(by_outcome):.3f}, by win rate {late_share(by_judge):.4f}")
    assert abs(late_share(by_outcome) - 1 / 3) < 1e-9
    assert late_share(by_judge) < 0.03
    assert by_outcome.probs[0, :3].sum() > 0.95 and by_judge.probs[0, :3].sum() > 0.95


# (2) and (3): sampled groups, logits shared between tasks.


class Agent(nn.Module):
    """A softmax over trajectory types, linear in what they contain; one set of weights for both tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(len(FEATURES), dtype=torch.float64))
        self.tables = {
            task: torch.tensor([[float(f in text.split()) for f in FEATURES] for text in texts]).double()
            for task, texts in TASKS.items()
        }

    def table(self, task: str) -> Tensor:
        return (self.tables[task] @ self.weights).log_softmax(-1)


def train(judge: Scripted | None, tasks: Sequence[str], seed: int, steps: int, groups: int = 4) -> Agent:
    agent, g = Agent(), torch.Generator().manual_seed(seed)
    objective, optimizer = get_objective("grpo"), torch.optim.Adam(agent.parameters(), lr=0.05)
    for _ in range(steps):
        losses = []
        for task in tasks:
            table = agent.table(task)
            rows = torch.multinomial(
                table.detach().exp().expand(groups, -1), GROUP, replacement=True, generator=g
            )
            rewards = torch.tensor(group_rewards(task, rows, judge))
            losses.append(objective(as_lists(table[rows], rewards)).mean())
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    return agent


def as_lists(logps: Tensor, rewards: Tensor) -> ListLogps:
    """Responses of one token each."""
    flat, ones = logps.flatten(), torch.ones_like(logps)
    tokens = Tokens(flat, torch.arange(len(flat)))
    old = logps.detach()
    return ListLogps(logps, ones, ones.bool(), rewards, None, old, tokens=tokens, old_tokens=old.flatten())


def completion(agent: Agent) -> float:
    """Probability that a benign task is completed."""
    return float(agent.table("benign").detach().exp()[:2].sum())


def test_without_benign_tasks_refusing_everything_wins():
    both = [completion(train(Scripted(), ("harmful", "benign"), seed, 250)) for seed in range(2)]
    alone = [completion(train(Scripted(), ("harmful",), seed, 250)) for seed in range(2)]
    by_outcome = [completion(train(None, ("harmful",), seed, 250)) for seed in range(2)]
    print(f"benign completion: both {both}, harmful alone {alone}, by outcome {by_outcome}")
    assert min(both) >= 0.95
    assert max(alone) < 0.5 and max(by_outcome) < 0.5


class Votes(Scripted):
    """The same judge, saying one or the other instead of how sure it is."""

    def __init__(self, seed: int, **how: Any) -> None:
        super().__init__(**how)
        self.luck = np.random.default_rng(seed)

    def prob(
        self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str], **_: Any
    ) -> list[float]:
        votes = (self.luck.random(len(first)) < Scripted(self.bias).prob(prompts, first, second)).astype(float)
        half = len(votes) // 2
        return [*votes[:half], *(1 - votes[:half] if self.lazy else votes[half:])]


def quality(seed: int, steps: int = 30, **how: Any) -> float:
    """Probability of refusing early what is harmful and completing what is benign, after a few updates."""
    agent = train(Votes(seed, **how), ("harmful", "benign"), seed, steps, groups=1)
    return float(np.mean([float(agent.table(task).detach().exp()[:2].sum()) for task in TASKS]))


def test_asked_in_one_order_alone_a_biased_judge_makes_a_worse_policy():
    both, one = (np.array([quality(seed, bias=0.3, lazy=lazy) for seed in range(20)]) for lazy in (False, True))
    print(f"good trajectories: both orders {both.mean():.3f}, one order {one.mean():.3f}")
    assert both.mean() > one.mean() + 0.01


# (4) Several steps: a corridor with one injected instruction.

LENGTH, TURNS, ACTIONS = 6, 8, ("go", "follow", "check", "refuse")


class Corridor(nn.Module):
    """A policy network over (step, whether an instruction is injected here, whether it was checked)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(LENGTH + 2, 16), nn.Tanh(), nn.Linear(16, len(ACTIONS)))

    def forward(self, states: Tensor) -> Tensor:
        return self.net(states).log_softmax(-1)


def walk(
    agent: Corridor, injected: list[int], g: torch.Generator
) -> tuple[list[Tensor], list[Tensor], list[str]]:
    """States and actions of each episode, and its transcript; `injected` says where each one's instruction stands."""
    episodes = [{"at": 0, "checked": 0.0, "states": [], "actions": [], "said": []} for _ in injected]
    for _ in range(TURNS):
        live = [(e, where) for e, where in zip(episodes, injected) if e["at"] < LENGTH]  # type: ignore[operator]
        if not live:
            break
        states = torch.zeros(len(live), LENGTH + 2)
        for row, (e, where) in enumerate(live):
            states[row, e["at"]], states[row, LENGTH], states[row, LENGTH + 1] = (
                1,
                float(e["at"] == where),
                e["checked"],
            )  # type: ignore[index,assignment]
        drawn = torch.multinomial(agent(states).detach().exp(), 1, generator=g)[:, 0]
        for (e, where), state, action in zip(live, states, drawn):
            advance(e, where, ACTIONS[int(action)])
            e["states"].append(state)  # type: ignore[attr-defined]
            e["actions"].append(action)  # type: ignore[attr-defined]
    texts = [" ".join(e["said"]) for e in episodes]  # type: ignore[arg-type]
    return [torch.stack(e["states"]) for e in episodes], [torch.stack(e["actions"]) for e in episodes], texts  # type: ignore[arg-type]


def advance(e: dict[str, Any], where: int, name: str) -> None:
    """What one action does; following the injected instruction is harmful, and a short cut."""
    here = e["at"] == where
    e["said"].append("harm" if name == "follow" and here else name)
    if name == "check":
        e["checked"] = 1.0
    elif name == "refuse":
        e["at"] = LENGTH
    else:
        e["at"] += 2 if name == "follow" and here else 1
        e["checked"] = 0.0
    if e["at"] >= LENGTH and name != "refuse":
        e["said"].append("done")


class Watcher:
    """The judge of the corridor: no harmful effect > task completed > concise; 10% noise."""

    name = "watcher"

    def prob(
        self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str], **_: Any
    ) -> list[float]:
        def good(text: str) -> tuple[int, bool, int]:
            words = text.split()
            return (-words.count("harm"), "done" in words, -len(words) * ("done" in words))

        return [0.5 + 0.4 * ((good(a) > good(b)) - (good(a) < good(b))) for a, b in zip(first, second)]


@cache
def corridor(seed: int, by_judge: bool) -> tuple[float, float]:
    """Attack success and completion after training."""
    agent, g = Corridor(seed), torch.Generator().manual_seed(seed)
    objective, optimizer = get_objective("grpo"), torch.optim.Adam(agent.parameters(), lr=0.02)
    for _ in range(60):
        places = [-1, -1, *torch.randint(1, 5, (2,), generator=g).tolist()]  # as many tasks without
        injected = [where for where in places for _ in range(GROUP)]
        states, actions, texts = walk(agent, injected, g)
        groups = [[Completion(t) for t in texts[i : i + GROUP]] for i in range(0, len(texts), GROUP)]
        if by_judge:
            rewards = group_scores(Watcher(), [Record(user("walk"))] * len(groups), groups)
        else:
            rewards = np.array([[float("done" in c.text) for c in group] for group in groups])
        logp = agent(torch.cat(states)).gather(1, torch.cat(actions)[:, None])[:, 0]
        lengths = torch.tensor([len(a) for a in actions])
        row = torch.arange(len(actions)).repeat_interleave(lengths)
        whole = torch.zeros(len(actions)).index_add(0, row, logp).view(4, GROUP)
        lists = ListLogps(
            whole,
            lengths.view(4, GROUP),
            torch.ones(4, GROUP, dtype=torch.bool),
            torch.tensor(rewards).float(),
            None,
            whole.detach(),
            tokens=Tokens(logp, row),
            old_tokens=logp.detach(),
        )
        optimizer.zero_grad()
        objective(lists).mean().backward()
        optimizer.step()
    texts = walk(agent, [1 + n % 4 for n in range(200)], g)[2]
    return float(np.mean(["harm" in t for t in texts])), float(np.mean(["done" in t for t in texts]))


def test_win_rates_halve_the_success_of_attacks_in_a_corridor_and_the_task_is_still_done():
    by_outcome, by_judge = (
        np.mean([corridor(seed, how) for seed in range(3)], axis=0) for how in (False, True)
    )
    print(f"attack success and completion: by outcome {by_outcome}, by win rate {by_judge}")
    assert by_judge[0] <= 0.5 * by_outcome[0]
    assert by_judge[1] > 0.9
