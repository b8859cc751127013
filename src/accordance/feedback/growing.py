"""Growing message trees with a crowd: which task each person gets next, and when a tree is done."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from accordance.core.errors import ConfigError, DataError
from accordance.feedback.trees import MessageTree, Node, merge_rankings

State = Literal[
    "initial_prompt_review",
    "growing",
    "ranking",
    "ready_for_export",
    "aborted_low_grade",
    "halted_by_moderator",
]
_UNDER_WAY = ("initial_prompt_review", "growing", "ranking")
TaskKind = Literal["prompt", "reply_as_assistant", "reply_as_prompter", "label", "rank"]


@dataclass(frozen=True)
class Limits:
    """How trees grow.

    Attributes:
        depth: messages on the longest path, the root included.
        children: replies to one message.
        size: messages of a tree.
        reviews: labels that a message needs.
        rankings: orders that the replies to one message need.
        spam: share of spam labels above which a message is refused.
        growing: trees under way at once.
    """

    depth: int = 5
    children: int = 3
    size: int = 12
    reviews: int = 3
    rankings: int = 3
    spam: float = 0.5
    growing: int = 20

    def __post_init__(self) -> None:
        if min(self.depth, self.children, self.reviews, self.rankings, self.growing) < 1 or self.size < 2:
            raise ConfigError("limits of a tree are at least 1, its size 2", found=self)


@dataclass(frozen=True)
class Task:
    """What one person is asked to do.

    Attributes:
        kind: of work.
        person: whom it was given to.
        tree, message: about what; None for a new prompt.
        replies: for ``rank``, the messages to put in order.
    """

    kind: TaskKind
    person: Hashable
    tree: int | None = None
    message: int | None = None
    replies: tuple[int, ...] = ()


@dataclass
class _Message:
    tree: int
    parent: int | None
    role: str
    text: str
    author: Hashable
    depth: int
    labels: list[dict[str, float]] = field(default_factory=list)
    orders: list[tuple[int, ...]] = field(default_factory=list)
    accepted: bool | None = None
    #: Whoever wrote it, was asked about it or did something to it: nobody gets a second task on it.
    involved: set[Hashable] = field(default_factory=set)
    open: Counter[str] = field(default_factory=Counter)


class Forest:
    """Trees in the making: a state machine per tree, a scheduler over all of them, after Open-Assistant.

    A prompt is reviewed; an accepted one grows replies until it has reached its size, or nothing more fits its
    limits; then the replies to each message are ranked; then it is ready for export. `next_task` gives a person
    the kind of task of which the most is needed, about a message that they have had nothing to do with yet.

    Args:
        limits: of the trees.
        prompts: how many trees are wanted; after so many accepted prompts no more are asked for.
        seed: draws among equal tasks.
    """

    def __init__(self, limits: Limits | None = None, *, prompts: int = 100, seed: int = 0) -> None:
        self.limits, self.prompts = limits or Limits(), prompts
        self.messages: list[_Message] = []
        self.roots: list[int] = []
        self.states: list[State] = []
        self._random = random.Random(seed)
        self._open: dict[Task, None] = {}
        self._members: list[list[int]] = []  # messages of each tree
        self._waiting: dict[int, list[Task]] = {}  # what each tree needs, until something happens to it
        self._asked_for_prompt = 0

    def next_task(self, person: Hashable) -> Task | None:
        """The task that is needed most among those that this person may get; None where there is none."""
        choices = {kind: tasks for kind, tasks in self._needed().items() if tasks}
        for kind in sorted(choices, key=lambda kind: -len(choices[kind])):
            allowed = [task for task in choices[kind] if person not in self._concerned(task)]
            if allowed:
                made = self._random.choice(allowed)
                task = Task(made.kind, person, made.tree, made.message, made.replies)
                self._give(task)
                return task
        return None

    def give_up(self, task: Task) -> None:
        """Take a task back undone; the person does not get it again."""
        self._close(task)

    def write(self, task: Task, text: str) -> int:
        """Do a task of writing: a prompt or a reply.

        Returns:
            The number of the message.

        Raises:
            DataError: the task is not open, of another kind, or the text is empty.
        """
        if task.kind not in ("prompt", "reply_as_assistant", "reply_as_prompter") or not text.strip():
            raise DataError("this task needs another answer", found=(task.kind, text), expected="some text")
        self._close(task)
        number = len(self.messages)
        if task.message is None:
            self.roots.append(number)
            self._members.append([])
            self.states.append("initial_prompt_review")
            made = _Message(len(self.roots) - 1, None, "user", text, task.person, 1)
        else:
            parent = self.messages[task.message]
            role = "assistant" if parent.role == "user" else "user"
            made = _Message(parent.tree, task.message, role, text, task.person, parent.depth + 1)
        made.involved.add(task.person)
        self.messages.append(made)
        self._members[made.tree].append(number)
        return number

    def label(self, task: Task, labels: dict[str, float]) -> None:
        """Do a task of labelling.

        Args:
            task: the task.
            labels: name -> value in 0 .. 1; ``spam`` decides, where it is given, whether the message is accepted.

        Raises:
            DataError: the task is not open or of another kind, or a value is out of range.
        """
        if task.kind != "label" or task.message is None or not all(0 <= v <= 1 for v in labels.values()):
            raise DataError(
                "this task needs another answer", found=(task.kind, labels), expected="values in 0 .. 1"
            )
        self._close(task)
        message = self.messages[task.message]
        message.labels.append(dict(labels))
        if len(message.labels) >= self.limits.reviews:
            message.accepted = _mean(message.labels, "spam") <= self.limits.spam
        self._advance(message.tree)

    def rank(self, task: Task, order: Sequence[int]) -> None:
        """Do a task of ranking.

        Args:
            task: the task.
            order: the task's replies, best first.

        Raises:
            DataError: the task is not open or of another kind, or these are other messages.
        """
        if task.kind != "rank" or task.message is None or sorted(order) != sorted(task.replies):
            raise DataError("this task needs another answer", found=list(order), expected=str(task.replies))
        self._close(task)
        message = self.messages[task.message]
        message.orders.append(tuple(task.replies.index(reply) for reply in order))
        self._advance(message.tree)

    def halt(self, tree: int) -> None:
        """Stop a tree, as a moderator may at any time."""
        self.states[tree] = "halted_by_moderator"

    def export(self) -> list[MessageTree]:
        """The trees that are ready, their replies ranked by ranked pairs; refused messages are left out."""
        return [
            MessageTree(str(tree), self._node(self.roots[tree], None), state)
            for tree, state in enumerate(self.states)
            if state == "ready_for_export"
        ]

    # What is needed

    def _needed(self) -> dict[TaskKind, list[Task]]:
        found: dict[TaskKind, list[Task]] = {
            "rank": [],
            "label": [],
            "reply_as_assistant": [],
            "reply_as_prompter": [],
            "prompt": [],
        }
        under_way = sum(state in _UNDER_WAY for state in self.states)
        alive = under_way + sum(state == "ready_for_export" for state in self.states)
        missing = min(self.prompts - alive, self.limits.growing - under_way) - self._asked_for_prompt
        found["prompt"] = [Task("prompt", None)] * max(missing, 0)
        for tree, state in enumerate(self.states):
            if state in _UNDER_WAY:
                if tree not in self._waiting:
                    self._waiting[tree] = list(self._needed_of(tree))
                for task in self._waiting[tree]:
                    found[task.kind].append(task)
        return found

    def _needed_of(self, tree: int) -> Iterator[Task]:
        state = self.states[tree]
        for number in self._members[tree]:
            message = self.messages[number]
            if state in ("initial_prompt_review", "growing") and message.accepted is None:
                more = self.limits.reviews - len(message.labels) - message.open["label"]
                yield from [Task("label", None, tree, number)] * max(more, 0)
            if state == "growing" and message.accepted:
                kind: TaskKind = "reply_as_assistant" if message.role == "user" else "reply_as_prompter"
                yield from [Task(kind, None, tree, number)] * self._room(number)
            if state == "ranking" and len(replies := self._ranked(number)) > 1:
                more = self.limits.rankings - len(message.orders) - message.open["rank"]
                yield from [Task("rank", None, tree, number, replies)] * max(more, 0)

    def _room(self, number: int) -> int:
        """How many more replies a message may get."""
        message = self.messages[number]
        if message.depth >= self.limits.depth:
            return 0
        here = [m for n in self._members[message.tree] if (m := self.messages[n]).accepted is not False]
        being_written = sum(m.open["reply"] for m in here)
        replies = sum(m.parent == number for m in here) + message.open["reply"]
        return max(0, min(self.limits.children - replies, self.limits.size - len(here) - being_written))

    def _ranked(self, number: int) -> tuple[int, ...]:
        """The replies to rank: those of the assistant that were accepted."""
        message = self.messages[number]
        if message.role != "user":
            return ()
        return tuple(
            n for n in self._members[message.tree] if (m := self.messages[n]).parent == number and m.accepted
        )

    def _concerned(self, task: Task) -> set[Hashable]:
        about = () if task.message is None else (task.message, *task.replies)
        return set().union(*(self.messages[each].involved for each in about))

    # What has happened

    def _give(self, task: Task) -> None:
        self._open[task] = None
        if task.message is None:
            self._asked_for_prompt += 1
            return
        self._waiting.pop(self.messages[task.message].tree, None)
        self.messages[task.message].involved.add(task.person)
        for reply in task.replies:
            self.messages[reply].involved.add(task.person)
        self.messages[task.message].open["reply" if task.kind.startswith("reply") else task.kind] += 1

    def _close(self, task: Task) -> None:
        if task not in self._open:
            raise DataError(
                "this task is not open", found=task, remedy="each task is done once, by whom it was given to"
            )
        del self._open[task]
        if task.message is None:
            self._asked_for_prompt -= 1
        else:
            self._waiting.pop(self.messages[task.message].tree, None)
            self.messages[task.message].open["reply" if task.kind.startswith("reply") else task.kind] -= 1

    def _advance(self, tree: int) -> None:
        self._waiting.pop(tree, None)
        root, state = self.messages[self.roots[tree]], self.states[tree]
        if state == "initial_prompt_review" and root.accepted is not None:
            self.states[tree] = "growing" if root.accepted else "aborted_low_grade"
        mine = self._members[tree]
        busy = any(sum(self.messages[number].open.values()) for number in mine)
        if self.states[tree] == "growing" and not busy:
            reviewed = all(self.messages[number].accepted is not None for number in mine)
            full = not any(self.messages[number].accepted and self._room(number) for number in mine)
            if reviewed and full:
                self.states[tree] = "ranking"
        if self.states[tree] == "ranking":
            waiting = [n for n in mine if len(self._ranked(n)) > 1]
            if all(len(self.messages[n].orders) >= self.limits.rankings for n in waiting):
                self.states[tree] = "ready_for_export"

    def _node(self, number: int, rank: float | None) -> Node:
        message, ranks = self.messages[number], dict[int, float]()
        here = [(n, self.messages[n]) for n in self._members[message.tree]]
        replies = [n for n, m in here if m.parent == number and m.accepted]
        if message.orders:
            order, _ = merge_rankings(message.orders, len(self._ranked(number)))
            ranks = {self._ranked(number)[item]: float(place) for place, item in enumerate(order)}
        names = {name for given in message.labels for name in given}
        return Node(
            str(number),
            message.role,
            message.text,
            author=str(message.author),
            rank=rank,
            labels={name: _mean(message.labels, name) for name in sorted(names)},
            accepted=message.accepted,
            replies=tuple(self._node(reply, ranks.get(reply)) for reply in replies),
        )


def _mean(labels: Sequence[dict[str, float]], name: str) -> float:
    given = [each[name] for each in labels if name in each]
    return math.fsum(given) / len(given) if given else 0.0
