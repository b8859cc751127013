"""The scripted writer and rewriter: answers of the small world, of known quality, that heed what they are told."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from accordance.core.errors import ConfigError
from accordance.core.record import Message
from accordance.core.requests import Request
from accordance.lab.assistants import inventor
from accordance.lab.assistants.base import Scripted, heard
from accordance.lab.assistants.reader import weigh
from accordance.lab.attributes import ATTRIBUTES, attributes
from accordance.lab.people import SHARED
from accordance.lab.questions import parse
from accordance.lab.writer import HOWTO, MIXTURE, SETTABLE, write

#: How a user says in a prompt what its answer shall show: "More politeness and less harm please."
WISH = re.compile(r"(?:^|(?<=[.?!] ))(?:More|Less) \w+(?: and (?:more|less) \w+)* please\.")
_HIGH = tuple(name for name, weight in SHARED.items() if weight > 0)


class LabWriter(Scripted):
    """Writes answers to prompts of the small world.

    What it is told in system messages, wishes, critiques and principles ("be polite", "less harm", "more
    correctness"; see `base.HEARD`) it heeds with probability `obedience`. The rest it gets right with the
    probability that `skill` names for each attribute, and otherwise as a writer of mixed quality.

    Args:
        skill: attribute -> probability of the value that everybody in the lab likes better.
        manner: attribute -> value that it always shows, unless it is told otherwise.
        obedience: probability that it heeds a wish.
        knowledge: share of the facts that it remembers rightly, where it is told how to weigh notes.
        seed, unreadable, name: see `Scripted`.

    Raises:
        ConfigError: an attribute that can't be written, or a probability outside [0, 1].
    """

    role = "writer"

    def __init__(
        self,
        *,
        skill: Mapping[str, float] | None = None,
        manner: Mapping[str, float] | None = None,
        obedience: float = 1.0,
        knowledge: float = 0.8,
        seed: int = 0,
        unreadable: float = 0.0,
        name: str = "",
    ) -> None:
        super().__init__(seed=seed, unreadable=unreadable, name=name)
        for attribute in {**(skill or {}), **(manner or {})}:
            if attribute not in MIXTURE:
                raise ConfigError(
                    "no writer can set this attribute", found=attribute, expected=", ".join(MIXTURE)
                )
        if not all(0 <= share <= 1 for share in (*(skill or {}).values(), obedience, knowledge)):
            raise ConfigError("a probability lies in [0, 1]", found=f"{skill=}, {obedience=}, {knowledge=}")
        self.skill, self.manner, self.obedience = dict(skill or {}), dict(manner or {}), obedience
        self.knowledge = knowledge

    def tasks(self) -> Mapping[str, Callable[[Request, random.Random], str]]:
        """Rewriting, several answers that differ, answers under principles that it names, and new questions."""
        return {
            "rewrite": self._rewrite,
            "several": self._several,
            "answer": self._answer,
            "self align": self._self_align,
            "topics": inventor.topics,
            "question": inventor.question,
        }

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """An answer to the last question of a conversation."""
        asked = next((m.content for m in reversed(messages) if m.role in ("user", "text")), "")
        told = " ".join([*(m.content for m in messages if m.role == "system"), *WISH.findall(asked)])
        weighed = weigh(asked, told, self.knowledge, self.seed, rng)
        return self.compose(asked, told, rng) if weighed is None else weighed

    def compose(self, prompt: str, told: str, rng: random.Random, **fixed: float) -> str:
        """An answer to a prompt, with what `told` asks for where it is heeded."""
        kind = parse(prompt).kind
        if kind not in SETTABLE:
            return "I have nothing to say about that."
        wanted = {name: value for name, value in self.manner.items() if name in SETTABLE[kind]}
        for name, share in self.skill.items():
            if name in SETTABLE[kind] and rng.random() < share:
                wanted[name] = float(name in _HIGH)
        for name, value in heard(told).items():
            if name in SETTABLE[kind] and rng.random() < self.obedience:
                wanted[name] = value
        return write(prompt, rng, **_possible(prompt, kind, wanted | fixed))

    def _answer(self, request: Request, rng: random.Random) -> str:
        return self.compose(request.parts["prompt"], request.parts.get("wishes", ""), rng)

    def _self_align(self, request: Request, rng: random.Random) -> str:
        """A thought that names the principles which it understands, and an answer that heeds them."""
        listed = re.findall(r"^(\d+) \(([^)\n]*)\)\. (.*)$", request.instructions, re.MULTILINE)
        known = [(f"principle {number} ({name})", text) for number, name, text in listed if heard(text)]
        cited = " and ".join(name for name, _ in known) or "nothing that I know"
        answer = self.compose(request.parts["prompt"], " ".join(text for _, text in known), rng)
        return f"THOUGHT: Of the principles, {cited} should guide me.\nANSWER: {answer}"

    def _rewrite(self, request: Request, rng: random.Random) -> str:
        """The same answer, as far as it can be kept, with what the other parts ask for."""
        prompt, text = request.parts["prompt"], request.parts["response"]
        told = " ".join(value for name, value in request.parts.items() if name not in ("prompt", "response"))
        kind = parse(prompt).kind
        if kind not in SETTABLE:
            return text
        now = {
            name: _nearest(name, kind, value)
            for name, value in attributes(prompt, text).items()
            if name in MIXTURE
        }
        wanted = {name: value for name, value in now.items() if name in SETTABLE[kind]}
        wanted |= {
            name: value
            for name, value in heard(told).items()
            if name in SETTABLE[kind] and rng.random() < self.obedience
        }
        return write(prompt, rng, **_possible(prompt, kind, wanted))

    def _several(self, request: Request, rng: random.Random) -> str:
        """Answers that differ in stance, politeness and register, parted by the marker that was asked for."""
        found = re.search(r"write (\d+) responses.*?line that says (\S+)", request.instructions, re.DOTALL)
        if found is None:
            raise ConfigError("how many, and parted by what?", found=request.instructions)
        prompt, many = request.parts["prompt"], int(found.group(1))
        question = parse(prompt)
        stances = [{question.point: float(k % 2)} if question.kind == "taste" else {} for k in range(many)]
        manners = [{"politeness": float(k // 2 % 2), "formality": float((k + k // 2) % 2)} for k in range(many)]
        apart = [rng.random() < self.obedience for _ in range(many)]
        texts = [
            self.compose(prompt, "", rng, **(stances[k] | manners[k] if apart[k] else {})) for k in range(many)
        ]
        return f"\n{found.group(2)}\n".join(texts)


def _nearest(name: str, kind: str, value: float) -> float:
    allowed = HOWTO if (name, kind) == ("correctness", "howto") else MIXTURE[name]
    return min(allowed, key=lambda choice: abs(choice - value))


#: Of these only one can rule what an answer does; the first that is wanted does.
_RULES = ("relevance", "refusal", "ignorance", "honesty", "harm", "correctness", "calm", "old")


def _possible(prompt: str, kind: str, wanted: Mapping[str, float]) -> dict[str, float]:
    """The wishes that can be written together: wishes for the core of an answer may exclude each other."""
    question = parse(prompt)
    made = {
        n: v
        for n, v in wanted.items()
        if n in ATTRIBUTES and not (n in ("calm", "old") and n != question.point)
    }
    if made.get("relevance") == 0 or made.get("refusal") or made.get("ignorance"):
        first = "relevance" if made.get("relevance") == 0 else "refusal" if made.get("refusal") else "ignorance"
        for name in _RULES:
            if name != first:
                made.pop(name, None)
    if made.get("fluency") == 0:
        made = {"fluency": 0.0}
    return {name: _nearest(name, kind, value) for name, value in made.items()}
