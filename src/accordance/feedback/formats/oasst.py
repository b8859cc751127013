"""OpenAssistant (arXiv:2304.07327): trees of messages, the replies to each ranked by people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accordance.core.record import Judgment, Message, Record, Response
from accordance.feedback.formats.registry import format
from accordance.feedback.row import Row, Unusable
from accordance.feedback.turns import SPEAKERS


@dataclass
class _Node:
    id: str
    text: str
    role: str
    rank: float | None
    lang: str | None
    replies: list[_Node] = field(default_factory=list)


@format("oasst", "message_id parent_id text role", join=lambda row: row.raw.get("message_tree_id"))
def oasst(rows: list[Row]) -> Iterator[Record]:
    """Messages with a `parent_id`, one per row, those of a tree together: a record per prompt with its replies.

    Replies ranked against each other (`rank` 0 is best) are a comparison; a lone or unranked one demonstrates.
    """
    nodes: dict[str, _Node] = {}
    for row in rows:
        node = _node(row, row.raw)
        nodes[node.id] = node
        row.read_all()
    roots: list[_Node] = []
    for row, node in zip(rows, nodes.values()):
        parent = row.optional("parent_id")
        if parent is None:
            roots.append(node)
        elif parent in nodes:
            nodes[parent].replies.append(node)
        else:
            row.note("a message whose parent is not in the tree left out, with what answers it")
    yield from _all(rows[0], roots)


@format(
    "oasst_trees",
    "message_tree_id prompt",
    matches=lambda sample: all(isinstance(r.get("prompt"), Mapping) for r in sample),
)
def oasst_trees(row: Row) -> Iterator[Record]:
    """Nested trees: `prompt` is a message with `replies`, those have replies of their own, and so on."""
    root = row["prompt"]
    row.read_all()
    if not isinstance(root, Mapping):
        row.wrong("prompt", root, 'a message {"message_id": ..., "text": ..., "role": ..., "replies": [...]}')
    yield from _all(row, [_tree(row, root)])


def _all(row: Row, roots: Sequence[_Node]) -> Iterator[Record]:
    made = [record for root in roots for record in _records(row, (), root)]
    if not made:
        raise Unusable("a tree without a reply to any prompt")
    yield from made


def _tree(row: Row, raw: Mapping[str, Any]) -> _Node:
    node = _node(row, raw)
    todo = [(node, raw)]
    while todo:
        parent, values = todo.pop()
        for reply in values.get("replies") or []:
            if not isinstance(reply, Mapping):
                row.wrong("prompt", reply, "a reply that is a message")
            child = _node(row, reply)
            parent.replies.append(child)
            todo.append((child, reply))
    return node


def _node(row: Row, raw: Mapping[str, Any]) -> _Node:
    text, role = raw.get("text"), SPEAKERS.get(str(raw.get("role")).lower())
    if not isinstance(text, str):
        row.wrong("text", text, "a string")
    if role is None:
        row.wrong("role", raw.get("role"), "prompter or assistant")
    rank = raw.get("rank")
    empty = rank is None or rank == "" or (isinstance(rank, float) and math.isnan(rank))
    value = None if empty else row.as_number(rank, "rank")
    return _Node(str(raw.get("message_id") or ""), row.clean(text), role, value, raw.get("lang"))


def _records(row: Row, before: tuple[Message, ...], root: _Node) -> Iterator[Record]:
    todo = [(before, root)]
    while todo:
        history, node = todo.pop(0)
        here = (*history, Message(node.role, node.text))
        answers = [reply for reply in node.replies if reply.role == "assistant" and reply.text.strip()]
        if node.role == "user" and answers:
            ranked = [i for i, reply in enumerate(answers) if reply.rank is not None]
            if len(ranked) > 1:
                values = tuple(0.0 - float(answers[i].rank or 0) for i in ranked)
                judgments = [Judgment("comparison", tuple(ranked), values)]
            else:
                judgments = [Judgment("demonstration", (i,)) for i in range(len(answers))]
            extras = {"lang": node.lang} if node.lang else {}
            shown = [Response.of(reply.text) for reply in answers]
            yield row.record(here, shown, judgments, id=node.id or None, extras=extras)
        todo += [(here, reply) for reply in node.replies]
