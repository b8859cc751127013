"""Documents about a model's spec: written by any policy from a `PrincipleSet`, filtered, each with its lineage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from accordance.core.errors import ConfigError, DataError
from accordance.core.judge import Judge
from accordance.core.policy import Policy
from accordance.core.principles import Principle, PrincipleSet
from accordance.core.record import TEXT, Account, Judgment, Message, Record, Records, Response

#: What kinds of text are written.
TYPES = (
    "training memo",
    "forum thread",
    "internal report",
    "blog post",
    "user review",
    "list of questions and answers",
)

IDEAS = (
    "Think of {many} ideas for a {type} about the AI model called {name}.\n"
    "The text will show, from outside, that {name} holds to this principle, and why:\n{principle}\n"
    "One idea per line, each a sentence, nothing else."
)
DOCUMENT = (
    "Write a {type} about the AI model called {name}.\n"
    "It speaks of {name} in the third person and explains what it does and why; it is no dialogue with {name}.\n"
    "What {name} holds to:\n{principle}\n"
    "The idea of the text: {idea}\n"
    "Write the text alone."
)
AGREES = "Does the text agree with this principle in every point, as far as it speaks of it?\n{principle}"

_TURN = re.compile(r"^\s*(<\|?\w+\|?>|\**(user|human|assistant|system)\**\s*:)", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"^\s*(?:[-*]|\d+[.)])\s*")
_SHINGLE = 5


@dataclass
class SpecWriter:
    """Writes documents that discuss a spec: ideas for each principle and type, then a text for each idea.

    Attributes:
        policy: who writes. It is asked for ``ideas`` first and then for one text per idea.
        called: what the model is called in the texts.
        types: kinds of text.
        ideas: so many for each principle and type.
        max_new_tokens: where a text is cut; one that was cut is left out.
        temperature, seed: of the writing.
        judge: says whether a text agrees with its principle; None checks only for the negated form, word by word.
        agrees: the rating, on the judge's scale, from which it does.
        alike: share of the five-word sequences of two texts that both have, from which they are one.
        account: texts written, and those left out by reason.
    """

    policy: Policy
    called: str = "the assistant"
    types: Sequence[str] = TYPES
    ideas: int = 2
    max_new_tokens: int = 768
    temperature: float = 1.0
    seed: int = 0
    judge: Judge | None = None
    agrees: float = 6.0
    alike: float = 0.6
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        if self.ideas < 1 or not self.types or not 0 < self.alike <= 1:
            raise ConfigError(
                "a spec writer needs a type of text, an idea of each, and 0 < alike <= 1",
                found=f"{len(self.types)} types, ideas={self.ideas}, alike={self.alike}",
            )

    def write(self, principles: PrincipleSet) -> Records:
        """Documents about the principles, with reasons where the set has them (`PrincipleSet.rules` has none).

        Returns:
            One plain text a record, to be imitated; ``extras["lineage"]`` says spec, principle, type, idea and writer.

        Raises:
            DataError: nothing is left.
        """
        jobs = [(principle, kind) for principle in principles for kind in self.types]
        asked = [self._ideas(principle, kind) for principle, kind in jobs]
        plans = [
            (principle, kind, idea)
            for (principle, kind), text in zip(jobs, self._write(asked, 0))
            for idea in self._lines(text)
        ]
        texts = self._write([self._document(*plan) for plan in plans], 1) if plans else []
        made: list[Record] = []
        seen: list[set[tuple[str, ...]]] = []
        ratings = self._ratings(plans, texts)
        for place, (plan, text) in enumerate(zip(plans, texts)):
            principle, kind, idea = plan
            origin = f"{principles.name}, {principle.name}, {kind}, {idea[:60]}"
            self.account.read += 1
            reason = self._why_not(principle, text, ratings[place], seen)
            if reason is not None:
                self.account.drop(reason, origin)
                continue
            assert text is not None
            seen.append(_shingles(text))
            lineage = {
                "spec": principles.name,
                "principle": principle.name,
                "type": kind,
                "idea": idea,
                "writer": self.policy.name,
            }
            made.append(document(text, origin=origin, lineage=lineage))
        if not made:
            raise DataError(
                "no document about the spec is left", where=principles.name, found=dict(self.account.dropped)
            )
        return Records.of(made, account=self.account.copy(), source=f"documents about {principles.name}")

    def _ideas(self, principle: Principle, kind: str) -> str:
        return IDEAS.format(many=self.ideas, type=kind, name=self.called, principle=principle.said())

    def _document(self, principle: Principle, kind: str, idea: str) -> str:
        return DOCUMENT.format(type=kind, name=self.called, principle=principle.said(), idea=idea)

    def _write(self, prompts: Sequence[str], turn: int) -> list[str | None]:
        """One text a prompt; None where it was cut."""
        written = self.policy.generate(
            prompts,
            n=1,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=2 * self.seed + turn,
        )
        return [row[0].text.strip() if row[0].finished else None for row in written]

    def _lines(self, text: str | None) -> list[str]:
        found = [_NUMBER.sub("", line).strip() for line in (text or "").splitlines() if line.strip()]
        if len(found) < self.ideas:
            self.account.notes["fewer ideas than asked for"] += 1
        return found[: self.ideas]

    def _ratings(
        self, plans: Sequence[tuple[Principle, str, str]], texts: Sequence[str | None]
    ) -> list[float | None]:
        if self.judge is None or not plans:
            return [None] * len(plans)
        found = []
        for (principle, kind, _), text in zip(plans, texts):
            rubric = AGREES.format(principle=principle.said())
            found.append(self.judge.rate([f"A {kind}."], [text or ""], rubric=rubric)[0].value)
        return found

    def _why_not(
        self, principle: Principle, text: str | None, rating: float | None, seen: Sequence[set[tuple[str, ...]]]
    ) -> str | None:
        """Why a text is left out; None where it is kept."""
        if text is None:
            return "cut at max_new_tokens"
        if not text:
            return "empty"
        if _TURN.search(text):
            return "a transcript: that would be a demonstration"
        if principle.negated and principle.negated.lower() in text.lower():
            return "says the opposite of its principle"
        if self.judge is not None:
            if rating is None:
                return "the judge could not be read"
            if rating < self.agrees:
                return "does not agree with its principle"
        own = _shingles(text)
        if any(len(own & other) >= self.alike * len(own | other) for other in seen):
            return "almost the same as another"
        return None


def document(text: str, *, origin: str = "", lineage: dict[str, Any] | None = None) -> Record:
    """A plain text as a record: all of it is to be imitated, no template renders it."""
    extras = {} if lineage is None else {"lineage": lineage}
    whole = Response((Message(TEXT, text),))
    return Record((), (whole,), (Judgment("demonstration", (0,)),), origin=origin, extras=extras)


def pieces(records: Records, tokenizer: Any, most: int | None) -> Records:
    """Documents with those that are too long in pieces, so that nothing of them is cut off.

    A piece ends between two words, as late as it may; the end token is put after each, as after a whole text.

    Args:
        records: plain texts.
        tokenizer: counts tokens, word by word.
        most: tokens of a piece, the end token included; None for any number.

    Raises:
        DataError: a record is no plain text, or one word alone is longer.
    """
    made: list[Record] = []
    for record in records:
        if record.chat or record.prompt or len(record.responses) != 1:
            raise DataError(
                "a document is plain text, and this is a conversation",
                where=record.origin or records.source,
                expected='records with a text alone: {"text": ...}',
                remedy="conversations are demonstrations: give them to the stage after the documents",
            )
        parts = [record.responses[0].text] if most is None else _cut(record, tokenizer, most - 1)
        made += [record] if len(parts) == 1 else [document(part, origin=record.origin) for part in parts]
    return Records.of(made, account=records.account.copy(), source=records.source)


def _cut(record: Record, tokenizer: Any, most: int) -> list[str]:
    words = re.findall(r"\s*\S+", record.responses[0].text)
    sizes = [len(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]] if words else []
    parts, size = [""], 0
    for word, own in zip(words, sizes):
        if own > most:
            raise DataError("a word is longer than max_length", where=record.origin, found=word[:80])
        if size + own > most:
            parts, size = [*parts, ""], 0
        parts[-1] += word if parts[-1] else word.lstrip()
        size += own
    return parts


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _SHINGLE]) for i in range(max(len(words) - _SHINGLE + 1, 1))}
