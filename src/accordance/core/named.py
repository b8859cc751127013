"""The user's own functions and objects by name: ``module:name`` or ``file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from accordance.core.errors import ConfigError


def named_object(name: str, *, where: str, expected: str = "module:name or file.py:name") -> Any:
    """What a module has under a name; of a class, a new object of it.

    Args:
        name: ``module:name`` or ``file.py:name``.
        where: the option that names it, for messages.
        expected: what may be named there, for messages.

    Raises:
        ConfigError: it is no such name, the module can't be imported, or has nothing of that name.
    """
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise ConfigError("this is not how it is named", where=where, found=name, expected=expected)
    try:
        module = _file(module_name) if module_name.endswith(".py") else _module(module_name)
    except Exception as error:  # the user's own module may fail in any way
        raise ConfigError(
            f"{module_name} can't be imported: {type(error).__name__}: {error}", where=where, found=name
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(
            f"{module_name} has no {attribute!r}",
            where=where,
            expected=f"one of: {', '.join(there) or 'none'}",
        )
    return found() if isinstance(found, type) else found


def _module(name: str) -> Any:
    """Import from the folder in which the command runs, too, as `python -m` does."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _file(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
