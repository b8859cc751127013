"""What the options of a loop may name: records, rewards, policies. Whoever starts the loop may know more names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accordance.core.named import named_object
from accordance.core.record import Records
from accordance.feedback import load_records
from accordance.models import load_policy


def _rewards(given: Any) -> list[Any]:
    return [
        named_object(one, where="reward") if isinstance(one, str) else one
        for one in (given if isinstance(given, Sequence) and not isinstance(given, str) else [given])
    ]


@dataclass(frozen=True)
class Names:
    """Finds what a name stands for.

    Attributes:
        given: objects by name; these are looked up first.
        find_records: records by path or hub name. The app knows those of the lab, too.
        find_rewards: scorers by ``module:name``, one or a list of them.
        find_policy: a policy by path or hub name.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    find_records: Callable[[str], Records] = lambda name: load_records(name).materialise()
    find_rewards: Callable[[Any], list[Any]] = _rewards
    find_policy: Callable[[str], Any] = load_policy

    def records(self, name: str) -> Records:
        """Records of this name. Raises DataError where there are none."""
        return self.given[name] if name in self.given else self.find_records(name)

    def rewards(self, name: str | Sequence[str]) -> list[Any]:
        """The scorers of this name, or these names. Raises ConfigError where there are none."""
        names = [name] if isinstance(name, str) else list(name)
        found: list[Any] = []
        for one in names:
            found += [self.given[one]] if one in self.given else self.find_rewards(one)
        return found

    def policy(self, name: str) -> Any:
        """The policy of this name. Raises ModelError where there is none."""
        return self.given[name] if name in self.given else self.find_policy(name)
