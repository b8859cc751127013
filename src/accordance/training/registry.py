"""Loops by name: what trains in several stages, its options as the fields of a pydantic model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from accordance.core.errors import unknown
from accordance.core.options import model_of

if TYPE_CHECKING:
    from accordance.training.loops.session import Session

Kind = TypeVar("Kind", bound="type[Loop]")


class Loop(BaseModel):
    """A procedure of several stages, each a training run of its own; its options are its fields.

    Attributes:
        name: what recipes call it.
        needs_reward: whether it samples and has samples scored, so that a `reward` must be named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: ClassVar[str] = ""
    needs_reward: ClassVar[bool] = False

    def run(self, session: Session) -> None:
        """Carry it out: read the session's records and train its policy, stage by stage."""
        raise NotImplementedError


_LOOPS: dict[str, type[Loop]] = {}


def loop(name: str) -> Callable[[Kind], Kind]:
    """Register a `Loop` under a name.

    Raises:
        ValueError: the name is taken.
    """

    def register(kind: Kind) -> Kind:
        if name in _LOOPS and _LOOPS[name].__qualname__ != kind.__qualname__:
            raise ValueError(f"there is a loop {name!r} already")
        kind.name = name
        _LOOPS[name] = kind
        return kind

    return register


def loop_kinds() -> dict[str, type[Loop]]:
    """Every registered loop by name."""
    return dict(sorted(_LOOPS.items()))


def make_loop(name: str, options: Mapping[str, Any], *, where: str = "loop") -> Loop:
    """A loop from its name and options.

    Raises:
        ConfigError: the name or an option is unknown (with the nearest one), or a value is out of range.
    """
    if name not in _LOOPS:
        raise unknown("loop", name, _LOOPS, where=where)
    return model_of(_LOOPS[name], options, name=f"loop {name}", where=where)
