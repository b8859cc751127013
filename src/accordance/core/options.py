"""Options by name: from a mapping to a pydantic model, with errors that say what was meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from accordance.core.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


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
