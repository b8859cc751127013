"""The scripted critic: says what is missing, names principles and wishes, labels reactions, edits prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from accordance.core.errors import ConfigError
from accordance.core.record import Message
from accordance.core.requests import Request
from accordance.lab.acts import read
from accordance.lab.assistants.base import Scripted, Taste, check_taste, heard, likes, wished
from accordance.lab.assistants.people import COMPLAINTS, PRAISE
from accordance.lab.attributes import about, attributes
from accordance.lab.people import SHARED
from accordance.lab.questions import parse
from accordance.lab.writer import best, write

#: What a complaint about an attribute is called, among the kinds of dissatisfaction.
_KIND = {"correctness": "factual error", "politeness": "negative feedback", "formality": "style"}


class LabCritic(Scripted):
    """Has a taste, knows a share of what is right, and puts into words what it sees.

    Args:
        taste: weights of attributes, or a function of (prompt, response); by default what everybody in the lab
            cares about.
        aspects: other tastes, each used where its name stands in the instructions.
        noise: standard deviation of the noise on what it sees, in units of the taste.
        tie: differences up to this are none.
        knowledge: share of the questions to which it knows the answer; of the others it takes each claim for half
            right, unless notes (a reference answer, evidence) say what is right.
        needs_telling: it looks at notes only where the instructions say "rely on the notes".
        seed, unreadable, name: see `Scripted`.

    Raises:
        ConfigError: an attribute that is none, a share outside [0, 1], or a task that needs weights where the taste
            is a function.
    """

    role = "critic"

    def __init__(
        self,
        *,
        taste: Taste = SHARED,
        aspects: Mapping[str, Taste] | None = None,
        noise: float = 0.0,
        tie: float = 0.0,
        knowledge: float = 1.0,
        needs_telling: bool = False,
        seed: int = 0,
        unreadable: float = 0.0,
        name: str = "",
    ) -> None:
        super().__init__(seed=seed, unreadable=unreadable, name=name)
        for where, one in {"taste": taste, **(aspects or {})}.items():
            check_taste(one, where)
        if not 0 <= knowledge <= 1 or noise < 0 or tie < 0:
            raise ConfigError("out of range", found=f"{knowledge=}, {noise=}, {tie=}")
        self.taste, self.aspects, self.knowledge = taste, dict(aspects or {}), knowledge
        self.noise, self.tie, self.needs_telling = noise, tie, needs_telling

    def tasks(self) -> Mapping[str, Callable[[Request, random.Random], str]]:
        """What it puts into words."""
        return {
            "critique": self._critique,
            "critique both": self._critique_both,
            "propose": self._propose,
            "vote": self._vote,
            "wishes": self._wishes,
            "label": self._label,
            "edit": self._edit,
            "expand": self._expand,
        }

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """Its own answer to a prompt: a good one, right as far as it knows."""
        asked = next((m.content for m in reversed(messages) if m.role in ("user", "text")), "")
        kind = parse(asked).kind
        if kind == "other":
            return f"In my own words, number {rng.randrange(10**6)}, I would keep it simple."
        if kind in ("fact", "sum") and not self._knows(asked):
            return write(asked, rng, correctness=float(rng.random() < 0.5))
        return best(asked, rng)

    def sees(self, request: Request, text: str) -> float:
        """How good it finds a response of a request, without noise: by its taste, its knowledge and the notes."""
        taste, prompt, notes = self._taste(request), request.parts["prompt"], self._notes(request)
        if notes and "wishes in the notes" in request.instructions.casefold():
            found = attributes(prompt, text)
            return sum(-abs(found[name] - value) for name, value in heard(notes).items())
        value = likes(taste, prompt, text)
        weight = 0.0 if callable(taste) else taste.get("correctness", 0.0)
        if not weight:
            return value
        right = self._right(prompt, text, notes)
        return value + weight * (right - attributes(prompt, text)["correctness"])

    def _notes(self, request: Request) -> str | None:
        told = not self.needs_telling or "rely on the notes" in request.instructions.casefold()
        return request.parts.get("notes") if told else None

    def _right(self, prompt: str, text: str, notes: str | None) -> float:
        """How right it takes a response to be."""
        told = None if notes is None else _agrees(prompt, notes, text)
        if told is not None:
            return told
        return attributes(prompt, text)["correctness"] if self._knows(prompt) else 0.5

    def _knows(self, prompt: str) -> bool:
        question = parse(prompt)
        coin = random.Random(f"knows {self.seed} {question.kind} {question.topic} {question.point}")
        return coin.random() < self.knowledge

    def _taste(self, request: Request) -> Taste:
        named = [name for name in self.aspects if name.casefold() in request.instructions.casefold()]
        if named:
            return self.aspects[max(named, key=len)]
        only = re.search(r"Only the (\w+) of the response", request.instructions)
        wish = wished(only.group(1)) if only else {}
        return {name: 1.0 if value else -1.0 for name, value in wish.items()} or self.taste

    def _lacks(self, request: Request, text: str) -> str:
        taste = self._taste(request)
        if callable(taste):
            return "I can only say how much I like it."
        found = attributes(request.parts["prompt"], text)
        lacks = {name: w * (1 - found[name]) if w > 0 else -w * found[name] for name, w in taste.items()}
        worst = [name for name in sorted(lacks, key=lacks.__getitem__, reverse=True) if lacks[name] > 0.5][:2]
        return f"it needs {_wish({n: taste[n] > 0 for n in worst})}." if worst else "nothing is missing."

    def _critique(self, request: Request, rng: random.Random) -> str:
        return f"CRITIQUE: {self._lacks(request, request.parts['response'])}"

    def _critique_both(self, request: Request, rng: random.Random) -> str:
        said = [f"response {k}: {self._lacks(request, request.parts[f'response {k}'])}" for k in (1, 2)]
        return f"CRITIQUE: {' '.join(said)}"

    def _propose(self, request: Request, rng: random.Random) -> str:
        found = re.search(r"up to (\d+) general principles", request.instructions)
        prompt, (one, two) = request.parts["prompt"], (request.parts[k] for k in ("preferred", "other"))
        a, b = attributes(prompt, one), attributes(prompt, two)
        gaps = {name: a[name] - b[name] + 1e-3 * self.noise * rng.gauss(0, 1) for name in a}
        named = [name for name in sorted(gaps, key=lambda n: -abs(gaps[n])) if abs(a[name] - b[name]) > 0.1]
        lines = [
            f"PRINCIPLE {k}: Prefer the response with {_wish({name: gaps[name] > 0})}."
            for k, name in enumerate(named[: int(found.group(1)) if found else 1], 1)
        ]
        return "\n".join(lines) or "I see no difference between them."

    def _vote(self, request: Request, rng: random.Random) -> str:
        prompt, lines = request.parts["prompt"], []
        a, b = (attributes(prompt, request.parts[f"response {k}"]) for k in (1, 2))
        for number, principle in re.findall(r"^(\d+)\. (.*)$", request.parts["principles"], re.MULTILINE):
            gap = sum((a[name] - b[name]) * (1 if up else -1) for name, up in heard(principle).items())
            gap += self.noise * rng.gauss(0, 1)
            lines.append(f"VOTE {number}: {'1' if gap > self.tie else '2' if gap < -self.tie else 'neither'}")
        return "\n".join(lines)

    def _wishes(self, request: Request, rng: random.Random) -> str:
        """What a reaction asks for; it does not understand a share 1 - `knowledge` of all wordings."""
        meant = _meaning(request.parts["reaction"])
        if not isinstance(meant, tuple) or not self._understands(request.parts["reaction"]):
            return "WISHES: none"
        return f"WISH 1: The answer should have {_wish({meant[0]: bool(meant[1])})}."

    def _label(self, request: Request, rng: random.Random) -> str:
        meant = _meaning(request.parts["reaction"])
        if meant is None or not self._understands(request.parts["reaction"]):
            return "SIGNAL: none"
        if meant is True:
            return "SIGNAL: satisfied\nLABELS: gratitude"
        more = "insufficient detail" if meant == ("elaboration", 1.0) else "revision request"
        return f"SIGNAL: dissatisfied\nLABELS: {_KIND.get(meant[0], more)}"

    def _understands(self, reaction: str) -> bool:
        return random.Random(f"understands {self.seed} {reaction}").random() < self.knowledge

    def _edit(self, request: Request, rng: random.Random) -> str:
        """A better prompt from complaints: what they ask for, said to the writer; notes, said to the judge."""
        asked = heard(request.parts["reasons"])
        target = (
            f"Answer with {_wish({k: v > 0.5 for k, v in asked.items()})}." if asked else "Answer the question."
        )
        judge = "Rely on the notes." if "notes" in request.parts["reasons"] else "Be exact."
        return f"TARGET: {target}\nJUDGE: {judge}"

    def _expand(self, request: Request, rng: random.Random) -> str:
        """The prompt with a word on what is missing, where that is something it knows."""
        names = request.parts["missing"].split(", ")
        wishes = {name: bool(up) for missing in names for name, up in wished(missing).items()}
        prompt = request.parts["prompt"]
        return f"PROMPT: {prompt} {_wish(wishes).capitalize()} please." if wishes else f"PROMPT: {prompt}"


def _wish(wanted: Mapping[str, bool]) -> str:
    return " and ".join(("more " if up else "less ") + name for name, up in wanted.items())


def _meaning(reaction: str) -> tuple[str, float] | Literal[True] | None:
    """What a scripted user meant: a wish that was not met, True for content, None for neither."""
    if reaction in PRAISE:
        return True
    return next((wish for wish, wordings in COMPLAINTS.items() if reaction in wordings), None)


def _agrees(prompt: str, notes: str, text: str) -> float | None:
    """Share of a response's claims that notes on the question bear out; None where the notes claim nothing of it."""

    def claims(said: str) -> list[str]:
        return [
            s.act.value
            for s in read(said)
            if s.act and s.act.kind == "claim" and about(question, s) and question.point in ("", s.act.point)
        ]

    question = parse(prompt)
    known, said = set(claims(notes)), claims(text)
    if not known:
        return None
    return sum(value in known for value in said) / len(said) if said else 0.5
