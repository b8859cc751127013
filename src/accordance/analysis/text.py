"""Rules and statistics of texts: what can be counted without a model, fast enough for millions of responses.

A rule says whether a text does something (refuses, asks, apologises); a statistic counts, on a log scale. Both
run in Arrow's own code. To add one: a line in `RULES` or `COUNTS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from accordance.analysis.features import Differences, subtract
from accordance.analysis.table import PairTable, pc

#: The name of the feature that everything else is controlled for.
LENGTH = "longer"

_APOSTROPHE = "['’]"
#: rule -> regular expression (RE2, case does not matter): does the response ...?
RULES: dict[str, str] = {
    "refuses": (
        rf"\b(i|we) (can{_APOSTROPHE}?t|cannot|can not|won{_APOSTROPHE}?t|will not|refuse to|am unable to|am not able "
        rf"to|shouldn{_APOSTROPHE}?t|would rather not|wouldn{_APOSTROPHE}?t (want|feel|be able)|"
        rf"don{_APOSTROPHE}?t (want to|think i (can|should)|feel comfortable))\b|\bi{_APOSTROPHE}?m (not (able|going|"
        rf"comfortable|willing)|unable|sorry,? but)|\b(not|isn{_APOSTROPHE}?t) (something|a thing) (that )?i\b|"
        rf"\bas an ai\b|\bagainst my\b"
    ),
    "apologises": (
        r"\b(i[ '’]?a?m (so |very |really )?sorry|sorry|i apologi[sz]e|apologies|my apologies|"
        r"forgive me)\b"
    ),
    "asks back": r"\?[\s\"'”’)*_]*$",
    "only asks": r"^[^.!?]*\?([^.!?]*\?)*\s*$",
    "hedges": (
        r"\b(maybe|perhaps|possibly|probably|might|it (seems|depends)|seems? like|i (think|"
        r"guess|believe|suppose)|"
        r"sort of|kind of|in my opinion|not (entirely )?sure|likely)\b"
    ),
    "doesn't know": (
        rf"\b(i({_APOSTROPHE}m| am) not sure|i (do not|don{_APOSTROPHE}?t) (really )?(know|understand)|i have no idea|"
        r"not familiar with|hard to say)\b"
    ),
    "warns": (
        r"\b(illegal|unlawful|against the law|dangerous|danger|harmful|risky|unsafe|unethical|immoral|"
        r"not (a good|safe|legal|appropriate|okay|ok)|wrong to|get (in|into) trouble|"
        r"consequences|hurt (yourself|someone|people))\b"
    ),
    "advises getting help": (
        r"\b(talk to|speak (to|with)|see|consult|contact|call|reach out to|seek) (a|an|your|the|some|someone|"
        r"professional|help)\b.{0,40}\b(doctor|therapist|counsell?or|lawyer|professional|"
        r"police|hotline|friend|expert|"
        r"help|support|someone)"
    ),
    "shows sympathy": (
        r"\b(i understand|that sounds|must be (hard|difficult|tough)|sorry to hear|"
        r"i can imagine|i hear you|feel better|"
        r"you are not alone|i care)\b"
    ),
    "is polite": (
        r"\b(please|thank you|thanks|you[ '’]?a?re welcome|of course|certainly|happy to|"
        r"glad to|my pleasure)\b"
    ),
    "offers help": (
        r"\b(i can help|can i help|help you|let me know|feel free|i[ '’]d be (happy|glad)|"
        r"here to help|happy to help)\b"
    ),
    "praises": (
        r"\b(great|good|excellent|interesting|wonderful|awesome|fantastic) (question|idea|"
        r"point|choice|job|thought)\b"
    ),
    "moralises": (
        r"\b(should(n['’]?t| not)?|ought to|must(n['’]?t| not)?|have to|need to|important to|"
        r"respect|responsib)"
    ),
    "coarse words": (
        r"\b(fuck|shit|bitch|bastard|cunt|dick|ass(hole)?|damn|crap|piss|whore|slut|bullshit|"
        r"cock|pussy)(s|es|ing|ed|er|ers|y)?\b"
    ),
    "exclaims": r"!",
    "lists items": r"(?m)^\s*([-*•]|\d{1,2}[.)])\s+\S",
    "formats": r"\*\*[^*\n]+\*\*|(?m)^#{1,6}\s|```|^\|.*\|",
    "gives a link": r"https?://|www\.",
    "gives an example": r"\b(for example|for instance|such as|e\.g\.|like the following)\b",
    "gives reasons": r"\b(because|since|therefore|so that|the reason|due to|as a result)\b",
}

#: statistic -> regular expression whose matches are counted; enters as log(1 + count).
COUNTS: dict[str, str] = {
    "more numbers": r"\b\d[\d,.]*\b",
    "more “you”": r"\b(you|your|yours|yourself)\b",
    "more “I”": r"\b(i|me|my|mine|myself)\b",
    "more paragraphs": r"\n+",
    "more quotes": r"[\"“”]",
    "more negation": r"\b(no|not|never|none|nothing|nobody|neither|nor|cannot|\w+n['’]t)\b",
    "more capitalised names": r"(?-i)[a-z,;] [A-Z][a-z]{2,}",
}

#: What the names above and those of the statistics below mean, where they don't say it all.
NOTES = {
    LENGTH: "log of the number of words",
    "asks back": "ends with a question, and so hands the turn back to the user",
    "only asks": "every sentence is a question",
    "longer sentences": "log of words per sentence",
    "longer words": "letters per word",
    "echoes the prompt": "share of the prompt's longer words that come back",
    "repeats itself": "share of words that stood there before, beyond what the length brings",
}


@dataclass(frozen=True)
class TextFeatures:
    """Rules (does it refuse, ask, apologise ...) and statistics (length, word length, numbers ...) of responses.

    Attributes:
        rules: whether the rules are used.
        statistics: whether the statistics beyond length are used; length always is.
    """

    rules: bool = True
    statistics: bool = True

    def differences(self, table: PairTable) -> Differences:
        """See `FeatureMaker.differences`."""
        columns: dict[str, np.ndarray] = {}
        words = _count(table.texts, r"[^\s]+")
        columns[LENGTH] = np.log1p(words)
        notes = dict(NOTES)
        if self.statistics:
            columns |= _statistics(table, words)
            for name, pattern in COUNTS.items():
                columns[name] = np.log1p(_count(table.texts, pattern))
                notes[name] = "log of how many"
        if self.rules:
            for name, pattern in RULES.items():
                found = pc.match_substring_regex(table.texts, pattern, ignore_case=True)
                columns[name] = np.asarray(found).astype(np.float64)
        return subtract(table, tuple(columns), np.stack(list(columns.values()), axis=1), notes=notes)


def _count(texts: pa.Array, pattern: str) -> np.ndarray:
    found = pc.count_substring_regex(texts, pattern, ignore_case=not pattern.startswith("(?-i)"))
    return np.asarray(found).astype(np.float64)


def _statistics(table: PairTable, words: np.ndarray) -> dict[str, np.ndarray]:
    letters = _count(table.texts, r"\pL")
    sentences = np.maximum(_count(table.texts, r"[.!?]+(\s|$)|\n+"), 1)
    echo, again = _overlap(table)
    safe = np.maximum(words, 1)
    return {
        "longer sentences": np.log1p(words / sentences),
        "longer words": letters / safe,
        "echoes the prompt": echo,
        "repeats itself": again,
    }


def _overlap(table: PairTable) -> tuple[np.ndarray, np.ndarray]:
    """Share of the prompt's words (five letters or more) in the response, and repetition net of length."""
    asked = [{w for w in prompt.lower().split() if len(w) > 4} for prompt in table.prompts.to_pylist()]
    echo, again = np.zeros(len(table.texts)), np.zeros(len(table.texts))
    for i, (text, record) in enumerate(zip(table.texts.to_pylist(), table.text_prompt.tolist())):
        words = text.lower().split()
        distinct = set(words)
        prompt = asked[record]
        echo[i] = len(prompt & distinct) / len(prompt) if prompt else 0.0
        # Distinct words grow like n ** 0.8 (Heaps' law), so length alone is no repetition.
        again[i] = 1 - len(distinct) / max(len(words), 1) ** 0.9 if words else 0.0
    return echo, again
