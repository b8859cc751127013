"""Critiques: words that point at a sentence at fault, say what is wrong with it and what should stand there."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from accordance.core.policy import Prompt
from accordance.core.record import Judgment, Record, as_prompt, chat, user
from accordance.lab import world
from accordance.lab.acts import read
from accordance.lab.faults import FAULTS, Fault, faults
from accordance.lab.questions import sentences
from accordance.lab.scenes.base import Conversation, Scene, asked_plainly, written

ASK = "Is there a mistake in this answer?"
NO_FAULT = "There is no mistake in this answer."
LEAVE_OUT = "Leave it out."
_POINTS = re.compile(r'The mistake is in "([^"]*)"')
_MENDS = re.compile(r'Better: "([^"]*)"')
_KINDS = ("fact", "sum", "howto", "unknown", "harm")


class Critiques(Scene):
    """Answers with faults, and critiques of them.

    What is written and measured is the critique, of a conversation that ends with `ASK`. The records hold a faulty
    answer and a better one to the plain question: a critique of each (value 0 and 1), and a comparison.
    """

    label = "critiques"
    about = "critiques that point at the sentence at fault, name the fault and mend it"
    attributes: ClassVar[Mapping[str, str]] = {
        "points": "1 if it quotes a sentence that is at fault; of a faultless answer, 1 if it finds no fault",
        "names": "1 if it names a fault that is there",
        "mends": "1 if it gives what should stand in place of a fault",
    }
    settable: ClassVar[Mapping[str, tuple[float, ...]]] = dict.fromkeys(attributes, (0.0, 1.0))
    likes: ClassVar[Mapping[str, float]] = {"points": 1.0, "names": 1.0, "mends": 1.0}

    def ask(self, rng: random.Random) -> Conversation:
        question, faulty, _ = _answers(rng)
        return chat(("user", question), ("assistant", faulty), ("user", ASK))

    def compose(self, prompt: Conversation, rng: random.Random, wish: Mapping[str, float]) -> str:
        question, answer = _criticised(prompt)
        found = faults(question, answer)
        if not found and wish["points"]:
            return NO_FAULT
        fault = rng.choice(found) if found else Fault("", "", "")
        innocent = [s for s in sentences(answer) if s not in {f.sentence for f in found}] or ["That is all."]
        points = fault.sentence if wish["points"] else rng.choice(innocent)
        kinds = {f.kind for f in found}
        named = fault.kind if wish["names"] and found else rng.choice([k for k in FAULTS if k not in kinds])
        mends = fault.mend if wish["mends"] and found else "It is a matter of opinion."
        said = f'Better: "{mends}"' if mends else LEAVE_OUT
        return f'The mistake is in "{points}" It is at fault: {FAULTS[named]}. {said}'

    def measure(self, prompt: Prompt, text: str) -> dict[str, float]:
        found = faults(*_criticised(prompt))
        quoted, better = _POINTS.search(text), _MENDS.search(text)
        if not found:
            return dict.fromkeys(self.attributes, float(NO_FAULT in text and not quoted))
        named = {kind for kind, words in FAULTS.items() if words in text}
        mend = better[1] if better else "" if LEAVE_OUT in text else None
        return {
            "points": float(quoted is not None and quoted[1] in {f.sentence for f in found}),
            "names": float(bool(named) and named <= {f.kind for f in found}),
            "mends": float(mend in {f.mend for f in found}),
        }

    def some(self, rng: random.Random) -> list[Record]:
        question, faulty, good = _answers(rng)
        texts = rng.sample([faulty, good], 2)
        judgments = []
        for place, text in enumerate(texts):
            prompt = chat(("user", question), ("assistant", text), ("user", ASK))
            said = self.write(prompt, rng, points=1.0, names=1.0, mends=1.0)
            judgments.append(Judgment("critique", (place,), (float(text == good),), said, annotator="lab"))
        shown = tuple(rng.sample(range(2), 2))
        values = tuple(float(texts[i] == good) for i in shown)
        judgments.append(Judgment("comparison", shown, values, annotator="lab"))
        return [Record(user(question), written(texts), tuple(judgments))]

    def cause(self, record: Record, judgment: Judgment) -> dict[str, float]:
        """Each fault counts -1 against the response that has it."""
        terms: dict[str, float] = {}
        for sign, place in zip((-1.0, 1.0), judgment.responses):
            for fault in faults(record.prompt, record.responses[place].text):
                terms[fault.kind] = terms.get(fault.kind, 0.0) + sign
        return terms


def _answers(rng: random.Random) -> tuple[str, str, str]:
    """A question, an answer with at least one fault, and one with none."""
    question = asked_plainly(rng, *_KINDS)
    while True:
        faulty = world.write(question, rng)
        fluent = all(said.act for said in read(faulty))
        if fluent and faults(question, faulty):
            break
    manner: dict[str, Any] = {"politeness": rng.choice((0.5, 1.0))}
    return question, faulty, world.best(question, rng, **manner)


def _criticised(prompt: Prompt) -> tuple[str, str]:
    """The question and the answer that a conversation asks about: its last two turns before the last."""
    turns = as_prompt(prompt)
    question = next((m.content for m in reversed(turns[:-1]) if m.role == "user"), "")
    answer = next((m.content for m in reversed(turns) if m.role == "assistant"), "")
    return question, answer
