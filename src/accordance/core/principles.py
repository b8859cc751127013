"""Principles: what to hold to, why, and when. A set of them is a constitution, a rubric, or a model's spec."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from accordance.core.errors import ConfigError, DataError, nearest

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Principle:
    """One principle.

    Attributes:
        name: unique in its set.
        text: what is asked, such as "Prefer honest answers to pleasant ones."
        reason: why; empty for a bare rule.
        negated: its opposite, as a text of the same form, for contrasts; empty where nobody wrote one.
        trigger: when it applies, in words that such prompts have; empty for always.
        weight: how much it counts, above 0.
    """

    name: str
    text: str
    reason: str = ""
    negated: str = ""
    trigger: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.text.strip() or not self.weight > 0:
            raise DataError(
                "a principle has a name, a text, and a weight above 0",
                where=self.name or None,
                found=f"text {self.text!r}, weight {self.weight}",
            )

    def said(self, *, reasons: bool = True) -> str:
        """The text, with the reason behind it where there is one and it is wanted."""
        return f"{self.text} {self.reason}".strip() if reasons else self.text


class PrincipleSet(Sequence[Principle]):
    """Principles in order.

    Args:
        principles: any number of them.
        name: what reports call the set.

    Raises:
        DataError: two have one name.
    """

    def __init__(self, principles: Iterable[Principle], name: str = "principles") -> None:
        self._all, self.name = tuple(principles), name
        names = [principle.name for principle in self._all]
        twice = [one for one in names if names.count(one) > 1]
        if twice:
            raise DataError("two principles have one name", where=name, found=twice[0])

    @classmethod
    def of(cls, texts: Iterable[str], name: str = "principles") -> PrincipleSet:
        """Bare rules, named by their numbers."""
        return cls((Principle(str(number), text) for number, text in enumerate(texts, 1)), name)

    @classmethod
    def read(cls, path: str | Path) -> PrincipleSet:
        """From a YAML or JSON file: a list of principles, each a text or a mapping with the fields of `Principle`.

        Raises:
            ConfigError: the file can't be read.
            DataError: an entry is neither, or has an unknown field.
        """
        path = Path(path)
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError("the principles can't be read", where=str(path), found=str(error)) from error
        if not isinstance(given, list) or not given:
            expected = "a list of texts, or of mappings with name, text, reason, ..."
            raise DataError(
                "these are no principles", where=str(path), found=type(given).__name__, expected=expected
            )
        return cls((_entry(one, n, str(path)) for n, one in enumerate(given, 1)), path.stem)

    def save(self, path: str | Path) -> None:
        """Write it as YAML (or JSON, by the name); empty fields are left out."""
        rows = [{key: value for key, value in asdict(one).items() if value not in ("",)} for one in self]
        text = (
            json.dumps(rows, ensure_ascii=False, indent=1)
            if str(path).endswith(".json")
            else yaml.safe_dump(rows, sort_keys=False, allow_unicode=True)
        )
        Path(path).write_text(text, encoding="utf-8")

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Principle]:
        return iter(self._all)

    def __getitem__(self, key: Any) -> Any:
        """By place, or by name. Raises KeyError for a name that is not there."""
        if isinstance(key, str):
            return next((one for one in self if one.name == key), None) or _missing(key, self)
        return self._all[key]

    def __repr__(self) -> str:
        return f"PrincipleSet({self.name!r}, {len(self)} principles)"

    def text(self, *, reasons: bool = True) -> str:
        """All of them as a numbered list, for a prompt."""
        return "\n".join(f"{number}. {one.said(reasons=reasons)}" for number, one in enumerate(self, 1))

    def rules(self) -> PrincipleSet:
        """The same without reasons."""
        return PrincipleSet((replace(one, reason="") for one in self), f"{self.name}, rules only")

    def negated(self) -> PrincipleSet:
        """Their opposites, for contrasts; text and negated form change places, reasons fall away.

        Raises:
            DataError: one has no negated form.
        """
        for one in self:
            if not one.negated:
                raise DataError("a principle has no negated form", where=f"{self.name}, {one.name}")
        swapped = (replace(one, text=one.negated, negated=one.text, reason="") for one in self)
        return PrincipleSet(swapped, f"not {self.name}")

    def relevant(self, prompt: str, most: int | None = None) -> PrincipleSet:
        """Those that apply to a prompt, the most relevant first; all that always apply come with them.

        One with a trigger applies where the prompt has a word of it. Relevance is the share of the trigger's words
        that the prompt has, times the weight; one without a trigger has its weight alone, halved.

        Args:
            prompt: any text.
            most: at most so many.
        """
        words = set(_words(prompt))
        scored = [(_relevance(one, words), -place, one) for place, one in enumerate(self)]
        found = [one for score, _, one in sorted(scored, key=lambda row: row[:2], reverse=True) if score > 0]
        return PrincipleSet(found[:most], self.name)

    def where(self, keep: Callable[[Principle], bool]) -> PrincipleSet:
        """Those for which `keep` is true."""
        return PrincipleSet(filter(keep, self), self.name)


def _relevance(principle: Principle, words: set[str]) -> float:
    trigger = set(_words(principle.trigger))
    return principle.weight * (len(trigger & words) / len(trigger) if trigger else 0.5)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _entry(given: Any, number: int, where: str) -> Principle:
    if isinstance(given, str):
        return Principle(str(number), given)
    known = {field.name for field in fields(Principle)}
    if not isinstance(given, dict) or not isinstance(given.get("text"), str):
        found = given if not isinstance(given, dict) else sorted(given)
        raise DataError(
            "this is no principle", where=f"{where}, entry {number}", found=found, expected="a text"
        )
    for key in given:
        if key not in known:
            close = nearest(str(key), known)
            remedy = f"did you mean {close!r}?" if close else None
            raise DataError(
                f"a principle has no {key!r}",
                where=f"{where}, entry {number}",
                expected=", ".join(sorted(known)),
                remedy=remedy,
            )
    return Principle(**{"name": str(number), **given})


def _missing(name: str, principles: PrincipleSet) -> Principle:
    raise KeyError(f"no principle {name!r}; there are {', '.join(one.name for one in principles)}")
