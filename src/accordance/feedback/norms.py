"""Norms of a role, and how groups agree on them: rules that bind, choices that can be explained, no hidden sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion, Policy, Prompt


@dataclass(frozen=True)
class Norm:
    """One norm.

    Attributes:
        id: its name, for explanations.
        kind: ``prohibition`` (binds absolutely) or ``requirement`` (gives way to norms of a lower `priority` number).
        met: whether an option, in a situation, is as the norm wants it.
        when: whether the norm applies in a situation; always by default.
        priority: 0 goes before 1, and so on; only for requirements.
    """

    id: str
    kind: Literal["prohibition", "requirement"]
    met: Callable[[Any, Any], bool]
    when: Callable[[Any], bool] = lambda situation: True
    priority: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("prohibition", "requirement") or (self.kind == "prohibition" and self.priority):
            raise ConfigError("a norm is a requirement with a priority, or a prohibition", found=self)


@dataclass(frozen=True)
class Decision:
    """What a role does.

    Attributes:
        chosen: index of the option; None where every option is prohibited: then one defers.
        violations: for every option, the norms that it does not meet.
    """

    chosen: int | None
    violations: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Role:
    """The norms of a role."""

    norms: tuple[Norm, ...]

    def __post_init__(self) -> None:
        names = [norm.id for norm in self.norms]
        if len(set(names)) < len(names):
            raise ConfigError("two norms have one name", found=names)

    def decide(self, situation: Any, options: Sequence[Any], quality: Sequence[float]) -> Decision:
        """The best option by quality among those that no prohibition excludes and that meet most requirements.

        Requirements of the first priority are compared before those of the second, and so on; no quality makes up
        for one of them.

        Raises:
            DataError: no options, or not one quality for each.
        """
        if not options or len(options) != len(quality):
            raise DataError("options with a quality each", found=(len(options), len(quality)))
        bound = [norm for norm in self.norms if norm.when(situation)]
        broken = [[norm for norm in bound if not norm.met(situation, option)] for option in options]
        levels = sorted({norm.priority for norm in bound})
        allowed = [i for i, norms in enumerate(broken) if all(norm.kind == "requirement" for norm in norms)]

        def place(i: int) -> tuple[Any, ...]:
            missed = [sum(norm.priority == level for norm in broken[i]) for level in levels]
            return (*missed, -quality[i], i)

        names = tuple(tuple(norm.id for norm in norms) for norms in broken)
        return Decision(min(allowed, key=place) if allowed else None, names)


@dataclass(frozen=True)
class Agreement:
    """Which set of norms groups agree on.

    Attributes:
        chosen: by the Nash product.
        by_mean: what the mean acceptance would choose, weighted by the groups' sizes.
        by_worst: what the acceptance of the group that likes it least would choose.
        vetoed: for each set that a group does worse under than without agreement, the groups that refuse it.
        product: the Nash product of each set that nobody refuses.
    """

    chosen: str
    by_mean: str
    by_worst: str
    vetoed: dict[str, tuple[str, ...]]
    product: dict[str, float]


def agree(
    acceptance: Mapping[str, Mapping[str, float]],
    disagreement: Mapping[str, float],
    sizes: Mapping[str, float] | None = None,
) -> Agreement:
    """The set of norms with the largest product of gains over no agreement (Nash 1950), each group with a veto.

    Args:
        acceptance: of each set, by each group.
        disagreement: what each group has where there is no agreement; it has to be asked for, not assumed.
        sizes: of the groups, for the comparison with the mean; equal by default. The product doesn't count heads.

    Raises:
        DataError: no sets, a group without a number, or every set is refused by somebody.
    """
    groups = list(disagreement)
    for name, scores in acceptance.items():
        if set(scores) != set(groups) or not np.isfinite(list(scores.values())).all():
            raise DataError(
                "every group accepts every set to some degree",
                where=f"set {name!r}",
                found=dict(scores),
                expected=f"a number for each of {', '.join(map(str, groups))}",
            )
    if not acceptance or not groups:
        raise DataError("there is nothing to agree on", found=f"{len(acceptance)} sets, {len(groups)} groups")
    weight = np.array([1.0 if sizes is None else sizes[group] for group in groups])
    table = {name: np.array([scores[group] for group in groups]) for name, scores in acceptance.items()}
    gain = {name: row - np.array([disagreement[group] for group in groups]) for name, row in table.items()}
    vetoed = {n: tuple(g for g, x in zip(groups, row) if x < 0) for n, row in gain.items() if (row < 0).any()}
    product = {name: float(np.prod(row)) for name, row in gain.items() if name not in vetoed}
    if not product:
        raise DataError(
            "no set of norms is better for everybody than no agreement",
            found=vetoed,
            remedy="propose other sets, or let groups have assistants of their own (RoutedPolicy)",
        )
    return Agreement(
        max(product, key=lambda name: (product[name], float(gain[name].min()))),
        max(table, key=lambda name: float(weight @ table[name])),
        max(table, key=lambda name: float(table[name].min())),
        vetoed,
        product,
    )


class RoutedPolicy:
    """Many assistants instead of one compromise: each prompt goes to the policy whose norms it falls under.

    Args:
        policies: by name.
        route: the name of the policy for a prompt.
        name: what reports call it.
    """

    def __init__(
        self, policies: Mapping[str, Policy], route: Callable[[Prompt], str], name: str = "routed"
    ) -> None:
        self.policies, self.route, self.name = dict(policies), route, name

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[Completion]]:
        """See `Policy.generate`; each policy is called once, with its own prompts.

        Raises:
            ConfigError: a prompt is sent to a policy that is not there.
        """
        ways = [self.route(prompt) for prompt in prompts]
        if strange := sorted(set(ways) - set(self.policies)):
            raise ConfigError("no such policy", found=strange, expected=", ".join(sorted(self.policies)))
        made: list[list[Completion]] = [[] for _ in prompts]
        for name, policy in self.policies.items():
            places = [i for i, way in enumerate(ways) if way == name]
            if places:
                some = [prompts[i] for i in places]
                options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
                for i, completions in zip(places, policy.generate(some, n=n, seed=seed, **options)):  # type: ignore[arg-type]
                    made[i] = completions
        return made
