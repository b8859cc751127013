"""The formats that can be read: `@format` registers one, `detect` finds which one a file is in."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accordance.core.errors import DataError, unknown
from accordance.core.record import Record
from accordance.feedback.row import Place, Row

Sample = Sequence[Mapping[str, Any]]
Read = Callable[[Any], Record | Iterable[Record]]


@dataclass(frozen=True)
class Format:
    """One way in which feedback is written down.

    Attributes:
        name: its name, for ``format=``.
        read: makes records of one row; where `join` is set, of a list of rows that belong together.
        columns: alternatives; each a set of columns that the format needs.
        matches: looks at the values of the first rows, where the columns alone don't tell.
        rivals: columns that this format doesn't read and whose presence says that it is another one.
        join: which rows belong together: neighbours with an equal key.
        summary: the first line of the docstring.
    """

    name: str
    read: Read
    columns: tuple[frozenset[str], ...]
    matches: Callable[[Sample], bool] | None = None
    rivals: frozenset[str] = frozenset()
    join: Callable[[Row], Hashable] | None = None
    summary: str = ""


FORMATS: dict[str, Format] = {}
_ALIASES = {"language_modeling": "language_modelling", "hh": "hh_rlhf", "unpaired_preference": "unpaired"}


def format(
    name: str,
    *columns: str,
    matches: Callable[[Sample], bool] | None = None,
    rivals: str = "",
    join: Callable[[Row], Hashable] | None = None,
) -> Callable[[Read], Read]:
    """Register the function that reads a format.

    Args:
        name: its name, for ``format=``; words joined by ``_``.
        columns: one or more alternatives, each the needed columns separated by spaces.
        matches: given the first rows, whether their values fit too.
        rivals: columns (separated by spaces) that say it is another format, although the needed ones are there.
        join: the key by which neighbouring rows belong together; the function then takes a list of rows.

    Raises:
        ValueError: the name is taken.
    """
    if name in FORMATS:
        raise ValueError(f"the format {name!r} is registered twice")

    def register(read: Read) -> Read:
        FORMATS[name] = Format(
            name,
            read,
            tuple(frozenset(each.split()) for each in columns),
            matches,
            frozenset(rivals.split()),
            join,
            (read.__doc__ or "").strip().split("\n")[0],
        )
        return read

    return register


def named(name: str) -> Format:
    """The format of this name; ``-``, ``_`` and case don't matter.

    Raises:
        ConfigError: there is none; the nearest name is suggested.
    """
    key = name.lower().replace("-", "_").replace(" ", "_")
    key = {"language_modeling": "language_modelling", "hh": "hh_rlhf", "unpaired_preference": "unpaired"}.get(
        key, key
    )
    if key not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[key]


def detect(sample: Sample, place: Place) -> Format:
    """The format that the first rows of a file are in: of those that fit, the one that needs most columns.

    Raises:
        DataError: none fits; says which one is nearest, which columns it misses, and the fix.
    """
    columns = {column for row in sample for column in row}
    fitting = [(max(len(c) for c in f.columns if c <= columns), f) for f in _fits(columns, sample)]
    if fitting:
        return max(fitting, key=lambda pair: (pair[0], pair[1].matches is not None))[1]
    raise _unrecognised(columns, place)


def _fits(columns: set[str], sample: Sample) -> Iterator[Format]:
    for form in FORMATS.values():
        needed = [c for c in form.columns if c <= columns]
        if not needed or (form.matches and not form.matches(sample)):
            continue
        spare = columns - set().union(*needed)
        if not any(_rival(column, form.rivals) for column in spare):
            yield form


def _rival(column: str, rivals: frozenset[str]) -> bool:
    """Whether a column is a rival's, or a misspelling of one."""
    return column in rivals or bool(difflib.get_close_matches(column, rivals, n=1, cutoff=0.8))


def _unrecognised(columns: set[str], place: Place) -> DataError:
    best: tuple[float, Format, frozenset[str], dict[str, str]] | None = None
    for form in FORMATS.values():
        for needed in form.columns:
            renames = {}
            for column in sorted(needed - columns):
                close = difflib.get_close_matches(
                    column, columns - needed - set(renames.values()), n=1, cutoff=0.6
                )
                if close:
                    renames[column] = close[0]
            hits = len(needed & columns) + 0.9 * len(renames)
            # Of two equally complete ones, the one that explains more columns.
            score = hits / len(needed) + 0.01 * hits
            # A format whose columns are all there was ruled out by its values or by a rival column.
            if needed <= columns:
                score = 0.4
            if best is None or score > best[0]:
                best = (score, form, needed, renames)
    assert best is not None
    _, form, needed, renames = best
    missing = sorted(needed - columns)
    if best[0] <= 0.02 or not (needed & columns or renames):
        names = ", ".join(sorted(FORMATS))
        return DataError(
            "no format recognised",
            where=place.source,
            found=f"columns {sorted(columns)}",
            expected=f"the columns of one of: {names}",
            remedy="rename the columns, for instance to prompt, chosen, rejected",
        )
    fixes = [f"rename column {old!r} to {new!r}" for new, old in renames.items()]
    fixes += [f"add column {column!r}" for column in missing if column not in renames]
    nearest = f"nearest is {form.name!r}, which needs {', '.join(sorted(needed))}"
    return DataError(
        "no format recognised",
        where=place.source,
        found=f"columns {sorted(columns)}",
        expected=nearest
        + (f" and misses {', '.join(missing)}" if missing else ", but the values don't fit it"),
        remedy="; ".join(fixes) or f"pass format={form.name!r} if it is meant",
    )
