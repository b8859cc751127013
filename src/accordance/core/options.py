"""Options by name: from a mapping to a pydantic model, with errors that say what was meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from accordance.core.errors import ConfigError, nearest, unknown


class Named(BaseModel):
    """A model that is registered under a name, by which recipes call it."""

    name: ClassVar[str] = ""


Model = TypeVar("Model", bound=BaseModel)
Thing = TypeVar("Thing", bound=Named)
Kind = TypeVar("Kind", bound="type[Named]")


class Kinds(Generic[Thing]):
    """Kinds of one thing (steps, loops) by name; the options of each are its fields.

    Args:
        what: they are, in messages.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._kinds: dict[str, type[Thing]] = {}

    def register(self, name: str) -> Callable[[Kind], Kind]:
        """A decorator that registers a kind.

        Raises:
            ValueError: the name is taken.
        """

        def register(kind: Kind) -> Kind:
            if name in self._kinds and self._kinds[name].__qualname__ != kind.__qualname__:
                raise ValueError(f"there is a {self.what} {name!r} already")
            kind.name = name
            self._kinds[name] = kind  # type: ignore[assignment]
            return kind

        return register

    def all(self) -> dict[str, type[Thing]]:
        """Every kind by name, sorted."""
        return dict(sorted(self._kinds.items()))

    def make(self, name: str, options: Mapping[str, Any], *, where: str) -> Thing:
        """One from its name and options.

        Raises:
            ConfigError: the name or an option is unknown (with the nearest one), or a value is out of range.
        """
        if name not in self._kinds:
            raise unknown(self.what, str(name), self._kinds, where=where)
        return model_of(self._kinds[name], options, name=f"{self.what} {name}", where=where)


def model_of(kind: type[Model], given: Mapping[str, Any], *, name: str, where: str) -> Model:
    """A model from options by name.

    Args:
        kind: the model; its fields are the options.
        given: names and values; ``-`` in a name stands for ``_``.
        name: what has the options, for messages.
        where: where they were given.

    Raises:
        ConfigError: an option is unknown (with the nearest one), missing, or out of range.
    """
    options = {str(key).replace("-", "_"): value for key, value in given.items()}
    for key in options:
        if key not in kind.model_fields:
            close = nearest(key, kind.model_fields)
            raise ConfigError(
                f"{name} has no option {key!r}",
                where=where,
                expected=", ".join(kind.model_fields) or "no options",
                remedy=f"did you mean {close!r}?" if close else None,
            )
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ConfigError(f"{name} needs {place}", where=where) from error
        said = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(
            f"{place}: {said}" if place else said, where=f"{where}, {name}", found=first.get("input")
        ) from error
