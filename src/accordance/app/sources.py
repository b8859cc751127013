"""Names of what lies in the package: `lab:base` is its base model, `lab:demo` its feedback, `lab:steps` a scene's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from accordance.core.errors import ConfigError, unknown
from accordance.core.record import Records

if TYPE_CHECKING:
    from accordance.training.loops import Names

log = logging.getLogger("accordance")

BASE, DEMO = "lab:base", "lab:demo"


def model_source(name: Any) -> Any:
    """The path that a model's name stands for; other names as they are.

    Raises:
        ConfigError: a name of the lab that is none.
    """
    if not isinstance(name, str) or not name.startswith("lab:"):
        return name
    if name != BASE:
        raise unknown("model of the lab", name, [BASE], where="model")
    from accordance.lab import base_model_path

    return str(base_model_path())


def is_lab(name: Any) -> bool:
    """Whether records come from the lab, where the simulated people know how to judge."""
    return isinstance(name, str) and name.startswith("lab:")


def lab_records(name: str) -> Records:
    """`lab:demo`, or `lab:demo?n=800&seed=1`: the demo's feedback, that many records of it, judged by that seed.

    `lab:` and the name of a scene (`lab:critiques`, see `accordance.lab.scenes.SCENES`) are 400 records of it, or n.

    Raises:
        ConfigError: another name, option or value.
    """
    from accordance.lab import demo_records
    from accordance.lab.scenes import SCENES

    kind, _, query = name.partition("?")
    made = {scene.name: scene for scene in SCENES.values()}
    if kind != DEMO and kind not in made:
        raise unknown("records of the lab", kind, [DEMO, *made], where="records")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key, value in options.items():
        if key not in ("n", "seed"):
            raise unknown("option", key, ["n", "seed"], where=name)
        if not value.isdigit():
            raise ConfigError(f"{key} is a number", where=name, found=value)
    numbers: dict[str, Any] = {key: int(value) for key, value in options.items()}
    return demo_records(**numbers) if kind == DEMO else made[kind].records(**({"n": 400} | numbers))


def read_records(
    source: Any, *, limit: int | None = None, may_be_empty: bool = False, **reading: Any
) -> Records:
    """The records that a command names: those of the lab, or whatever `load_records` reads.

    Args:
        source: ``lab:...``, a path, a hub name.
        limit: read at most so many.
        may_be_empty: go on where not one row could be used.
        **reading: options of `load_records`; None where nothing was said. They have no effect on the lab's.

    Raises:
        ConfigError: an option has no effect.
        DataError: see `load_records`; or no row could be used.
    """
    from accordance.app.aside import refuse_empty
    from accordance.feedback import load_records

    given = {name: value for name, value in reading.items() if value is not None}
    if not is_lab(source):
        found = load_records(source, limit=limit, **given)
        if not may_be_empty:
            refuse_empty(found)
        return found
    for name in ("format", "split"):
        if name in given:
            raise ConfigError(f"{name} has no effect on records of the lab", found=given[name])
    if limit is not None and limit < 1000 and "n=" not in source:  # the lab judges every record it is asked for
        source += f"{'&' if '?' in source else '?'}n={max(limit, 1)}"
    made = lab_records(source)
    return made if limit is None else made.select(range(min(limit, len(made))))


def loop_names() -> Names:
    """How a loop's options that name records, rewards and policies are looked up: those of the lab, too."""
    from accordance.app.assistants import assistants
    from accordance.app.scorers import resolve_rewards
    from accordance.training.loops import Names

    return Names(
        find_records=lambda name: read_records(name).materialise(),
        find_rewards=resolve_rewards,
        find_policy=lambda name: assistants([name], "writer")[0],
    )


def asked_by(policy: Any, user: str | None) -> Any:
    """The policy for a user (see `LocalPolicy.for_user`), as it is for None; a name that it does not know is said.

    Raises:
        ModelError: the model has no users.
    """
    if user is None:
        return policy
    made = policy.for_user(user)
    if user not in policy.users.names:
        log.warning("%s does not know %s: it answers the generic user", policy.name, user)
    return made
