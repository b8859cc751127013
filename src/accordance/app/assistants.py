"""Models by name for commands that ask several: checkpoints, servers, and the lab's scripted assistants.

``lab`` is the scripted writer or judge, ``lab:writers`` six writers of different skill, ``lab:base`` the model in the
package, ``api:provider/model`` whatever inspect_ai reaches, anything else a checkpoint. Settings follow a question
mark: ``lab?noise=0.5``, ``api:openai/gpt-4o?base_url=...``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from accordance.app.options import value_of
from accordance.core.errors import ConfigError
from accordance.core.policy import Policy

API, LAB, WRITERS = "api:", "lab", "lab:writers"
_SKILLS = ("correctness", "honesty", "harm", "politeness", "relevance", "fluency")


def assistants(names: Sequence[str], role: str) -> list[Policy]:
    """The policies that some names stand for, in their order; `role` is what ``lab`` is: ``writer`` or ``judge``.

    Raises:
        ConfigError: an unknown name of the lab, or a setting that it has not.
        ModelError: a checkpoint or a provider that can't be used.
        MissingExtra: a provider without inspect_ai.
    """
    found: list[Policy] = []
    for name in names:
        found += _assistants(name, role)
    return found


def _assistants(name: str, role: str) -> list[Policy]:
    base, _, query = name.partition("?")
    settings = {key: value_of(value) for key, value in parse_qsl(query, keep_blank_values=True)}
    if base == LAB:
        return [_scripted(role, name, settings)]
    if base == WRITERS:
        return [
            _scripted("writer", name, {**settings, "skill": {s: 0.9}, "name": f"good at {s}"}) for s in _SKILLS
        ]
    if base.startswith(API):
        from accordance.models import InspectPolicy

        if base.startswith(f"{API}lab/"):
            import accordance.lab.assistants.provider  # noqa: F401 (registers the provider)
        return [InspectPolicy(base.removeprefix(API), **settings)]
    if settings:
        raise ConfigError("a checkpoint takes no settings", where=name, found=settings)
    from accordance.app.sources import model_source
    from accordance.models import load_policy

    return [load_policy(model_source(base))]


def _scripted(role: str, where: str, settings: dict[str, Any]) -> Policy:
    from accordance.lab.assistants import ROLES

    try:
        return ROLES[role](**settings)
    except TypeError as error:
        raise ConfigError(
            f"the lab's {role} has no such setting",
            where=where,
            found=settings,
            remedy="see accordance.lab.assistants",
        ) from error
