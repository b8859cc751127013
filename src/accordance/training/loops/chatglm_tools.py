"""An environment of tools: a policy may call some before it answers, or none; what they say is never learned."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accordance.core.errors import ConfigError
from accordance.core.policy import Prompt
from accordance.core.record import Record
from accordance.training.trajectories import OBSERVED

#: A turn that is a call: the name of a tool and what it is given.
CALL = re.compile(r"\s*call (\w+)\((.*)\)\s*", re.DOTALL)

Tool = Callable[[str], str]
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass
class Episode:
    """How many calls an episode has seen."""

    calls: int = 0


class Toolbox:
    """Tools as an environment (see `accordance.training.trajectories`), and the reward of what came of it.

    A turn ``call name(arguments)`` is answered by the tool; any other turn is the answer and ends the episode. The
    outcome is 1 where the record's extra ``answer`` is what the last turn says, or where that is None (small
    talk) and the last turn says anything; each call costs, so that to use no tool is a choice that can be right.

    Args:
        tools: by name: from its argument to what it says. What goes wrong inside is told to the policy.
        cost: of each call.
        most: calls after which the next one ends the episode.

    Raises:
        ConfigError: there are no tools, or the cost is below 0.
    """

    name = "toolbox"
    columns = ("answer",)

    def __init__(self, tools: Mapping[str, Tool], cost: float = 0.1, most: int = 4) -> None:
        if not tools or cost < 0 or most < 1:
            raise ConfigError("this is no toolbox", where="tools", found=(list(tools), cost, most))
        self.tools, self.cost, self.most = dict(tools), cost, most

    def begin(self, record: Record) -> Episode:
        """See `Environment.begin`."""
        return Episode()

    def step(self, state: Episode, text: str) -> str | None:
        """See `Environment.step`."""
        found = CALL.fullmatch(text)
        if found is None or state.calls >= self.most:
            return None
        state.calls += 1
        name, argument = found.groups()
        if name not in self.tools:
            return f"error: no tool {name}; there are {', '.join(sorted(self.tools))}"
        try:
            return self.tools[name](argument)
        except Exception as error:  # a tool's failure is an observation, not the end of the run
            return f"error: {error}"

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], answer: Sequence[Any] = (), **columns: Any
    ) -> list[float | None]:
        """The outcome of each transcript, less its calls; see `Scorer.score`."""
        wanted = list(answer) or [None] * len(completions)
        return [self._outcome(text, one) for text, one in zip(completions, wanted, strict=True)]

    def _outcome(self, transcript: str, wanted: Any) -> float:
        said = transcript.rsplit("\n", maxsplit=1)[-1].strip() if OBSERVED in transcript else transcript.strip()
        right = bool(said) and CALL.fullmatch(said) is None
        if wanted is not None:
            right = said == str(wanted)
        return float(right) - self.cost * transcript.count(OBSERVED)


def calculate(text: str) -> str:
    """The value of a sum or product of whole numbers, such as ``12 * (3 + 4)``.

    Raises:
        ValueError: it is anything else.
    """

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        raise ValueError(f"can't calculate {text!r}")

    if len(text) > 200:
        raise ValueError("too long to calculate")
    return str(value(ast.parse(text.strip(), mode="eval").body))
