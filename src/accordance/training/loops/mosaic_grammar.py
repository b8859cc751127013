"""The turns of a tool-using agent: a plan, a safety check where the agent wants one, and exactly one action."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from accordance.core.policy import Prompt
from accordance.training.trajectories import OBSERVED

Kind = Literal["call", "refuse", "answer"]
#: The tool that ends an episode with a refusal.
REFUSE = "refuse"
_TAGS = ("think", "safety_thoughts", "tool_call", "answer")
_BLOCK = re.compile(rf"<({'|'.join(_TAGS)})>(.*?)</\1>", re.DOTALL)
_STRAY = re.compile(rf"</?(?:{'|'.join(_TAGS)})>")


@dataclass(frozen=True)
class Action:
    """What a turn does.

    Attributes:
        kind: ``call`` of a tool, ``refuse`` (a call of the tool of this name) or ``answer``.
        name: of the tool; empty for an answer.
        arguments: of the call.
        text: the answer, or the reason of a refusal.
    """

    kind: Kind
    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Turn:
    """One turn of an agent, as it was read.

    Attributes:
        plan: what stands in ``<think>``; None where it is missing.
        check: what stands in ``<safety_thoughts>``; None where the agent wanted none.
        action: None where there is not exactly one that can be read.
        malformed: what is wrong with the form; empty for a turn that keeps to the grammar.
        invalid: what is wrong with the action; empty for one that can be carried out.
    """

    plan: str | None
    check: str | None
    action: Action | None
    malformed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


def parse_turn(text: str, tools: Sequence[str] | None = None) -> Turn:
    """Read a turn: ``<think>``, perhaps ``<safety_thoughts>``, then one of ``<tool_call>`` and ``<answer>``.

    Args:
        text: what the agent wrote. A call is JSON: ``{"name": ..., "arguments": {...}}``.
        tools: names that may be called, beside ``refuse``; None for any.
    """
    blocks = [(found.group(1), found.group(2).strip()) for found in _BLOCK.finditer(text)]
    names = [name for name, _ in blocks]
    rest = _BLOCK.sub("", text)
    malformed = []
    if names[:1] != ["think"] or names.count("think") != 1:
        malformed.append("does not begin with one plan")
    if names.count("safety_thoughts") > 1 or ("safety_thoughts" in names and names[1] != "safety_thoughts"):
        malformed.append("a check elsewhere than once after the plan")
    actions = [(name, body) for name, body in blocks if name in ("tool_call", "answer")]
    if len(actions) != 1 or names[-1] not in ("tool_call", "answer"):
        malformed.append("not exactly one action, at the end")
    if _STRAY.search(rest):
        malformed.append("a tag that is not closed or opened")
    elif rest.strip():
        malformed.append("text outside of the tags")
    action, invalid = _action(*actions[0], tools) if len(actions) == 1 else (None, ("no single action",))
    found = dict(reversed(blocks))
    return Turn(found.get("think"), found.get("safety_thoughts"), action, tuple(malformed), invalid)


def turns_of(transcript: str, tools: Sequence[str] | None = None) -> list[Turn]:
    """The turns of an agent in a transcript, observations left out."""
    parts = re.split(rf"{re.escape(OBSERVED)}[^\n]*\n?", transcript)
    return [parse_turn(part, tools) for part in parts if part.strip()]


class GrammarScorer:
    """What the form of a trajectory is worth: a bonus where all turns keep to the grammar, less for invalid actions.

    Args:
        bonus: for a trajectory whose every turn is well formed.
        penalty: taken off where an action can't be carried out.
        tools: names that may be called; None for any.
    """

    name = "grammar"

    def __init__(self, bonus: float = 0.2, penalty: float = 0.2, tools: Sequence[str] | None = None) -> None:
        self.bonus, self.penalty, self.tools = bonus, penalty, tools

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`."""
        return [self._one(text) for text in completions]

    def _one(self, text: str) -> float:
        turns = turns_of(text, self.tools)
        good = bool(turns) and not any(turn.malformed for turn in turns)
        bad = not turns or any(turn.invalid for turn in turns)
        return self.bonus * good - self.penalty * bad


def _action(tag: str, body: str, tools: Sequence[str] | None) -> tuple[Action | None, tuple[str, ...]]:
    if tag == "answer":
        return Action("answer", text=body), () if body else ("an empty answer",)
    try:
        call = json.loads(body)
    except ValueError:
        return None, ("a call that is no JSON",)
    name, arguments = (call.get("name"), call.get("arguments", {})) if isinstance(call, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None, ("a call without name or arguments",)
    if name == REFUSE:
        return Action("refuse", name, arguments, str(arguments.get("reason", ""))), ()
    wrong = () if tools is None or name in tools else (f"no tool {name!r}",)
    return Action("call", name, arguments), wrong
