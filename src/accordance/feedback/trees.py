"""Message trees (OpenAssistant): read with all their labels, filtered, and cut into threads and rankings.

`load_records(format="oasst")` gives prompts with ranked replies at once; this keeps who wrote what, which labels it
got and where in the tree it stands, so that trees can be filtered, capped per author and split before cutting.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from accordance.core.aggregate import ranked_pairs
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Account, Judgment, Message, Record, Records, Response
from accordance.feedback.files import rows_of
from accordance.feedback.turns import SPEAKERS

#: Labels that people give, each as the mean of their answers in 0 .. 1.
FLAGS = ("spam", "lang_mismatch", "pii", "not_appropriate", "hate_speech", "sexual_content")
QUALITIES = ("quality", "toxicity", "humor", "helpfulness", "creativity", "violence")


@dataclass(frozen=True)
class Node:
    """One message of a tree, with what answers it.

    Attributes:
        id: unique.
        role: ``user`` or ``assistant``.
        text: what it says.
        author: who wrote it.
        lang: its language.
        rank: place among its siblings, 0 is best; None where they were not ranked.
        labels: see `FLAGS` and `QUALITIES`; only those that were given.
        accepted: what its reviews came to; None where it had none.
        deleted: taken back.
        synthetic: written by a model.
        replies: what answers it, in the order of the source.
    """

    id: str
    role: str
    text: str
    author: str | None = None
    lang: str | None = None
    rank: float | None = None
    labels: Mapping[str, float] = field(default_factory=dict)
    accepted: bool | None = None
    deleted: bool = False
    synthetic: bool = False
    replies: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This message and all below it, parents first."""
        todo: list[Node] = [self]
        while todo:
            node = todo.pop(0)
            yield node
            todo.extend(node.replies)


@system("S170", "OASST message trees", paper="arXiv:2304.07327")
@dataclass(frozen=True)
class MessageTree:
    """A conversation that branches: one prompt, replies by several people, replies to those (Köpf et al. 2023).

    The scheduler that grows such trees is `accordance.feedback.growing.Forest`; people's rankings of the replies
    to one message are merged by `merge_rankings`; `clean` filters, `threads` and `ranked` cut training data.

    Attributes:
        id: of the tree; splits go by it, never by message.
        root: the first message.
        state: where the tree was in its making, such as ``ready_for_export``.
    """

    id: str
    root: Node
    state: str | None = None

    def threads(self, top: int | None = None) -> Iterator[tuple[Node, ...]]:
        """Paths from the root to the last assistant's message before each leaf, each once.

        Args:
            top: follow only so many of the best-ranked replies of the assistant to each message; unranked ones
                count as worst.
        """
        seen: set[str] = set()
        todo: list[tuple[Node, ...]] = [(self.root,)]
        while todo:
            path = todo.pop(0)
            replies = _best(path[-1].replies, top)
            todo += [(*path, reply) for reply in replies]
            if replies:
                continue
            while path and path[-1].role != "assistant":
                path = path[:-1]
            if path and path[-1].id not in seen:
                seen.add(path[-1].id)
                yield path

    def ranked(self) -> Iterator[tuple[tuple[Node, ...], tuple[Node, ...]]]:
        """(path to a prompt, its ranked replies best first) wherever two or more assistants' replies are ranked."""
        todo: list[tuple[Node, ...]] = [(self.root,)]
        while todo:
            path = todo.pop(0)
            todo += [(*path, reply) for reply in path[-1].replies]
            order = [r for r in path[-1].replies if r.rank is not None and r.role == "assistant"]
            if path[-1].role == "user" and len(order) > 1:
                yield path, tuple(sorted(order, key=lambda reply: reply.rank or 0.0))


def load_trees(source: str | Path | Iterable[Mapping[str, Any]]) -> list[MessageTree]:
    """Trees from OASST exports: nested (a tree per row) or flat (a message per row, in any order).

    Args:
        source: a file or folder of json, jsonl, csv or parquet, or rows.

    Raises:
        DataError: nothing there, a malformed row, or a message whose parent is not in the source.
    """
    flat: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    made: list[MessageTree] = []
    for where, row in rows_of(source):
        if isinstance(row.get("prompt"), Mapping):
            root = _nested(row["prompt"], where)
            made.append(MessageTree(str(row.get("message_tree_id") or root.id), root, row.get("tree_state")))
        elif "message_id" in row:
            flat.setdefault(str(row.get("message_tree_id")), []).append((where, row))
        else:
            raise DataError(
                "this is no message tree",
                where=where,
                found=f"columns {sorted(row)}",
                expected="prompt with replies, or message_id, parent_id, text and role",
            )
    made += [_flat(name, rows) for name, rows in flat.items()]
    if not made:
        raise DataError("there are no trees", where=str(source) if isinstance(source, (str, Path)) else None)
    return made


def merge_rankings(orders: Sequence[Sequence[int]], size: int) -> tuple[list[int], np.ndarray]:
    """One order out of several people's, by ranked pairs (Tideman 1987), which circles do not stop.

    Args:
        orders: for each person the items 0 .. size - 1 that they ranked, best first; items left out say nothing.
        size: how many items there are.

    Returns:
        All items, best first (items that nothing parts stand in their own order), and the matrix of wins,
        W[i, j] people put i above j, shape [size, size].

    Raises:
        DataError: an order names an item twice, or one that is not there.
    """
    wins = np.zeros((size, size))
    for order in orders:
        if len(set(order)) < len(order) or any(not 0 <= item < size for item in order):
            raise DataError("an order names each item once", found=list(order), expected=f"items below {size}")
        for place, better in enumerate(order):
            wins[better, list(order[place + 1 :])] += 1
    score = ranked_pairs(wins)
    return sorted(range(size), key=lambda item: (-score[item], item)), wins


def clean(
    trees: Sequence[MessageTree],
    *,
    spam: float = 0.5,
    least_quality: float | None = None,
    langs: Sequence[str] | None = None,
    per_author: int | None = None,
) -> tuple[list[MessageTree], Account]:
    """Trees without what should not be learned from; with a message goes all that answers it.

    Args:
        trees: as loaded.
        spam: messages with a larger share of spam labels go; so do more than half wrong languages.
        least_quality: messages with a lower quality label go; messages without the label stay.
        langs: only messages in these languages.
        per_author: at most so many messages of one author, the first ones; unnamed authors have no limit.

    Returns:
        The trees whose root is left, and the account: every message read, and why which went.
    """
    account, written = Account(), Counter[str]()

    def reason(node: Node) -> str | None:
        if node.deleted:
            return "deleted"
        if node.accepted is False:
            return "failed its review"
        if node.labels.get("spam", 0) > spam:
            return "spam"
        if node.labels.get("lang_mismatch", 0) > 0.5:
            return "another language than it says"
        if langs is not None and node.lang not in langs:
            return "not in the languages asked for"
        if least_quality is not None and node.labels.get("quality", 1) < least_quality:
            return "low quality"
        if not node.text.strip():
            return "empty"
        if per_author is not None and node.author is not None:
            if written[node.author] >= per_author:
                return "its author wrote enough already"
            written[node.author] += 1
        return None

    def kept(node: Node) -> Node | None:
        account.read += 1
        why = reason(node)
        if why is None:
            return replace(node, replies=tuple(k for reply in node.replies if (k := kept(reply)) is not None))
        account.drop(why, node.id)
        for below in list(node.walk())[1:]:
            account.read += 1
            account.drop("answers a message that went", below.id)
        return None

    left = [replace(tree, root=root) for tree in trees if (root := kept(tree.root)) is not None]
    return left, account


def thread_records(trees: Iterable[MessageTree], top: int | None = None) -> Records:
    """A demonstration per thread: the last assistant's message answers the path before it."""
    made = []
    for tree in trees:
        for path in tree.threads(top):
            said = Judgment("demonstration", (0,), annotator=path[-1].author)
            made.append(_record(tree, path[:-1], path[-1:], said))
    return Records.of((record for record in made if record.prompt), source="message trees")


def ranking_records(trees: Iterable[MessageTree]) -> Records:
    """A comparison of all ranked replies per prompt; `views.pairs` gives C(K, 2) pairs of each."""
    made = []
    for tree in trees:
        for path, replies in tree.ranked():
            values = tuple(0.0 - float(reply.rank or 0) for reply in replies)
            said = Judgment("comparison", tuple(range(len(replies))), values)
            made.append(_record(tree, path, replies, said))
    return Records.of(made, source="message trees")


def split_trees(
    trees: Iterable[MessageTree], held_out: float, seed: int = 0
) -> tuple[list[MessageTree], list[MessageTree]]:
    """Two parts (rest, held out), whole trees each: messages of one tree share topic, author and words.

    Raises:
        ConfigError: a share outside (0, 1).
    """
    if not 0 < held_out < 1:
        raise ConfigError("the held-out share lies between 0 and 1", found=held_out)
    parts: tuple[list[MessageTree], list[MessageTree]] = ([], [])
    for tree in trees:
        digest = hashlib.blake2b(f"{seed} {tree.id}".encode(), digest_size=8).digest()
        parts[int.from_bytes(digest, "big") / 2**64 < held_out].append(tree)
    return parts


def tally(trees: Iterable[MessageTree]) -> dict[str, Any]:
    """What is in the trees: counts by state, role, language, depth and author, and means of the labels."""
    found: dict[str, Any] = {"trees": 0, "messages": 0, "ranked": 0, "pairs": 0, "deepest": 0}
    by: dict[str, Counter[str]] = {name: Counter() for name in ("state", "role", "lang", "author")}
    labels: dict[str, list[float]] = defaultdict(list)
    for tree in trees:
        found["trees"] += 1
        by["state"][tree.state or "unknown"] += 1
        level, depth = [tree.root], 0
        while level:
            depth += 1
            level = [reply for node in level for reply in node.replies]
        found["deepest"] = max(found["deepest"], depth)
        for node in tree.root.walk():
            found["messages"] += 1
            by["role"][node.role] += 1
            by["lang"][node.lang or "unknown"] += 1
            by["author"][node.author or "unknown"] += 1
            for name, value in node.labels.items():
                labels[name].append(value)
        sizes = [len(replies) for _, replies in tree.ranked()]
        found["ranked"] += len(sizes)
        found["pairs"] += sum(size * (size - 1) // 2 for size in sizes)
    found |= {f"by_{name}": dict(counts.most_common()) for name, counts in by.items()}
    found["labels"] = {name: (float(np.mean(values)), len(values)) for name, values in sorted(labels.items())}
    return found


def _best(replies: Sequence[Node], top: int | None) -> list[Node]:
    if top is None:
        return list(replies)
    order = sorted(replies, key=lambda reply: float("inf") if reply.rank is None else reply.rank)
    chosen = {id(reply) for reply in [r for r in order if r.role == "assistant"][:top]}
    return [reply for reply in replies if reply.role != "assistant" or id(reply) in chosen]


def _record(tree: MessageTree, path: Sequence[Node], replies: Sequence[Node], said: Judgment) -> Record:
    prompt = tuple(Message(node.role, node.text) for node in path)
    qualities = [reply.labels.get("quality") for reply in replies]
    extras: dict[str, Any] = {"message_tree_id": tree.id, "message_ids": [reply.id for reply in replies]}
    if path and path[-1].lang:
        extras["lang"] = path[-1].lang
    if any(quality is not None for quality in qualities):
        extras["quality"] = qualities
    shown = tuple(Response.of(reply.text) for reply in replies)
    name = path[-1].id if said.kind == "comparison" and path else replies[-1].id
    return Record(prompt, shown, (said,), name, f"tree {tree.id}", extras)


def _flat(name: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> MessageTree:
    below: dict[str | None, list[str]] = defaultdict(list)
    known = {str(row["message_id"]): (where, row) for where, row in rows}
    for message, (where, row) in known.items():
        parent = row.get("parent_id")
        if parent is not None and str(parent) not in known:
            raise DataError("a message whose parent is not in the source", where=where, found=str(parent))
        below[None if parent is None else str(parent)].append(message)
    if len(below[None]) != 1:
        raise DataError("a tree has one root", where=f"tree {name}", found=below[None])

    def made(message: str) -> Node:
        where, row = known[message]
        return _node(row, where, tuple(made(reply) for reply in below[message]))

    return MessageTree(name, made(below[None][0]), next(iter(known.values()))[1].get("tree_state"))


def _nested(raw: Mapping[str, Any], where: str) -> Node:
    return _node(raw, where, tuple(_nested(reply, where) for reply in raw.get("replies") or ()))


def _node(raw: Mapping[str, Any], where: str, replies: tuple[Node, ...]) -> Node:
    role, text, rank = SPEAKERS.get(str(raw.get("role")).lower()), raw.get("text"), raw.get("rank")
    if role not in ("user", "assistant") or not isinstance(text, str):
        raise DataError(
            "this message can't be read",
            where=where,
            found={name: raw.get(name) for name in ("message_id", "role", "text")},
            expected="a text, and the role prompter or assistant",
        )
    return Node(
        str(raw.get("message_id") or ""),
        role,
        text,
        author=raw.get("user_id"),
        lang=raw.get("lang"),
        rank=None if rank is None or math.isnan(rank) else float(rank),
        labels=_labels(raw.get("labels")),
        accepted=raw.get("review_result"),
        deleted=bool(raw.get("deleted")),
        synthetic=bool(raw.get("synthetic")),
        replies=replies,
    )


def _labels(raw: Any) -> dict[str, float]:
    """Labels in the forms of the exports: name -> {value, count}, or lists of names and values."""
    if not isinstance(raw, Mapping):
        return {}
    if "name" in raw and "value" in raw:
        return {name: float(value) for name, value in zip(raw["name"], raw["value"]) if value is not None}
    read: Callable[[Any], Any] = lambda held: held.get("value") if isinstance(held, Mapping) else held  # noqa: E731
    return {name: float(value) for name, held in raw.items() if (value := read(held)) is not None}
