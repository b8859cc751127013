"""The catalogue of published systems: `@system` beside the code, one table drawn from it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

Thing = TypeVar("Thing", bound=Callable[..., object] | type)


@dataclass(frozen=True)
class System:
    """One published system and where it stands.

    Attributes:
        id: the number of its spec, such as ``"S052"``.
        name: its short name.
        room: the room of the house that implements it.
        where: ``module:name`` of the code.
        proof: path of its proof, relative to the repository.
        paper: where it was published.
        summary: the first line of the docstring.
    """

    id: str
    name: str
    room: str
    where: str
    proof: str
    paper: str
    summary: str

    def to_dict(self) -> dict[str, str]:
        """The row as plain data."""
        return asdict(self)


_systems: dict[str, System] = {}


def system(id: str, name: str, *, paper: str = "", proof: str | None = None) -> Callable[[Thing], Thing]:
    """Catalogue a function or class as the implementation of a published system.

    Args:
        id: the number of its spec, ``"S"`` and three digits.
        name: its short name, as the table shows it.
        paper: where it was published, such as ``"arXiv:2407.15229"``.
        proof: path of its proof; by default ``tests/proofs/test_<id>_<name>.py`` in lower case.

    Raises:
        ValueError: the id is malformed or catalogued twice.
    """
    if not re.fullmatch(r"S\d{3}", id):
        raise ValueError(f"{id!r} is not a system id such as 'S052'")
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")

    def register(thing: Thing) -> Thing:
        where = f"{thing.__module__}:{thing.__qualname__}"
        if id in _systems and _systems[id].where != where:
            raise ValueError(f"{id} is catalogued twice: {_systems[id].where} and {where}")
        parts = thing.__module__.split(".")
        _systems[id] = System(
            id=id,
            name=name,
            room=parts[1] if len(parts) > 1 else parts[0],
            where=where,
            proof=proof or f"tests/proofs/test_{id.lower()}_{slug}.py",
            paper=paper,
            summary=(thing.__doc__ or "").strip().split("\n")[0],
        )
        return thing

    return register


def systems() -> list[System]:
    """Every catalogued system, in the order of their ids. Imports every room once, so that none is missed."""
    package = importlib.import_module("accordance")
    for module in pkgutil.walk_packages(package.__path__, "accordance."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [_systems[id] for id in sorted(_systems)]
