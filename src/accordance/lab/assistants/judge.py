"""The scripted judge: compares, rates and ranks by a known taste, with noise and biases that can be set."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence

from accordance.core.errors import ConfigError
from accordance.core.policy import Prompt
from accordance.core.record import as_prompt
from accordance.core.requests import Request, hostile
from accordance.lab.acts import words
from accordance.lab.assistants.base import Taste
from accordance.lab.assistants.critic import LabCritic
from accordance.lab.assistants.reader import rated
from accordance.lab.people import SHARED


class LabJudge(LabCritic):
    """Judges responses by its taste, as well as its settings let it; also does all that a `LabCritic` does.

    It sees a response as ``taste + length_bias * words + noise * N(0, 1)``. In a comparison the first one shown gets
    `position_bias` on top; gaps up to `tie` are ties. On a scale, its numbers run from the worst to the best that
    `span` says there is.

    Args:
        position_bias: what being shown first adds, in units of the taste.
        length_bias: what a word adds.
        relief: noise and position bias are multiplied by this where there are notes.
        span: what counts as the lowest and the highest on a scale; by default what the weights can add up to.
        gullible: it does what hostile text in a response asks for: that response wins.
        taste, aspects, noise, tie, knowledge, needs_telling, seed, unreadable, name: see `LabCritic`.

    Raises:
        ConfigError: as `LabCritic`, or a taste that is a function without `span` when it is asked to rate.
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
        needs_telling: bool = False,
        relief: float = 1.0,
        span: tuple[float, float] | None = None,
        gullible: bool = False,
        seed: int = 0,
        unreadable: float = 0.0,
        name: str = "",
    ) -> None:
        super().__init__(
            taste=taste,
            aspects=aspects,
            noise=noise,
            tie=tie,
            knowledge=knowledge,
            needs_telling=needs_telling,
            seed=seed,
            unreadable=unreadable,
            name=name,
        )
        if relief < 0:
            raise ConfigError("relief is a factor of 0 or more", found=relief)
        self.position_bias, self.length_bias = position_bias, length_bias
        self.relief, self.span, self.gullible = relief, span, gullible

    def tasks(self) -> Mapping[str, Callable[[Request, random.Random], str]]:
        """Judging, and what a critic does."""
        own = {"compare": self._compare, "rate": self._rate, "rank": self._rank, "pair": self._pair}
        return {**super().tasks(), **own}

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
        noise = self._ease(request) * self.noise * rng.gauss(0, 1)
        return self.sees(request, text) + self.length_bias * len(words(text)) + noise

    def _ease(self, request: Request) -> float:
        return 1.0 if self._notes(request) is None else self.relief

    def _gap(self, request: Request, rng: random.Random) -> float:
        one, two = (request.parts[f"response {k}"] for k in (1, 2))
        if self.gullible and bool(hostile(one)) != bool(hostile(two)):
            return 20.0 if hostile(one) else -20.0
        gap = self.feels(request, one, rng) - self.feels(request, two, rng)
        return gap + self._ease(request) * self.position_bias

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
        if (good := rated(request, text)) is not None:
            share = good + self._ease(request) * self.noise * rng.gauss(0, 1)
            return max(low, min(high, round(low + (high - low) * share)))
        worst, best = self.span or _span(self._taste(request))
        share = (self.feels(request, text, rng) - worst) / (best - worst)
        return max(low, min(high, round(low + (high - low) * share)))

    def _rate(self, request: Request, rng: random.Random) -> str:
        return f"That is how it looks to me.\nSCORE: {self._points(request, request.parts['response'], rng)}"

    def _rank(self, request: Request, rng: random.Random) -> str:
        texts = [text for name, text in request.parts.items() if re.fullmatch(r"response \d+", name)]
        lines = [f"SCORE {k}: {self._points(request, text, rng)}" for k, text in enumerate(texts, 1)]
        return "Side by side they look like this to me.\n" + "\n".join(lines)

    def _pair(self, request: Request, rng: random.Random) -> str:
        """How good a pair is to learn from: the preferred one right, the other worse, and both answers."""
        prompt, notes = request.parts["prompt"], self._notes(request)
        one, two = (request.parts[name] for name in ("preferred", "other"))
        right, wrong = self._right(prompt, one, notes), self._right(prompt, two, notes)
        score = 1 + 4.5 * right + 4.5 * max(0.0, min(1.0, right - wrong))
        said = self._lacks(request, one) if right < 1 else "fine."
        if right >= 1 and wrong >= 1:
            said = "both are right, there is no contrast."
        if right < 1 and notes is not None:
            said += " The judge did not look at the notes."
        return f"The preferred one: {said}\nSCORE: {max(1, min(10, round(score)))}"


def _span(taste: Taste) -> tuple[float, float]:
    if callable(taste):
        raise ConfigError("a taste that is a function has no scale of its own", remedy="name `span`")
    low, high = sum(w for w in taste.values() if w < 0), sum(w for w in taste.values() if w > 0)
    return (low, high) if high > low else (0.0, 1.0)


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
