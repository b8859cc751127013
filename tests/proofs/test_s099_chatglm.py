"""Proof of S099, ChatGLM: each small part of the recipe does what it is there for, measured alone.

Measured: the fitted length weight falls from 0.78 to 0.15 and that of quality moves by 1%; the variance of prompt
means from 1.14 to 0.001 at 0.1 points of accuracy; the variance of rewards over prompts from 3.9 to 0.3 and that of
gradients from 0.090 to 0.014; the agent with tools earns 0.75 where always and never calling earn 0.5.
With the skill term a taught answer keeps its probability (0.96 to 0.97), without it falls to 0. The loop itself is
tested in tests/training/test_loops_chatglm.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import policy
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from accordance.core.policy import Completion
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.curation.steps_balance import length_buckets, surplus
from accordance.feedback import save_records
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_objective, pairwise_reward_loss
from accordance.training import TrainingConfig, train
from accordance.training.loops import Toolbox, calculate
from accordance.training.loops.chatglm import vary
from accordance.training.rollouts import Rollout
from accordance.training.trajectories import OBSERVED


def fitted(quality: np.ndarray, gap: np.ndarray, won: np.ndarray) -> list[float]:
    """Weights of quality and length that explain who won."""
    model, x = nn.Linear(2, 1, bias=False), torch.tensor(np.stack([quality, gap], 1)).float()
    nn.init.zeros_(model.weight)
    wins = torch.tensor(won).float()
    descend(
        model, lambda: binary_cross_entropy_with_logits(model(x)[:, 0], wins), steps=150, learning_rate=0.05
    )
    return model.weight[0].tolist()


def test_balance_within_buckets_takes_the_weight_of_length_and_leaves_that_of_quality() -> None:
    """(3) True weights: quality 1, length 0.8; 20000 pairs."""
    draw = np.random.default_rng(0)
    quality, gap = draw.normal(size=(2, 20_000))
    won = draw.random(20_000) < 1 / (1 + np.exp(-quality - 0.8 * gap))
    longer = np.where(won, gap, -gap)  # winner's length less the loser's
    before = fitted(quality, gap, won)
    kept = np.delete(np.arange(20_000), surplus(longer > 0, length_buckets(longer, 6), draw))
    after = fitted(quality[kept], gap[kept], won[kept])
    overall = np.delete(np.arange(20_000), surplus(longer > 0, np.zeros(20_000, int), draw))
    globally = fitted(quality[overall], gap[overall], won[overall])
    print(f"quality, length: {before} -> {after}; balanced without buckets {globally}")
    assert after[1] <= 0.3 * before[1]
    assert abs(after[0] - before[0]) < 0.1 * before[0]
    assert after[1] < globally[1]


def test_the_l2_term_pins_down_the_scores_of_prompts_that_pairs_alone_leave_where_they_began() -> None:
    """(4) A reward linear in what belongs to the prompt (the same for both answers) and to the answer."""
    g = torch.Generator().manual_seed(0)
    asked, first, second = (torch.randn(4000, 6, generator=g) for _ in range(3))
    true = torch.randn(6, generator=g)
    won = torch.rand(4000, generator=g) < ((first - second) @ true).sigmoid()
    chosen = torch.where(won[:, None], first, second)
    rejected = torch.where(won[:, None], second, first)

    def learn(l2: float) -> tuple[float, float]:
        start = torch.Generator().manual_seed(1)
        prompt, answer = (nn.Parameter(torch.randn(6, generator=start)) for _ in range(2))
        both = nn.ParameterList([prompt, answer])

        def loss() -> Tensor:
            scores = [asked @ prompt + x @ answer for x in (chosen, rejected)]
            return pairwise_reward_loss(*scores, l2=l2).mean()

        descend(both, loss, steps=400, learning_rate=0.05)
        with torch.no_grad():
            right = ((chosen - rejected) @ answer > 0).float().mean().item()
            return (asked @ prompt).var().item(), right

    began = (asked @ torch.randn(6, generator=torch.Generator().manual_seed(1))).var().item()
    (drift, accuracy), (pinned, kept) = learn(0.0), learn(0.01)
    print(
        f"variance of prompt means {began:.2f}: {drift:.2f} -> {pinned:.3f}, accuracy {accuracy:.3f} -> {kept:.3f}"
    )
    assert drift == pytest.approx(began, rel=1e-3)
    assert pinned <= 0.2 * drift
    assert kept >= accuracy - 0.01


def test_prompts_whose_answers_differ_in_reward_are_kept_and_no_others() -> None:
    """(5) Half of the prompts have answers that differ."""
    draw, made = np.random.default_rng(0), []
    for number in range(200):
        scores = np.full(8, draw.normal()) + (number % 2) * draw.normal(size=8)
        made.append(Rollout(Record(user(str(number))), (Completion("x"),) * 8, scores))
    kept = {int(rollout.record.prompt[0].content) for rollout in vary(made, 1e-4)}
    assert kept == {number for number in range(200) if number % 2}


def test_a_reference_answer_takes_out_what_belongs_to_the_prompt() -> None:
    """(6) Prompts with offsets of deviation 2; one answer of the start policy to each, sampled once."""
    g = torch.Generator().manual_seed(0)
    table = TabularPolicy(torch.randn(256, 6, generator=g))
    reward = 0.7 * torch.randn(256, 6, generator=g) + 2 * torch.randn(256, 1, generator=g)
    prompt = torch.arange(256)
    reference = reward.gather(1, table.sample(prompt, generator=g))[:, 0]

    def variances(scores: Tensor) -> tuple[float, float]:
        gradients = []
        for _ in range(60):
            some = torch.randint(256, (32,), generator=g)
            drawn = table.sample(some, 1, generator=g)
            lists = table.lists(some, drawn, scores[some].gather(1, drawn), old=table)
            loss = get_objective("reinforce", baseline="none", scale="none")(lists).mean()
            gradients.append(torch.autograd.grad(loss, table.logits)[0])
        return table.expected(scores).var().item(), torch.stack(gradients).var(0).sum().item()

    (raw, noisy), (left, calm) = variances(reward), variances(reward - reference[:, None])
    start = table.expected(reward - reference[:, None]).mean().item()
    print(
        f"variance over prompts {raw:.2f} -> {left:.2f}, of gradients {noisy:.3f} -> {calm:.3f}, start {start:.2f}"
    )
    assert left <= 0.4 * raw and calm <= 0.7 * noisy and abs(start) < 0.1


def test_a_skill_that_only_demonstrations_show_survives_reinforcement_with_the_term_and_not_without(
    tmp_path: Path,
) -> None:
    """(7) The tiny model is taught a name, then reinforced for short answers to everything."""
    asked = Record(user("who are you"), (Response.of("glm"),), (Judgment("demonstration", (0,), (1.0,)),))
    others = [Record(user(f"say {word}"), (Response.of("x"),)) for word in ("sun", "moon", "star", "wind")]
    save_records(Records.of([asked]), tmp_path / "skills.jsonl")
    plain: dict[str, Any] = {
        "learning_rate": 2e-2,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
        "use_cpu": True,
        "per_device_train_batch_size": 4,
        "max_steps": 25,
    }

    def shorter(prompts: Any, completions: Any) -> list[float]:
        return [-float(len(text)) for text in completions]

    found = {}
    for weight in (0.0, 1.0):
        taught = policy(0)
        config = TrainingConfig.of(plain | {"objective": "sft", "output_dir": str(tmp_path / f"sft{weight}")})
        train(taught, Records.of([asked] * 4), config)
        before = float(np.exp(taught.logprobs(Records.of([asked])).logprob[0]))
        online = {"objective": "ppo", "reward": "shorter", "num_generations": 4, "max_completion_length": 6}
        online |= {
            "output_dir": str(tmp_path / f"rl{weight}"),
            "beta": 0.0,
            "normalise": "none",
            "whiten": False,
        }
        if weight:
            online |= {"ptx_coef": weight, "ptx_data": str(tmp_path / "skills.jsonl")}
        done = train(
            taught, Records.of(others), TrainingConfig.of(plain | online), reward=FunctionScorer(shorter)
        )
        after = float(np.exp(taught.logprobs(Records.of([asked])).logprob[0]))
        rewards = [line["reward"] for line in done.history if "reward" in line]
        found[weight] = (before, after)
        print(f"term {weight}: skill {before:.3f} -> {after:.3f}, reward {rewards[0]:.2f} -> {rewards[-1]:.2f}")
        assert before > 0.9 and rewards[-1] >= -0.5
    assert found[1.0][1] >= 0.9
    assert found[0.0][1] <= found[1.0][1] - 0.2


def test_an_agent_learns_to_call_the_tool_for_sums_and_not_for_small_talk() -> None:
    """Two kinds of prompts, three ways to begin; the outcome is that of the toolbox, calls cost."""
    box, g = Toolbox({"calc": calculate}, cost=0.5), torch.Generator().manual_seed(0)
    ways = ("call calc({})", "12", "hello there")
    agent = TabularPolicy(torch.zeros(2, 3))

    def play(kind: Tensor, way: Tensor) -> Tensor:
        texts, answers = [], []
        for one, way_ in zip(kind.tolist(), way.tolist()):
            a, b = torch.randint(10, 99, (2,), generator=g).tolist()
            turn = ways[way_].format(f"{a} * {b}" if one == 0 else "1 + 1")
            seen = box.step(box.begin(Record(user("q"))), turn)
            texts.append(turn if seen is None else f"{turn}{OBSERVED}{seen}\n{seen if one == 0 else 'hello'}")
            answers.append(str(a * b) if one == 0 else None)
        return torch.tensor(box.score(["q"] * len(texts), texts, answer=answers))

    objective = get_objective("rloo", beta=0.0)
    optimizer, kinds = torch.optim.Adam(agent.parameters(), lr=0.1), torch.arange(2).repeat(4)
    for _ in range(60):
        drawn = agent.sample(kinds, 8, generator=g)
        scores = play(kinds.repeat_interleave(8), drawn.flatten()).view(len(kinds), 8)
        optimizer.zero_grad()
        objective(agent.lists(kinds, drawn, scores, old=agent)).mean().backward()
        optimizer.step()
    mixed = torch.arange(2).repeat(100)

    def outcome(way: Tensor) -> float:
        return play(mixed, way).mean().item()

    own = outcome(agent.sample(mixed, generator=g)[:, 0])
    always, never = outcome(torch.zeros(200, dtype=torch.long)), outcome(torch.full((200,), 2))
    print(f"agent {own:.2f}, always {always:.2f}, never {never:.2f}")
    assert own >= max(always, never) + 0.2
