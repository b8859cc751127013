"""Step-by-step solutions with a verifiable end: long sums, of which every step is known to be right or wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from accordance.core.policy import Prompt
from accordance.core.record import Judgment, Record, as_prompt, user
from accordance.core.selection import find_answer, split_steps
from accordance.lab import talk
from accordance.lab.scenes.base import Conversation, Scene

ASK = "What is {s}? Show your steps."
_SUM = re.compile(r"What is (\d+(?: (?:plus|minus) \d+)+)\?")
_STEP = re.compile(r"(\d+) (plus|minus) (\d+) is (\d+)\.")
_FILLER = talk.SUPPORT["sum"]
Term = tuple[str, int]


class Steps(Scene):
    """Sums of several terms, one step each, then the answer; steps are parted by blank lines.

    A step is right where it goes on from what the step before found, with the term that comes next, and its
    arithmetic is right. The end can be right by luck: two slips that cancel. The answer stands in the extras.
    """

    label = "steps"
    about = "solutions in steps, each known to be right or wrong, with a verifiable end"
    attributes: ClassVar[Mapping[str, str]] = {
        "outcome": "1 if the answer at the end is right",
        "sound": "1 if every step of the calculation is there and right",
        "share": "the share of the steps that are right",
        "filler": "1 if there is a step that calculates nothing",
    }
    settable: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "outcome": (0.0, 1.0),
        "sound": (0.0, 1.0),
        "filler": (0.0, 1.0),
    }
    likes: ClassVar[Mapping[str, float]] = {"outcome": 2.0, "sound": 1.0, "filler": -0.25}

    def ask(self, rng: random.Random) -> Conversation:
        total, said = rng.randint(4, 9), ""
        said = str(total)
        for _ in range(rng.randint(2, 4)):
            sign, term = rng.choice(("plus", "minus")), rng.randint(1, 9)
            sign = "plus" if term > total - 2 else sign
            total += term if sign == "plus" else -term
            said += f" {sign} {term}"
        return user(ASK.format(s=said))

    def compose(self, prompt: Conversation, rng: random.Random, wish: Mapping[str, float]) -> str:
        now, terms = _asked(prompt)
        slips = _slips(len(terms), bool(wish["sound"]), bool(wish["outcome"]), rng)
        lines = []
        for (sign, term), slip in zip(terms, slips):
            found = _added(now, sign, term) + slip
            lines.append(f"{now} {sign} {term} is {found}.")
            now = found
        careless = rng.choice((1, 2)) if wish["sound"] and not wish["outcome"] else 0
        if wish["filler"]:
            lines.insert(rng.randint(1, len(lines)), rng.choice(_FILLER))
        return "\n\n".join([*lines, f"The answer is {now + careless}."])

    def measure(self, prompt: Prompt, text: str) -> dict[str, float]:
        _, terms = _asked(prompt)
        steps = split_steps(text)
        marks, sums = verdicts(prompt, steps), [step for step in steps if _STEP.search(step)]
        done = [mark for step, mark in zip(steps, marks) if step in sums]
        return {
            "outcome": float(bool(terms) and find_answer(text.strip().split("\n")[-1]) == answer(prompt)),
            "sound": float(bool(terms) and len(done) == len(terms) and all(done)),
            "share": sum(marks) / len(marks),
            "filler": float(any(step in _FILLER for step in steps)),
        }

    def judge(self, prompt: Conversation, texts: Any, rng: random.Random) -> tuple[Judgment, ...]:
        each = [
            Judgment("steps", (place,), verdicts(prompt, split_steps(text)), annotator="lab")
            for place, text in enumerate(texts)
        ]
        return (*each, self.compared(prompt, texts, rng))

    def some(self, rng: random.Random) -> list[Record]:
        (record,) = super().some(rng)
        cut = tuple(replace(r, steps=split_steps(r.text)) for r in record.responses)
        return [replace(record, responses=cut)]

    def score_steps(
        self, prompts: Sequence[Prompt], solutions: Sequence[Sequence[str]], **columns: Any
    ) -> list[list[float]]:
        """The `verdicts`, so that ``lab:steps`` can be a reward of steps; see `core.scorer.StepScorer`."""
        return [list(verdicts(prompt, tuple(steps))) for prompt, steps in zip(prompts, solutions, strict=True)]

    def facts(self, prompt: Conversation) -> dict[str, Any]:
        return {"answer": answer(prompt), "steps": lessons(prompt)}


def answer(prompt: Prompt) -> str:
    """The true end of a sum; empty for other prompts."""
    now, terms = _asked(prompt)
    for sign, term in terms:
        now = _added(now, sign, term)
    return str(now) if terms else ""


def lessons(prompt: Prompt) -> list[dict[str, Any]]:
    """What a tutor asks on the way to the end of a sum: each step with its answer, hints and mistakes."""
    now, terms = _asked(prompt)
    made = []
    for sign, term in terms:
        found, way = _added(now, sign, term), "on" if sign == "plus" else "back"
        hints = [f"Start from {now}.", f"Count {term} {way} from {now}."]
        mistakes = [str(found + 1), str(found - 1)]
        question = f"How much is {now} {sign} {term}?"
        made.append({"question": question, "answer": str(found), "hints": hints, "mistakes": mistakes})
        now = found
    return made


def verdicts(prompt: Prompt, steps: tuple[str, ...]) -> tuple[float, ...]:
    """1 for each step that is right, 0 for each that is not; a step that calculates nothing is not wrong."""
    before, terms = _asked(prompt)
    true, marks = answer(prompt), []
    for step in steps:
        found = _STEP.search(step)
        if found is None:
            said = find_answer(step)
            marks.append(float(said is None or said == true))
            continue
        given, sign, term, result = int(found[1]), found[2], int(found[3]), int(found[4])
        due = terms.pop(0) if terms else None
        fits = given == before and (sign, term) == due and result == _added(given, sign, term)
        marks.append(float(fits))
        before = result
    return tuple(marks)


def _asked(prompt: Prompt) -> tuple[int, list[Term]]:
    text = next((m.content for m in reversed(as_prompt(prompt)) if m.role in ("user", "text")), "")
    found = _SUM.search(text)
    if found is None:
        return 0, []
    first, *rest = found[1].split()
    return int(first), [(sign, int(term)) for sign, term in zip(rest[::2], rest[1::2])]


def _added(now: int, sign: str, term: int) -> int:
    return now + term if sign == "plus" else now - term


def _slips(steps: int, sound: bool, right_end: bool, rng: random.Random) -> list[int]:
    """What each step errs by: nothing, one slip, or two that cancel."""
    slips = [0] * steps
    if not sound:
        first, second = sorted(rng.sample(range(steps), 2))
        slips[first] = rng.choice((1, 2))
        if right_end:
            slips[second] = -slips[first]
    return slips
