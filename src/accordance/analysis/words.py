"""Which words tell one pile of texts from another: log-odds with a prior, so that rare words do not win by luck."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

_WORD = re.compile(r"\w+(?:['’]\w+)?")


def telling_words(
    more: Iterable[str], less: Iterable[str], many: int = 8, *, least: float = 2.0
) -> list[tuple[str, float]]:
    """Words that stand in more texts of one pile than of the other (Monroe, Colaresi and Quinn 2008).

    Args:
        more: the pile whose words are looked for.
        less: what it is compared with.
        many: at most so many words.
        least: z-score below which a word is not named.

    Returns:
        (word, z-score of the log-odds), the most telling first. A word counts once per text.
    """
    piles = [list(pile) for pile in (more, less)]
    counts = [Counter(w for text in pile for w in set(_WORD.findall(text.lower()))) for pile in piles]
    words = sorted(set(counts[0]) | set(counts[1]))
    if not words or not all(piles):
        return []
    seen = np.array([[count[word] for word in words] for count in counts], dtype=float)
    prior = 10 * seen.sum(0) / max(seen.sum(), 1) + 0.01
    texts = np.array([[len(pile)] for pile in piles], dtype=float)
    odds = np.log((seen + prior) / (texts - seen + 1))
    z = (odds[0] - odds[1]) / np.sqrt((1 / (seen + prior)).sum(0))
    order = np.argsort(-z, kind="stable")[:many]
    return [(words[i], float(z[i])) for i in order if z[i] >= least]
