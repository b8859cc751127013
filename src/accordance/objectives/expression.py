"""The language in which recipes name objectives: ``dpo``, ``dpo + 0.1*sft``, ``lcpo(dpo + 0.1*sft)``.

sum  = term { "+" term }
term = [ weight "*" ] name [ "(" sum ")" ]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accordance.core.errors import ConfigError, unknown
from accordance.objectives.registry import objective_names, objective_options, wrapper_names


@dataclass(frozen=True)
class Term:
    """One member of a sum.

    Attributes:
        name: of an objective, or of a wrapper.
        weight: its factor.
        inner: the sum that a wrapper wraps; empty for an objective.
    """

    name: str
    weight: float = 1.0
    inner: tuple[Term, ...] = ()


def parse_objective(text: str) -> tuple[Term, ...]:
    """What an expression names, as the terms of a sum.

    Raises:
        ConfigError: it can't be read, names something unknown or the same thing twice, or wraps something in
            what is no wrapper (or nothing in a wrapper).
    """
    parser = _Parser(text)
    terms = parser.sum()
    if parser.tokens:
        raise _unreadable(text)
    names = term_names(terms)
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{name} is named twice",
                where="objective",
                found=text,
                remedy="add up its weights; its options could not be told apart",
            )
    return terms


def term_names(terms: Sequence[Term]) -> list[str]:
    """Every name in some terms, wrappers before what they wrap."""
    return [name for term in terms for name in (term.name, *term_names(term.inner))]


def known_options(text: str) -> set[str]:
    """Every option that an expression takes, by its name and as ``member.option``.

    Raises:
        ConfigError: as `parse_objective`.
    """
    members = [
        (name, option) for name in term_names(parse_objective(text)) for option in objective_options(name)
    ]
    return {option for _, option in members} | {f"{name}.{option}" for name, option in members}


class _Parser:
    """Recursive descent over the tokens of an expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))

    def sum(self) -> tuple[Term, ...]:
        terms = [self.term()]
        while self.take("+"):
            terms.append(self.term())
        return tuple(terms)

    def term(self) -> Term:
        weight = self.weight() if self.tokens and self.tokens[0][0] in "0123456789." else 1.0
        if not self.tokens or not re.match(r"[A-Za-z_]", self.tokens[0]):
            raise _unreadable(self.text)
        name = self.tokens.pop(0)
        objective_options(name)
        if not self.take("("):
            if name in wrapper_names():
                raise ConfigError(
                    f"{name} wraps another objective and none is named",
                    where="objective",
                    found=self.text,
                    remedy=f"write {name}(dpo), for instance",
                )
            return Term(name, weight)
        if name not in wrapper_names():
            raise ConfigError(
                f"{name} is no wrapper",
                where="objective",
                found=self.text,
                expected=f"a wrapper before the bracket: {', '.join(wrapper_names())}",
            )
        inner = self.sum()
        if not self.take(")"):
            raise _unreadable(self.text)
        return Term(name, weight, inner)

    def weight(self) -> float:
        number = self.tokens.pop(0)
        if not self.take("*"):
            raise _unreadable(self.text)
        try:
            return float(number)
        except ValueError as error:
            raise ConfigError("the weight is no number", where="objective", found=number) from error

    def take(self, token: str) -> bool:
        """Whether the next token is this one; it is consumed then."""
        found = bool(self.tokens) and self.tokens[0] == token
        if found:
            self.tokens.pop(0)
        return found


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text.rstrip()):
        # A plus sign inside a number, as in 1e+2, parts nothing.
        match = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?|[A-Za-z_]\w*|[*+()])").match(text, place)
        if match is None:
            raise _unreadable(text)
        yield match.group(1)
        place = match.end()


def _unreadable(text: str) -> ConfigError:
    return ConfigError(
        "this names no objective",
        where="objective",
        found=text,
        expected="a name, a weighted sum such as 'dpo+0.1*sft', or a wrapper around one such as 'lcpo(dpo)'",
        remedy=unknown("objective", text.strip(), objective_names()).remedy,
    )
