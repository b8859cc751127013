"""Loops by name: what trains in several stages, its options as the fields of a pydantic model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import ConfigDict

from accordance.core.options import Kinds, Named

if TYPE_CHECKING:
    from accordance.training.loops.session import Session

Kind = TypeVar("Kind", bound="type[Loop]")


class Loop(Named):
    """A procedure of several stages, each a training run of its own; its options are its fields.

    Attributes:
        name: what recipes call it.
        needs_reward: whether it samples and has samples scored, so that a `reward` must be named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    needs_reward: ClassVar[bool] = False

    def run(self, session: Session) -> None:
        """Carry it out: read the session's records and train its policy, stage by stage."""
        raise NotImplementedError


_LOOPS: Kinds[Loop] = Kinds("loop")


def loop(name: str) -> Callable[[Kind], Kind]:
    """Register a `Loop` under a name.

    Raises:
        ValueError: the name is taken.
    """
    return _LOOPS.register(name)


def loop_kinds() -> dict[str, type[Loop]]:
    """Every registered loop by name."""
    return _LOOPS.all()


def make_loop(name: str, options: Mapping[str, Any], *, where: str = "loop") -> Loop:
    """A loop from its name and options.

    Raises:
        ConfigError: the name or an option is unknown (with the nearest one), or a value is out of range.
    """
    return _LOOPS.make(name, options, where=where)
