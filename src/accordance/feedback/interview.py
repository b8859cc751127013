"""An interview: which questions one person is asked about some tasks, and what their answers mean.

No screen in here: a terminal, a web page or a test shows `Question`s and hands back lines or judgments.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record
from accordance.feedback.store import Annotator, Entry, Store

Kind = Literal["comparison", "rating", "thumb"]

#: What may follow a choice, and the strength that it stands for.
STRENGTHS = {"-": 0.5, "": 1.0, "+": 2.0}
_CHOICES = {"1": (1.0, 0.0), "2": (0.0, 1.0), "=": (0.5, 0.5)}
_ANSWER = re.compile(r"(\S+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One thing to ask.

    Attributes:
        key: of the judgment that answers it; the same person gets the same key every time.
        task: key of the task.
        record: the prompt and the responses.
        shown: indices of the responses, in the order in which they are shown.
        attribute: the criterion asked for; None for overall.
    """

    key: str
    task: str
    record: Record
    shown: tuple[int, ...]
    attribute: str | None = None


class Interview:
    """What one person is asked.

    Two responses are shown in an order that the person, the pair and the seed decide, so that going on another
    day shows it the same way. The answer keeps the order.

    Args:
        tasks: keys and records, as `Store.tasks` gives them.
        annotator: who is asked.
        kind: ``comparison`` of two responses, or a ``rating`` or ``thumb`` for each response by itself.
        criteria: attributes that are asked for after the overall judgment.
        per_record: at most so many pairs of each record, drawn by the seed; 0: all.
        strength: whether a choice may say how strong it is.
        scale: lowest and highest rating.
        seed: decides orders and draws.

    Raises:
        ConfigError: an option is out of range or would have no effect.
    """

    def __init__(
        self,
        tasks: Iterable[tuple[str, Record]],
        annotator: Annotator,
        *,
        kind: Kind = "comparison",
        criteria: Sequence[str] = (),
        per_record: int = 1,
        strength: bool = False,
        scale: tuple[int, int] = (1, 5),
        seed: int = 0,
    ) -> None:
        if kind not in ("comparison", "rating", "thumb"):
            raise ConfigError("unknown kind of question", found=kind, expected="comparison, rating or thumb")
        if kind != "comparison" and strength:
            raise ConfigError("only comparisons have a strength", found=f"strength with {kind}")
        if kind != "rating" and scale != (1, 5):
            raise ConfigError("only ratings have a scale", found=f"scale {scale} with {kind}")
        if scale[0] >= scale[1] or per_record < 0 or len(set(criteria)) < len(criteria):
            raise ConfigError(
                "an option of the interview is out of range",
                found={"scale": scale, "per_record": per_record, "criteria": list(criteria)},
                expected="a rising scale, a number of pairs from 0, criteria that differ",
            )
        self.annotator, self.kind, self.strength, self.scale = annotator, kind, strength, scale
        self.criteria, self.per_record, self.seed = tuple(criteria), per_record, seed
        #: Tasks that there is nothing to ask about: too few different responses.
        self.unfit: list[Record] = []
        self.questions = [question for key, record in tasks for question in self._of(key, record)]

    def _of(self, task: str, record: Record) -> list[Question]:
        size = 2 if self.kind == "comparison" else 1
        sets = [
            items
            for items in combinations(range(len(record.responses)), size)
            if len({record.responses[i].text for i in items}) == size
        ]
        if not sets:
            self.unfit.append(record)
        if size == 2 and 0 < self.per_record < len(sets):
            sets = sorted(self._rng(task, "draw").sample(sets, self.per_record))
        made = []
        for items in sets:
            shown = list(items)
            self._rng(task, "order", *items).shuffle(shown)
            for attribute in (None, *self.criteria):
                key = self._key(task, *items, attribute)
                made.append(Question(key, task, record, tuple(shown), attribute))
        return made

    def left(self, answered: Iterable[str]) -> list[Question]:
        """The questions whose keys are not among these."""
        done = set(answered)
        return [question for question in self.questions if question.key not in done]

    def parse(self, question: Question, line: str) -> Judgment:
        """The judgment that a line of text stands for.

        A comparison: ``1`` or ``2`` (the first or second shown is better), ``=`` (equally good), ``x`` (they can't
        be compared); with `strength` perhaps followed by ``-`` (slightly) or ``+`` (much). A rating: a number of
        the scale. A thumb: ``+`` or ``-``. There ``x`` means that one can't say. Whatever follows after a space is
        the reason.

        Raises:
            DataError: the line is none of that.
        """
        found = _ANSWER.fullmatch(_clean(line).strip())
        choice, reason = found.groups() if found else ("", None)
        made = self._judged(question, choice)
        if made is None:
            raise DataError("this is no answer", found=line, expected=self.grammar)
        person = self.annotator
        return replace(
            made,
            text=(reason or "").strip() or None,
            annotator=person.name,
            group=person.group,
            attribute=question.attribute,
        )

    def _judged(self, question: Question, choice: str) -> Judgment | None:
        if choice == "x":
            return Judgment("incomparable", question.shown)
        if self.kind == "comparison":
            mark = choice[-1:] if self.strength and choice[:1] in "12" and choice[1:] in ("-", "+") else ""
            head = choice.removesuffix(mark) if mark else choice
            if head not in _CHOICES:
                return None
            strength = STRENGTHS[mark] if self.strength and head != "=" else None
            return Judgment("comparison", question.shown, _CHOICES[head], strength=strength)
        if self.kind == "thumb":
            if choice not in ("+", "-"):
                return None
            return Judgment("thumb", question.shown, (1.0 if choice == "+" else 0.0,))
        if not choice.isdecimal() or not self.scale[0] <= int(choice) <= self.scale[1]:
            return None
        return Judgment("rating", question.shown, (float(choice),))

    @property
    def grammar(self) -> str:
        """What an answer looks like, in a line."""
        if self.kind == "comparison":
            strong = ", 1- or 1+ for slightly or much" if self.strength else ""
            return (
                f"1 or 2 for the better one{strong}, = for equally good, x for can't be compared; then a reason"
            )
        if self.kind == "thumb":
            return "+ or -, x for can't say; then a reason"
        low, high = self.scale
        return f"a number from {low} (worst) to {high} (best), x for can't say; then a reason"

    def record(self, store: Store, question: Question, judgment: Judgment) -> str:
        """Write an answer; where the question was answered before, as a correction.

        Returns:
            The key of the row.
        """
        key, before = question.key, None
        mine = store.judgments(tasks=[question.task], annotator=self.annotator.name, superseded=True)
        chain = [entry for entry in mine if entry.key.split("/")[0] == question.key]
        if chain:
            if chain[-1].judgment == judgment:
                return chain[-1].key
            before, key = chain[-1].key, f"{question.key}/{len(chain)}"
        store.add_judgments([Entry(key, question.task, judgment, before)])
        return key

    def _rng(self, *parts: Any) -> random.Random:
        return random.Random(self._key(self.seed, *parts))

    def _key(self, *parts: Any) -> str:
        text = repr((self.kind, self.annotator.name, *parts))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def answered(store: Store, annotator: str) -> set[str]:
    """Keys of the questions that this person has answered (in the interview's sense: not withdrawn)."""
    return {entry.key.split("/")[0] for entry in store.judgments(annotator=annotator)}


def visible(text: str) -> str:
    """Text that can be shown in a terminal: what would move the cursor, or turn the reading direction, is named.

    Responses may be hostile: an escape sequence could overwrite the other response.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _named(c) for c in text)


def _named(char: str) -> str:
    code = ord(char)
    # Joiners hold emoji and many scripts together; they don't print by themselves.
    if char in "\u200c\u200d":
        return char
    return chr(0x2400 + code) if code < 0x20 else f"<U+{code:04X}>"


def _clean(text: str) -> str:
    """Without what neither a database nor Records can hold."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
