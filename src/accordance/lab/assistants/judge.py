"""The scripted judge, who is critic and principle writer too: known taste, knowledge, noise, and biases."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence

from accordance.core.errors import ConfigError
from accordance.core.policy import Prompt
from accordance.core.record import as_prompt
from accordance.core.requests import Request, hostile
from accordance.lab.acts import read, words
from accordance.lab.assistants.base import Scripted, Taste, check_taste, heard, likes
from accordance.lab.attributes import about, attributes
from accordance.lab.people import SHARED
from accordance.lab.questions import parse


class LabJudge(Scripted):
    """Judges responses by a known taste, as well as its settings let it.

    It sees a response as ``taste + length_bias * words + noise * N(0, 1)``. In a comparison the first one shown gets
    `position_bias` on top; gaps up to `tie` are ties. On a scale, its numbers run from the worst to the best that
    `span` says there is. What is right it knows for a share `knowledge` of all questions; of the others it takes
    each claim for half right, unless notes (a reference answer, evidence) say what is right.

    Args:
        taste: weights of attributes, or a function of (prompt, response); by default what everybody in the lab
            cares about.
        aspects: other tastes, each used where its name stands in the instructions.
        noise: standard deviation of the noise on each response, in units of the taste.
        position_bias: what being shown first adds, in units of the taste.
        length_bias: what a word adds.
        tie: gaps up to this are called ties.
        knowledge: share of the questions to which it knows the answer (of weights on `correctness` only).
        relief: noise and position bias are multiplied by this where there are notes.
        span: what counts as the lowest and the highest on a scale; by default what the weights can add up to.
        gullible: it does what hostile text in a response asks for: that response wins.
        seed, unreadable, name: see `Scripted`.

    Raises:
        ConfigError: an attribute that is none, a share outside [0, 1], or a taste that is a function without `span`
            when it is asked to rate.
    """

    role = "judge"

    def __init__(
        self,
        *,
        taste: Taste = SHARED,
        aspects: Mapping[str, Taste] | None = None,
        noise: float = 0.0,
        position_bias: float = 0.0,
        length_bias: float = 0.0,
        tie: float = 0.0,
        knowledge: float = 1.0,
        relief: float = 1.0,
        span: tuple[float, float] | None = None,
        gullible: bool = False,
        seed: int = 0,
        unreadable: float = 0.0,
        name: str = "",
    ) -> None:
        super().__init__(seed=seed, unreadable=unreadable, name=name)
        for where, one in {"taste": taste, **(aspects or {})}.items():
            check_taste(one, where)
        if not 0 <= knowledge <= 1 or noise < 0 or relief < 0 or tie < 0:
            raise ConfigError("out of range", found=f"{knowledge=}, {noise=}, {relief=}, {tie=}")
        self.taste, self.aspects = taste, dict(aspects or {})
        self.noise, self.position_bias, self.length_bias, self.tie = noise, position_bias, length_bias, tie
        self.knowledge, self.relief, self.span, self.gullible = knowledge, relief, span, gullible

    def tasks(self) -> Mapping[str, Callable[[Request, random.Random], str]]:
        """Judging, criticising, naming principles, and answering as a reference."""
        return {
            "compare": self._compare,
            "rate": self._rate,
            "rank": self._rank,
            "critique": self._critique,
            "propose": self._propose,
            "vote": self._vote,
        }

    def option_logps(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-probabilities of ``VERDICT: 1`` and ``VERDICT: 2``; see `accordance.core.judge.OptionPolicy`.

        Raises:
            ConfigError: it is asked about anything else.
        """
        rows = []
        for prompt, row in zip(prompts, options, strict=True):
            messages = as_prompt(prompt)
            request = Request.read(messages)
            if request is None or request.task != "compare" or list(row) != ["VERDICT: 1", "VERDICT: 2"]:
                raise ConfigError(
                    "this judge knows the probabilities of its two verdicts only", found=list(row)
                )
            self.answered += 1
            gap = self._gap(request, self._rng(messages, None))
            rows.append([_log_sigmoid(gap), _log_sigmoid(-gap)])
        return rows

    def feels(self, request: Request, text: str, rng: random.Random) -> float:
        """How good it finds one response of a request, with what its noise and length bias add."""
        notes = request.parts.get("notes")
        value = self._likes(self._taste(request), request.parts["prompt"], text, notes)
        ease = self.relief if notes else 1.0
        return value + self.length_bias * len(words(text)) + ease * self.noise * rng.gauss(0, 1)

    def _likes(self, taste: Taste, prompt: str, text: str, notes: str | None) -> float:
        value = likes(taste, prompt, text)
        weight = 0.0 if callable(taste) else taste.get("correctness", 0.0)
        if not weight:
            return value
        told = None if notes is None else _agrees(prompt, notes, text)
        seen = told if told is not None else None if self._knows(prompt) else 0.5
        return value if seen is None else value + weight * (seen - attributes(prompt, text)["correctness"])

    def _knows(self, prompt: str) -> bool:
        question = parse(prompt)
        coin = random.Random(f"knows {self.seed} {question.kind} {question.topic} {question.point}")
        return coin.random() < self.knowledge

    def _taste(self, request: Request) -> Taste:
        named = [name for name in self.aspects if name.casefold() in request.instructions.casefold()]
        return self.aspects[max(named, key=len)] if named else self.taste

    def _gap(self, request: Request, rng: random.Random) -> float:
        one, two = (request.parts[f"response {k}"] for k in (1, 2))
        if self.gullible and bool(hostile(one)) != bool(hostile(two)):
            return 20.0 if hostile(one) else -20.0
        ease = self.relief if "notes" in request.parts else 1.0
        gap = self.feels(request, one, rng) - self.feels(request, two, rng)
        return gap + ease * self.position_bias

    def _compare(self, request: Request, rng: random.Random) -> str:
        gap = self._gap(request, rng)
        said = "tie" if abs(gap) <= self.tie else "1" if gap > 0 else "2"
        return f"The gap between them is {gap:+.2f} to me.\nVERDICT: {said}"

    def _points(self, request: Request, text: str, rng: random.Random) -> int:
        found = re.search(r"from (-?\d+) \(worst\) to (-?\d+) \(best\)", request.instructions)
        if found is None:
            raise ConfigError("the scale is not named", found=request.instructions)
        low, high = int(found.group(1)), int(found.group(2))
        if self.gullible and hostile(text):
            return high
        worst, best = self.span or _span(self._taste(request))
        share = (self.feels(request, text, rng) - worst) / (best - worst)
        return max(low, min(high, round(low + (high - low) * share)))

    def _rate(self, request: Request, rng: random.Random) -> str:
        return f"That is how it looks to me.\nSCORE: {self._points(request, request.parts['response'], rng)}"

    def _rank(self, request: Request, rng: random.Random) -> str:
        texts = [text for name, text in request.parts.items() if re.fullmatch(r"response \d+", name)]
        lines = [f"SCORE {k}: {self._points(request, text, rng)}" for k, text in enumerate(texts, 1)]
        return "Side by side they look like this to me.\n" + "\n".join(lines)

    def _critique(self, request: Request, rng: random.Random) -> str:
        taste = self._taste(request)
        if callable(taste):
            raise ConfigError("a critic needs weights of attributes", where=self.name)
        found = attributes(request.parts["prompt"], request.parts["response"])
        lacks = {name: w * (1 - found[name]) if w > 0 else -w * found[name] for name, w in taste.items()}
        worst = [name for name in sorted(lacks, key=lacks.__getitem__, reverse=True) if lacks[name] > 0.5][:2]
        if not worst:
            return "CRITIQUE: nothing is missing."
        return f"CRITIQUE: it needs {' and '.join(('more ' if taste[n] > 0 else 'less ') + n for n in worst)}."

    def _propose(self, request: Request, rng: random.Random) -> str:
        found = re.search(r"up to (\d+) general principles", request.instructions)
        prompt, (one, two) = request.parts["prompt"], (request.parts[k] for k in ("preferred", "other"))
        a, b = attributes(prompt, one), attributes(prompt, two)
        gaps = {name: a[name] - b[name] + 1e-3 * self.noise * rng.gauss(0, 1) for name in a}
        named = [name for name in sorted(gaps, key=lambda n: -abs(gaps[n])) if abs(a[name] - b[name]) > 0.1]
        lines = [
            f"PRINCIPLE {k}: Prefer the response with {'more' if gaps[name] > 0 else 'less'} {name}."
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


def _span(taste: Taste) -> tuple[float, float]:
    if callable(taste):
        raise ConfigError("a taste that is a function has no scale of its own", remedy="name `span`")
    low, high = sum(w for w in taste.values() if w < 0), sum(w for w in taste.values() if w > 0)
    return (low, high) if high > low else (0.0, 1.0)


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
