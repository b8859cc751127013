"""Responses made worse by a known degree: key content is taken out, more of it with every degree.

Importance is statistical: how few other texts have a word. It builds graded variants of a response (`degrade`) and the
control beside them, in which as much is missing that does not matter (`thin`).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_UNIT = re.compile(r"\S+\s*")
_BARE = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass
class KeyContent:
    """Which words of a text carry its content, by their rarity among texts.

    Attributes:
        texts: how many texts were read.
        having: for each word, how many of them have it.
        share: share of a text's words that count as key content.
    """

    texts: int = 0
    having: Counter[str] = field(default_factory=Counter)
    share: float = 0.5

    @classmethod
    def fit(cls, texts: Iterable[str], share: float = 0.5) -> KeyContent:
        """Count in how many texts each word is."""
        made = cls(share=share)
        for text in texts:
            made.texts += 1
            made.having.update({word.lower() for word in _BARE.findall(text)})
        return made

    def importance(self, word: str) -> float:
        """log of texts over texts that have the word; 0 for what is no word."""
        bare = _BARE.search(word)
        if bare is None:
            return 0.0
        return math.log((1 + self.texts) / (1 + self.having[bare.group().lower()]))

    def ranked(self, text: str) -> list[int]:
        """The places of a text's words, the most important first."""
        units = _UNIT.findall(text)
        return sorted(range(len(units)), key=lambda i: (-self.importance(units[i]), i))

    def key_units(self, text: str) -> int:
        """How many of a text's words count as key content; never all of them."""
        size = len(_UNIT.findall(text))
        return min(math.ceil(self.share * size), max(size - 1, 0))

    def degrade(self, text: str, severity: float) -> str:
        """A text without the most important share of its key content.

        Args:
            text: the text.
            severity: which share of its key content goes; 0 to 1.
        """
        return _without(text, self.ranked(text)[: self.removed(text, severity)])

    def removed(self, text: str, severity: float) -> int:
        """How many words `degrade` takes out."""
        return round(severity * self.key_units(text))

    def thin(self, text: str, count: int, draw: random.Random) -> str:
        """A text without some words that are no key content, one word at least left.

        Args:
            text: the text.
            count: how many go, if there are so many.
            draw: decides which.
        """
        spare = self.ranked(text)[self.key_units(text) :]
        return _without(text, draw.sample(spare, min(count, len(spare))))


def _without(text: str, places: Iterable[int]) -> str:
    gone = set(places)
    return "".join(unit for i, unit in enumerate(_UNIT.findall(text)) if i not in gone).strip()
