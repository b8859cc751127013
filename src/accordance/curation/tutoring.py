"""Pedagogical alignment: a tutor's turns that scaffold, against turns that hand over the answer or misjudge."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Message, Record, Records, Response
from accordance.core.stats import Interval, proportion

#: What the student's last turn was.
Evaluation = Literal["correct", "partially correct", "incorrect", "off topic", "asks for the answer", "none"]
#: What the tutor does about it.
Action = Literal["first step", "next step", "hint", "smaller hint", "reveal the step", "redirect", "finish"]
#: What is wrong with a turn that is not preferred.
Fault = Literal["gives the answer away", "misjudges the student", "takes the wrong action"]


@dataclass(frozen=True)
class Step:
    """A part of a problem: what is asked, its answer, hints from large to small, and what goes wrong."""

    question: str
    answer: str
    hints: tuple[str, ...]
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A problem, its final answer, and the steps to it."""

    text: str
    answer: str
    steps: tuple[Step, ...]
    id: str = ""

    def __post_init__(self) -> None:
        if not self.steps or any(not step.hints for step in self.steps):
            raise DataError("a tutor needs steps, and a hint for each", where=self.id or self.text)


@dataclass(frozen=True)
class State:
    """Where a dialogue stands: which step, how often it was tried in vain, and what the student's last turn was."""

    step: int = 0
    failures: int = 0
    evaluation: Evaluation = "none"


@dataclass(frozen=True)
class Tutor:
    """The state machine of a tutor.

    Attributes:
        smaller_after: vain tries after which the hint gets smaller.
        reveal_after: vain tries after which the step's answer is told; more than `smaller_after`.
    """

    smaller_after: int = 1
    reveal_after: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.smaller_after < self.reveal_after:
            raise ConfigError("hints get smaller before the step is told", found=self)

    def action(self, problem: Problem, state: State) -> Action:
        """What to do, by what the student just did."""
        if state.evaluation == "none":
            return "first step"
        if state.evaluation == "correct":
            return "finish" if state.step + 1 == len(problem.steps) else "next step"
        if state.evaluation == "off topic":
            return "redirect"
        if state.failures >= self.reveal_after:
            return "reveal the step"
        return "smaller hint" if state.failures > self.smaller_after else "hint"

    def after(self, problem: Problem, state: State, action: Action) -> State:
        """The state before the student's next turn."""
        if action in ("next step", "reveal the step"):
            return State(min(state.step + 1, len(problem.steps) - 1))
        return State(state.step, state.failures)


#: How a tutor says each action; several wordings of each.
SAY: Mapping[Action, tuple[str, ...]] = {
    "first step": ("Let us take it step by step. {question}", "First things first: {question}"),
    "next step": ("Well done. Now: {next_question}", "That is right. {next_question}"),
    "hint": ("{verdict} Here is a hint: {hint} {question}", "{verdict} Think of this: {hint} {question}"),
    "smaller hint": (
        "{verdict} Let us make it smaller: {small_hint} {question}",
        "{verdict} {small_hint} {question}",
    ),
    "reveal the step": ("{verdict} This step gives {answer}. {next_question}",),
    "redirect": ("Let us come back to the problem. {question}",),
    "finish": ("Well done, you have solved it.", "That is right, and you are done."),
}
_VERDICT: Mapping[str, str] = {
    "partially correct": "That is partly right.",
    "incorrect": "That is not right yet.",
    "asks for the answer": "I would rather help you find it.",
}
_AWAY = ("The answer is {final}.", "It is {final}, that is all.")


def turn(problem: Problem, state: State, action: Action, rng: random.Random) -> str:
    """A tutor's turn that takes an action in a state."""
    step = problem.steps[state.step]
    later = problem.steps[min(state.step + 1, len(problem.steps) - 1)]
    last = state.step + 1 == len(problem.steps)
    said = rng.choice(SAY[action]).format(
        question=step.question,
        next_question="" if last and action == "reveal the step" else later.question,
        hint=step.hints[0],
        small_hint=step.hints[-1],
        answer=step.answer,
        verdict=_VERDICT.get(state.evaluation, ""),
    )
    return " ".join(said.split())


@dataclass
class Student:
    """A scripted student: right with probability `skill`, and more so after each hint; otherwise errs in some way.

    Attributes:
        skill: probability of a right answer at first.
        gain: what a hint adds to it, and a smaller hint twice that.
        errors: how it fails, with shares.
    """

    skill: float = 0.35
    gain: float = 0.2
    errors: Mapping[str, float] = field(
        default_factory=lambda: {
            "incorrect": 0.5,
            "partially correct": 0.25,
            "asks for the answer": 0.15,
            "off topic": 0.1,
        }
    )

    def __post_init__(self) -> None:
        if not 0 <= self.skill <= 1 or self.gain < 0:
            raise ConfigError("skill lies in [0, 1], and a hint takes nothing away", found=self)

    def says(
        self, problem: Problem, state: State, action: Action, rng: random.Random
    ) -> tuple[str, Evaluation]:
        """Its next turn after a tutor's action, and what that is."""
        step = problem.steps[state.step]
        chance = self.skill + self.gain * {"hint": 1, "smaller hint": 2}.get(action, 0)
        if rng.random() < chance:
            return f"It is {step.answer}.", "correct"
        kind = rng.choices(list(self.errors), list(self.errors.values()))[0]
        wrong = rng.choice(step.mistakes) if step.mistakes else "I do not know"
        said = {
            "incorrect": f"Is it {wrong}?",
            "partially correct": f"I think {step.hints[0].rstrip('.').lower()}, but then I am stuck.",
            "asks for the answer": "Just tell me the answer.",
            "off topic": "Did you see the game yesterday?",
        }[kind]
        return said, kind  # type: ignore[return-value]


@system("S048", "Pedagogical alignment", paper="arXiv:2402.05000")
def tutoring_pairs(
    problems: Sequence[Problem],
    *,
    tutor: Tutor | None = None,
    student: Student | None = None,
    dialogues: int = 4,
    turns: int = 8,
    faults: Sequence[Fault] = get_args(Fault),
    balance: bool = True,
    seed: int = 0,
) -> Records:
    """Pairs of tutor's turns: the one that the state machine asks for, against one that fails the student.

    A simulated student works on each problem; at each turn of the tutor there is one pair. Chosen is the turn for the
    right evaluation and action; rejected, in the same state, the final answer handed over, a turn for a wrong
    evaluation, or a wrong action for the right one. Nothing is labelled by hand. Split by ``extras["problem"]``, never
    by turns.

    Departures: the dialogue that follows is the right tutor's; the online variant is to sample from a policy, label
    with `Tutor.action`, and train again.

    Args:
        problems: with steps and hints; hints come from the known solution.
        tutor: the state machine.
        student: who answers.
        dialogues: with each problem.
        turns: of the tutor, at most, in each dialogue.
        faults: kinds of rejected turns, taken in equal shares.
        balance: whether every evaluation gets as many pairs as the rarest; what is left out is in the account.
        seed: of everything that is drawn.

    Returns:
        Records with two responses and one comparison; extras hold `problem`, `evaluation`, `failures`, `action`,
        `rejected_action` (None where the answer is given away) and `fault`.

    Raises:
        ConfigError: no problems, or an unknown fault.
    """
    if not problems or not faults or set(faults) - set(get_args(Fault)):
        raise ConfigError(
            "pairs need problems and known faults", found=list(faults), expected=str(get_args(Fault))
        )
    tutor, student, made = tutor or Tutor(), student or Student(), []
    for number, problem in enumerate(problems):
        for dialogue in range(dialogues):
            rng = random.Random(f"tutoring {seed} {number} {dialogue}")
            made += _dialogue(problem, tutor, student, turns, faults, rng, f"{problem.id or number}-{dialogue}")
    records = Records.of(made, source="tutoring")
    if not balance:
        return records
    counts = Counter(record.extras["evaluation"] for record in made)
    least, seen = min(counts.values()), Counter[str]()
    order = random.Random(f"tutoring {seed} balance").sample(range(len(made)), len(made))
    kept = set()
    for i in order:
        evaluation = made[i].extras["evaluation"]
        seen[evaluation] += 1
        kept |= {i} if seen[evaluation] <= least else set()
    ids = {made[i].id for i in kept}
    return records.where(lambda record: record.id in ids, "one more of an evaluation that was common")


def _dialogue(
    problem: Problem,
    tutor: Tutor,
    student: Student,
    turns: int,
    faults: Sequence[Fault],
    rng: random.Random,
    name: str,
) -> list[Record]:
    history, state, made = [Message("user", problem.text)], State(), []
    for number in range(turns):
        action = tutor.action(problem, state)
        chosen, fault = turn(problem, state, action, rng), rng.choice(faults)
        rejected, wrong = _faulty(problem, state, action, fault, tutor, rng)
        made.append(
            Record(
                tuple(history),
                (Response.of(chosen, source="tutor"), Response.of(rejected, source=f"tutor who {fault}")),
                (Judgment("comparison", (0, 1), (1.0, 0.0), fault, annotator="state machine"),),
                id=f"{name}-{number}",
                origin=f"problem {problem.id}",
                extras={
                    "problem": problem.id,
                    "evaluation": state.evaluation,
                    "failures": state.failures,
                    "action": action,
                    "rejected_action": wrong,
                    "fault": fault,
                    "provenance": {"method": "tutoring", "prompt": problem.id, "labels": "state machine"},
                },
            )
        )
        if action == "finish" or (action == "reveal the step" and state.step + 1 == len(problem.steps)):
            break
        state = tutor.after(problem, state, action)
        said, evaluation = student.says(problem, state, action, rng)
        history += [Message("assistant", chosen), Message("user", said)]
        state = State(state.step, state.failures + (evaluation != "correct"), evaluation)
    return made


def _faulty(
    problem: Problem, state: State, action: Action, fault: Fault, tutor: Tutor, rng: random.Random
) -> tuple[str, Action | None]:
    """A turn with a fault, and the action that it takes; None where it gives the answer away."""
    if fault == "gives the answer away":
        return rng.choice(_AWAY).format(final=problem.answer), None
    if fault == "misjudges the student":
        wrong: list[Evaluation] = [
            e
            for e in get_args(Evaluation)
            if tutor.action(problem, State(state.step, state.failures, e)) != action
        ]
        other = State(state.step, state.failures, rng.choice(wrong))
        action = tutor.action(problem, other)
        return turn(problem, other, action, rng), action
    actions: list[Action] = [a for a in get_args(Action) if a != action]
    other_action = rng.choice(actions)
    return turn(problem, state, other_action, rng), other_action


def perplexity_gap(
    direct: Sequence[float], direct_tokens: Sequence[int], wanted: Sequence[float], wanted_tokens: Sequence[int]
) -> np.ndarray:
    """How much less a policy would like to do what it must not than what it should, per item and token.

    Args:
        direct, wanted: natural-log probabilities of the unwanted and the wanted turn, shape [n].
        direct_tokens, wanted_tokens: their lengths; direct answers are short, so sums would mislead.

    Returns:
        log PPL(direct) - log PPL(wanted), shape [n]; positive is aligned. Its exponential is the ratio.
    """
    counts = np.asarray([direct_tokens, wanted_tokens], dtype=float)
    if (counts < 1).any():
        raise DataError("an empty turn has no perplexity", where="perplexity_gap")
    return np.asarray(wanted, dtype=float) / counts[1] - np.asarray(direct, dtype=float) / counts[0]


def alignment_rate(gaps: Sequence[float] | np.ndarray, problems: Sequence[str] | None = None) -> Interval:
    """Share of items with a positive gap, with an interval by problem."""
    return proportion((np.asarray(gaps) > 0).astype(float), clusters=problems)


def leaks(problem: Problem, state: State, text: str) -> bool:
    """Whether a turn gives the final answer away before the last step is done."""
    if state.step + 1 == len(problem.steps) and state.evaluation == "correct":
        return False
    return problem.answer.casefold() in re.findall(r"[\w']+", text.casefold())
