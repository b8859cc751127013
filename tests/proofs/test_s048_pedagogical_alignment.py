"""Proof of S048, pedagogical alignment: preferring the scaffold to the answer teaches tutoring that imitation alone
does not, and students learn more from it.

Arithmetic word problems of eight families in two or three steps, a scripted student with types of errors, a tabular
tutor that starts by mostly handing over the answer. Training and test problems differ in their numbers.

As in the paper, DPO stands on top of a short imitation. In a table, where probability has nowhere else to go, imitating
for as many updates as both together aligns as well; what imitation can't do is said by the test on unmentioned turns.
"""

from __future__ import annotations

import random
from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.curation.tutoring import (
    Action,
    Evaluation,
    Problem,
    State,
    Step,
    Student,
    Tutor,
    alignment_rate,
    leaks,
    perplexity_gap,
    tutoring_pairs,
)
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_objective

ACTIONS, EVALUATIONS = get_args(Action), get_args(Evaluation)
DIRECT, FAMILIES, FAILURES = len(ACTIONS), 8, 5
ROWS = FAMILIES * len(EVALUATIONS) * FAILURES
IMITATE, PREFER, RATE, BETA = 8, 80, 20.0, 1.0


def problem(number: int) -> Problem:
    rng, family = random.Random(number), number % FAMILIES
    a, b, c = (rng.randint(2, 30) for _ in range(3))
    steps = [
        Step(
            f"How much is {a} and {b}?",
            str(a + b),
            (f"Start from {a}.", f"Count {b} on from {a}."),
            (str(a + b + 1),),
        )
    ]
    if family % 2:
        steps.append(
            Step(
                f"And that and {c}?", str(a + b + c), ("Use what you found.", f"Add {c} to {a + b}."), (str(c),)
            )
        )
    total = a + b + c * (family % 2)
    return Problem(f"Family {family}: {a} apples, then {b}, then {c}.", str(total), tuple(steps), f"{number}")


def row(family: int, evaluation: str, failures: int) -> int:
    return (family * len(EVALUATIONS) + EVALUATIONS.index(evaluation)) * FAILURES + min(failures, FAILURES - 1)


@cache
def pairs(held_out: bool = False) -> list[tuple[int, int, int]]:
    """(row, chosen, rejected) as a tabular tutor sees them."""
    first = 1000 if held_out else 0
    records = tutoring_pairs([problem(first + i) for i in range(160)], seed=1 + held_out, dialogues=3)
    return [
        (
            row(int(r.extras["problem"]) % FAMILIES, r.extras["evaluation"], r.extras["failures"]),
            ACTIONS.index(r.extras["action"]),
            DIRECT if r.extras["rejected_action"] is None else ACTIONS.index(r.extras["rejected_action"]),
        )
        for r in records
    ]


def start(seed: int) -> TabularPolicy:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, len(ACTIONS) + 1, generator=g, dtype=torch.float64)
    logits[:, DIRECT] += 1.5  # a base model that has seen many direct answers
    return TabularPolicy(logits)


@cache
def tutors(seed: int, swap: bool = False) -> dict[str, TabularPolicy]:
    """The start, imitation, and DPO on top of it."""
    prompt, chosen, rejected = (torch.tensor(c) for c in zip(*pairs()))
    chosen, rejected = (rejected, chosen) if swap else (chosen, rejected)
    sft, dpo = get_objective("sft"), get_objective("dpo", beta=BETA)

    def imitate(policy: TabularPolicy, steps: int) -> TabularPolicy:
        loss = lambda: sft(policy.single(prompt, chosen)).mean()  # noqa: E731
        descend(policy, loss, steps=steps, learning_rate=RATE, method="gradient")
        return policy

    half = imitate(start(seed), IMITATE)
    ref = half.frozen()
    loss = lambda: dpo(half.pairs(prompt, chosen, rejected, ref=ref)).mean()  # noqa: E731
    descend(half, loss, steps=PREFER, learning_rate=RATE, method="gradient")
    return {"base": start(seed), "sft": ref, "dpo": half}


def rate(policy: TabularPolicy) -> float:
    logp, ones = policy.log_probs.detach(), np.ones(len(pairs(True)), dtype=int)
    direct, wanted = (
        [float(logp[r, k]) for r, k in ks]
        for ks in ([(r, DIRECT) for r, *_ in pairs(True)], [p[:2] for p in pairs(True)])
    )
    return alignment_rate(perplexity_gap(direct, ones, wanted, ones)).estimate


def leak(policy: TabularPolicy) -> float:
    return float(np.mean([policy.probs[r, DIRECT].item() for r, *_ in pairs(True)]))


def macro_f1(policy: TabularPolicy) -> float:
    found = policy.log_probs.argmax(1)
    said, truth = np.array([int(found[r]) for r, *_ in pairs(True)]), np.array([k for _, k, _ in pairs(True)])
    hit = [
        2 * ((said == k) & (truth == k)).sum() / ((said == k).sum() + (truth == k).sum())
        for k in set(truth.tolist())
    ]
    return float(np.mean(hit))


def success(policy: TabularPolicy, seed: int = 0, turns: int = 8) -> float:
    """Share of held-out problems that the student solves by itself; an answer handed over is no success."""
    solved, tutor, student, rng = 0, Tutor(), Student(), random.Random(seed)
    probs = policy.probs.detach().numpy()
    for number in range(1000, 1300):
        task, state = problem(number), State()
        for _ in range(turns):
            r = row(number % FAMILIES, state.evaluation, state.failures)
            k = rng.choices(range(DIRECT + 1), probs[r])[0]
            if k == DIRECT:
                break
            action = ACTIONS[k]
            last = state.step + 1 == len(task.steps)
            if last and state.evaluation == "correct" and action in ("finish", "next step"):
                solved += 1
                break
            state = tutor.after(task, state, action)
            _, evaluation = student.says(task, state, action, rng)
            state = State(state.step, state.failures + (evaluation != "correct"), evaluation)
    return solved / 300


@pytest.mark.parametrize("seed", range(2))
def test_preferences_align_the_tutor_further_than_imitation(seed):
    base, sft, dpo = (rate(tutors(seed)[k]) for k in ("base", "sft", "dpo"))
    assert base <= 0.4 and sft >= base + 0.1
    assert dpo >= sft + 0.1 and dpo >= 0.85


@pytest.mark.parametrize("seed", range(2))
def test_answers_leak_less_actions_fit_better_and_students_solve_more(seed):
    found = tutors(seed)
    assert leak(found["dpo"]) <= 0.5 * leak(found["sft"])
    assert macro_f1(found["dpo"]) >= macro_f1(found["sft"]) + 0.05
    assert success(found["dpo"]) >= success(found["base"]) + 0.1


def test_swapped_pairs_push_the_tutor_below_its_start():
    assert rate(tutors(0, swap=True)["dpo"]) < rate(tutors(0)["base"])


def test_imitation_leaves_two_unmentioned_turns_as_they_were_and_preferences_part_them():
    """Direct answer and a neutral turn, equally likely; the wanted turn is a third one."""
    prompt, wanted, direct, neutral = torch.zeros(1, dtype=torch.long), torch.tensor([2]), 0, 1

    def ratio(objective: str) -> float:
        policy = TabularPolicy(torch.zeros(1, 3, dtype=torch.float64))
        ref, loss = policy.frozen(), get_objective(objective)

        def value() -> torch.Tensor:
            if objective == "sft":
                return loss(policy.single(prompt, wanted)).mean()
            return loss(policy.pairs(prompt, wanted, torch.tensor([direct]), ref=ref)).mean()

        descend(policy, value, steps=100, learning_rate=0.1)
        return (policy.probs[0, direct] / policy.probs[0, neutral]).item()

    assert ratio("sft") == pytest.approx(1.0) and ratio("dpo") < 0.5


def test_pairs_are_balanced_chosen_never_leaks_and_rejected_has_its_fault():
    problems = [problem(i) for i in range(60)]
    records = tutoring_pairs(problems, seed=0)
    counts = [sum(r.extras["evaluation"] == e for r in records) for e in EVALUATIONS]
    assert len(set(counts)) == 1 and counts[0] > 10
    assert records.account.kept == len(records) and sum(records.account.dropped.values()) > 0
    by_id = {p.id: p for p in problems}
    for r in records:
        task = by_id[r.extras["problem"]]
        state = State(0, 0, "incorrect")
        if r.extras["fault"] == "gives the answer away":
            assert leaks(task, state, r.responses[1].text) and r.extras["rejected_action"] is None
        else:
            assert r.extras["rejected_action"] != r.extras["action"]
        if r.extras["action"] in ("first step", "hint", "redirect"):
            # Numbers of the problem may equal its answer by chance; the words of a direct answer never stand there.
            assert not r.responses[0].text.startswith(("The answer is", "It is"))
        assert r.responses[0].text != r.responses[1].text
    assert isinstance(records, Records)


def test_perplexity_is_per_token_and_what_makes_no_sense_is_refused():
    gap = perplexity_gap([-4.0], [2], [-6.0], [6])
    assert gap[0] == pytest.approx(
        2.0 - 1.0
    )  # log PPL 2 against 1: the long scaffold is the likelier per token
    with pytest.raises(DataError):
        perplexity_gap([-1.0], [0], [-1.0], [1])
    with pytest.raises(ConfigError):
        tutoring_pairs([])
    with pytest.raises(ConfigError):
        Tutor(smaller_after=3, reveal_after=2)
    with pytest.raises(DataError):
        Problem("p", "1", ())
