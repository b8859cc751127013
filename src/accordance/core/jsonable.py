"""Plain data out of whatever a measurement returns: what JSON can hold, nothing that breaks a reader of it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accordance.core.errors import ConfigError

Warn = Callable[[str], None]


def plain(value: Any, where: str, warn: Warn) -> Any:
    """`value` as None, booleans, finite numbers, strings, lists and dicts with string keys.

    Args:
        value: anything made of numbers, text, NumPy and torch values, dataclasses, mappings and sequences.
        where: what it is, for messages.
        warn: called with a sentence for each number that is not finite; such a number becomes None, because
            JSON has no word for it.

    Raises:
        ConfigError: the value has no plain form (a model, an open file).
    """
    if value is None or (isinstance(value, (bool, int)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, where, warn)
    if isinstance(value, str):
        return (
            value.encode("utf-8", "replace").decode()
            if any("\ud800" <= c <= "\udfff" for c in value)
            else value
        )
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        warn(f"{where} is not a finite number ({value}); it is written as null")
        return None
    if isinstance(value, Mapping):
        return {_key(key, where, warn): plain(item, f"{where}.{key}", warn) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain(item, f"{where}[{i}]", warn) for i, item in enumerate(items)]
    if callable(getattr(value, "to_dict", None)) and not isinstance(value, type):
        return plain(value.to_dict(), where, warn)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return plain(fields, where, warn)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, Path):
        return plain(str(value), where, warn)
    if isinstance(value, np.generic):
        return plain(value.item(), where, warn)
    if hasattr(value, "tolist"):  # arrays and tensors, without importing torch here
        return plain(value.tolist(), where, warn)  # pyright: ignore[reportAttributeAccessIssue]
    raise ConfigError(
        "a report holds plain data only",
        where=where,
        found=type(value).__name__,
        expected="numbers, text, lists, mappings, arrays or dataclasses",
    )


def _key(key: Any, where: str, warn: Warn) -> str:
    return plain(key, where, warn) if isinstance(key, str) else "null" if key is None else str(key)
