"""What goes wrong, said so that it can be mended: where, what was found, what was expected, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AccordanceError(Exception):
    """Base of every error that the package raises on purpose.

    Args:
        problem: one sentence that says what is wrong.
        where: the file, row, column, option or step it is about.
        found: what was there.
        expected: what should have been there.
        remedy: what the user can do now.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        found: object = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.where, self.found = problem, where, found
        self.expected, self.remedy = expected, remedy
        lines = [f"{where}: {problem}" if where else problem]
        lines += [f"  found:    {_short(found)}"] if found is not None else []
        lines += [f"  expected: {expected}"] if expected else []
        lines += [f"  remedy:   {remedy}"] if remedy else []
        super().__init__("\n".join(lines))

    def to_dict(self) -> dict[str, object]:
        """The parts of the error, for `--json`."""
        parts = {
            "error": type(self).__name__,
            "problem": self.problem,
            "where": self.where,
            "found": None if self.found is None else _short(self.found),
            "expected": self.expected,
            "remedy": self.remedy,
        }
        return {key: value for key, value in parts.items() if value is not None}


class DataError(AccordanceError):
    """A file, row or column of the feedback can't be used as it stands."""


class ConfigError(AccordanceError, ValueError):
    """An option is unknown, out of range, or would have no effect."""


class ModelError(AccordanceError):
    """A checkpoint, tokenizer or chat template can't be used as it stands."""


class TrainingError(AccordanceError):
    """A run can't go on: a loss that is not finite, a folder that can't be written."""


class MissingReference(AccordanceError):
    """An objective needs reference log-probabilities and the bundle carries none."""


class MissingExtra(AccordanceError, ImportError):
    """An optional library is needed; the message names the extra that brings it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs `{library}`, which is not installed",
            remedy=f"pip install 'accordance[{extra}]'",
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is closest to `name` in spelling, or None where none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> ConfigError:
    """An error for a name that is not in a list of names, with the nearest one as the remedy."""
    names = sorted(known)
    close = nearest(name, names)
    return ConfigError(
        f"unknown {kind} {name!r}",
        where=where,
        expected=f"one of: {', '.join(names)}",
        remedy=f"did you mean {close!r}?" if close else None,
    )


def _short(value: object, limit: int = 300) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
