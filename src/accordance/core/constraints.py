"""Verifiable constraints: an instruction in words, and exact code that says whether a text follows it.

A `Constraint` is a *kind* with arguments. The code that checks one is the code that makes one, so that
`following(text)`, `breaking(text)` and `between(text, other)` are right by construction. `ifeval` reads the
instructions of the IFEval benchmark (arXiv:2311.07911) of the same kinds.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from accordance.core.errors import DataError, unknown

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r"[^.!?\n]*\w[^.!?\n]*(?:[.!?]+|\n|$)")
_ONE = re.compile(r"(?<!\d)1 (?:words|sentences|bullets|paragraphs|times)")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)

Relation = Literal["least", "most", "exactly"]


@dataclass(frozen=True)
class Constraint:
    """One verifiable demand on a text.

    Attributes:
        kind: what is demanded; see `kinds`.
        arguments: its details, such as ``{"relation": "least", "count": 20}``.
        wording: which of the kind's paraphrases `instruction` takes.
    """

    kind: str
    arguments: Mapping[str, Any]
    wording: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise unknown("constraint", self.kind, _KINDS)

    @property
    def instruction(self) -> str:
        """The demand in words."""
        kind = _KINDS[self.kind]
        words = dict(self.arguments)
        if "relation" in words:
            words["relation"] = _RELATIONS[words["relation"]]
        text = kind.wordings[self.wording % len(kind.wordings)].format(**words)
        return _ONE.sub(lambda found: found.group()[:-1], text)

    def met(self, text: str) -> bool:
        """Whether a text follows it, exactly."""
        return _KINDS[self.kind].check(text, self.arguments)


def words(text: str) -> list[str]:
    """The words of a text, as they stand."""
    return _WORD.findall(text)


def sentences(text: str) -> int:
    """Number of sentences: stretches with a word, ended by ``.``, ``!``, ``?`` or the end of a line."""
    return sum(1 for found in _SENTENCE.finditer(text) if found.group().strip())


def bullets(text: str) -> int:
    """Number of lines that begin with a dash, a star, a dot or a number."""
    return len(_BULLET.findall(text))


def paragraphs(text: str) -> int:
    """Number of blocks parted by empty lines."""
    return sum(1 for block in re.split(r"\n\s*\n", text) if block.strip())


# Kinds.

_RELATIONS: dict[str, str] = {"least": "at least", "most": "at most", "exactly": "exactly"}
_COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(words(text)),
    "sentences": sentences,
    "bullets": bullets,
    "paragraphs": paragraphs,
}

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]
Propose = Callable[[str, str | None, random.Random], Arguments | None]


@dataclass(frozen=True)
class _Kind:
    """How one kind is checked, worded and fitted.

    Attributes:
        check: whether a text follows it.
        wordings: paraphrases of the instruction.
        fit: arguments that the first text follows and the second, if any, breaks; None where there are none.
    """

    check: Check
    wordings: tuple[str, ...]
    fit: Propose


def _related(found: int, arguments: Arguments) -> bool:
    count, relation = int(arguments["count"]), arguments["relation"]
    return {"least": found >= count, "most": found <= count, "exactly": found == count}[relation]


def _count_kind(unit: str) -> _Kind:
    measure = _COUNTS[unit]

    def fit(text: str, other: str | None, draw: random.Random) -> Arguments | None:
        have = measure(text)
        if other is None:
            relation = draw.choice(["least", "most"])
            slack = draw.randint(0, max(have // 4, 1))
            count = max(have - slack, 1) if relation == "least" else have + slack
            return {"relation": relation, "count": count} if have else None
        theirs = measure(other)
        if have == theirs or (unit in ("bullets", "paragraphs") and not have):
            return None
        if have > theirs:
            return {"relation": "least", "count": draw.randint(theirs + 1, have)}
        return {"relation": "most", "count": draw.randint(max(have, 1), theirs - 1)} if theirs > 1 else None

    return _Kind(
        lambda text, arguments: _related(measure(text), arguments),
        (
            f"Use {{relation}} {{count}} {unit}.",
            f"Your answer must have {{relation}} {{count}} {unit}.",
            f"Write {{relation}} {{count}} {unit}.",
        ),
        fit,
    )


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word.lower())}(?!\w)", text.lower()))


def _rare(text: str, without: str | None, draw: random.Random) -> str | None:
    """A word of the text of four letters or more, that the other text does not have."""
    own = sorted({word.lower() for word in words(text) if len(word) > 3})
    some = [word for word in own if without is None or not _occurrences(without, word)]
    return draw.choice(some) if some else None


def _fit_keyword(text: str, other: str | None, draw: random.Random) -> Arguments | None:
    word = _rare(text, other, draw)
    return None if word is None else {"word": word, "relation": "least", "count": 1}


def _fit_forbidden(text: str, other: str | None, draw: random.Random) -> Arguments | None:
    word = None if other is None else _rare(other, text, draw)
    return None if word is None else {"word": word}


def _edge_kind(place: Literal["start", "end"], wordings: tuple[str, ...]) -> _Kind:
    def edge(text: str, size: int) -> str:
        parts = text.split()
        return " ".join(parts[:size] if place == "start" else parts[-size:])

    def check(text: str, arguments: Arguments) -> bool:
        bare, phrase = text.strip().lower(), str(arguments["phrase"]).lower()
        return bare.startswith(phrase) if place == "start" else bare.endswith(phrase)

    def fit(text: str, other: str | None, draw: random.Random) -> Arguments | None:
        phrase = edge(text, draw.randint(1, 2))
        if not phrase or not check(text, {"phrase": phrase}):
            return None
        return None if other is not None and check(other, {"phrase": phrase}) else {"phrase": phrase}

    return _Kind(check, wordings, fit)


def _plain_kind(check: Callable[[str], bool], *wordings: str) -> _Kind:
    """A kind without arguments."""

    def fit(text: str, other: str | None, draw: random.Random) -> Arguments | None:
        return {} if check(text) and not (other is not None and check(other)) else None

    return _Kind(lambda text, _: check(text), wordings, fit)


def _is_json(text: str) -> bool:
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True


_KINDS: dict[str, _Kind] = {
    **{unit: _count_kind(unit) for unit in _COUNTS},
    "keyword": _Kind(
        lambda text, a: _related(_occurrences(text, str(a["word"])), a),
        (
            'Use the word "{word}" {relation} {count} times.',
            'The word "{word}" must appear {relation} {count} times.',
            'Let the word "{word}" occur {relation} {count} times.',
        ),
        _fit_keyword,
    ),
    "forbidden": _Kind(
        lambda text, a: not _occurrences(text, str(a["word"])),
        ('Do not use the word "{word}".', 'Avoid the word "{word}".', 'Answer without the word "{word}".'),
        _fit_forbidden,
    ),
    "start": _edge_kind("start", ('Begin with "{phrase}".', 'Your answer must start with "{phrase}".')),
    "end": _edge_kind("end", ('End with "{phrase}".', 'The last words must be "{phrase}".')),
    "lowercase": _plain_kind(
        lambda text: text == text.lower() and text != text.upper(),
        "Write in lower case only.",
        "Do not use capital letters.",
    ),
    "uppercase": _plain_kind(
        lambda text: text == text.upper() and text != text.lower(),
        "Write in capital letters only.",
        "USE CAPITALS throughout.",
    ),
    "no_comma": _plain_kind(lambda text: "," not in text, "Do not use any commas.", "Answer without commas."),
    "question": _plain_kind(
        lambda text: text.rstrip().endswith("?"), "End with a question.", "Close by asking something."
    ),
    "quoted": _plain_kind(
        lambda text: len(text.strip()) > 1 and text.strip()[0] == '"' == text.strip()[-1],
        "Wrap your whole answer in double quotation marks.",
        "Put the entire answer in double quotes.",
    ),
    "json": _plain_kind(_is_json, "Answer in JSON.", "The whole answer must be valid JSON."),
    "title": _plain_kind(
        lambda text: re.search(r"<<[^\n<>]+>>", text) is not None,
        "Give a title in double angular brackets, such as <<a title>>.",
        "Include a title wrapped as <<title>>.",
    ),
}


def kinds() -> list[str]:
    """The names of all kinds of constraints, sorted."""
    return sorted(_KINDS)


# Making constraints for texts.


def following(text: str, draw: random.Random, *, among: Sequence[str] = ()) -> list[Constraint]:
    """Constraints that a text follows, at most one of each kind, in random order.

    Args:
        text: the text.
        draw: decides arguments, wordings and order.
        among: the kinds to take; all by default.
    """
    return _fitted(text, None, draw, among)


def between(text: str, other: str, draw: random.Random, *, among: Sequence[str] = ()) -> list[Constraint]:
    """Constraints that one text follows and the other breaks, at most one of each kind, in random order."""
    return _fitted(text, other, draw, among)


def _fitted(text: str, other: str | None, draw: random.Random, among: Sequence[str]) -> list[Constraint]:
    names = list(among or _KINDS)
    draw.shuffle(names)
    made = []
    for name in names:
        if name not in _KINDS:
            raise unknown("constraint", name, _KINDS)
        arguments = _KINDS[name].fit(text, other, draw)
        if arguments is not None:
            made.append(Constraint(name, arguments, draw.randrange(6)))
    return made


def instructions(constraints: Sequence[Constraint]) -> str:
    """Several constraints in words, one after the other."""
    return " ".join(constraint.instruction for constraint in constraints)


# IFEval's names for the kinds that are here.

_IFEVAL_PLAIN = {
    "detectable_format:json_format": "json",
    "detectable_format:title": "title",
    "change_case:english_lowercase": "lowercase",
    "change_case:english_capital": "uppercase",
    "punctuation:no_comma": "no_comma",
    "startend:quotation": "quoted",
}
_IFEVAL_COUNTS = {
    "length_constraints:number_words": ("words", "num_words"),
    "length_constraints:number_sentences": ("sentences", "num_sentences"),
}


def ifeval(instruction_id: str, kwargs: Mapping[str, Any]) -> list[Constraint]:
    """The constraints behind one IFEval instruction; words and sentences are counted our way, not nltk's.

    Args:
        instruction_id: such as ``"keywords:existence"``.
        kwargs: its arguments, as IFEval's file has them.

    Raises:
        DataError: no kind here checks that instruction.
    """
    if instruction_id in _IFEVAL_PLAIN:
        return [Constraint(_IFEVAL_PLAIN[instruction_id], {})]
    if instruction_id in _IFEVAL_COUNTS:
        kind, count = _IFEVAL_COUNTS[instruction_id]
        return [Constraint(kind, _below_or_least(kwargs["relation"], kwargs[count]))]
    if instruction_id == "keywords:existence":
        return [Constraint("keyword", {"word": w, "relation": "least", "count": 1}) for w in kwargs["keywords"]]
    if instruction_id == "keywords:forbidden_words":
        return [Constraint("forbidden", {"word": word}) for word in kwargs["forbidden_words"]]
    if instruction_id == "keywords:frequency":
        how = _below_or_least(kwargs["relation"], kwargs["frequency"])
        return [Constraint("keyword", {"word": kwargs["keyword"]} | how)]
    if instruction_id == "detectable_format:number_bullet_lists":
        return [Constraint("bullets", {"relation": "exactly", "count": kwargs["num_bullets"]})]
    if instruction_id == "startend:end_checker":
        return [Constraint("end", {"phrase": str(kwargs["end_phrase"]).strip()})]
    raise DataError(
        "this IFEval instruction can't be checked here",
        found=instruction_id,
        expected=", ".join(sorted({*_IFEVAL_PLAIN, *_IFEVAL_COUNTS})) + ", keywords:*, startend:end_checker, "
        "detectable_format:number_bullet_lists",
    )


def _below_or_least(relation: str, count: int) -> dict[str, Any]:
    """IFEval says "less than" and "at least"."""
    if relation == "less than":
        return {"relation": "most", "count": int(count) - 1}
    return {"relation": "least", "count": int(count)}
