"""Accordance: from what people said, to a model that acts on it, to the evidence that it does.

The main job, in order: `load_records`, `load_policy`, `align`, `evaluate`. Each name is imported when it is
first used, so that `import accordance` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accordance.app.align import align
    from accordance.core.errors import AccordanceError
    from accordance.core.record import Record, Records
    from accordance.evaluation import evaluate
    from accordance.feedback import load_records
    from accordance.models import load_policy, logprobs

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "Record": "accordance.core.record",
    "Records": "accordance.core.record",
    "load_records": "accordance.feedback",
    "load_policy": "accordance.models",
    "logprobs": "accordance.models",
    "align": "accordance.app.align",
    "evaluate": "accordance.evaluation",
    "AccordanceError": "accordance.core.errors",
}

__all__ = [
    "AccordanceError",
    "Record",
    "Records",
    "__version__",
    "align",
    "evaluate",
    "load_policy",
    "load_records",
    "logprobs",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'accordance' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
