"""Every comparison of some Records as flat arrays, read from Arrow without a Python object per row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from datasets import Dataset

from accordance.core.record import Records
from accordance.core.weights import weights_in

#: Arrow makes its functions when it is imported, which type checkers don't see.
pc: Any = pyarrow.compute
_BATCH = 20_000
_NAMES = ("annotator", "group", "attribute")


@dataclass(frozen=True)
class FlatPairs:
    """Every two responses that one judgment compared, in the order of the table.

    A ranking of K responses gives all its pairs; a rating by one person of several responses counts as a comparison.

    Attributes:
        row: index of the record, shape [n].
        number: which of its judgments, shape [n].
        first, second: the two responses, counted over the whole table, in the order shown, shape [n].
        label: 1 the first was preferred, 0 the second, 0.5 a tie, shape [n].
        weight: how much the judgment counts (`core.weights`), shape [n].
        annotator, group, attribute: codes into `names`, -1 where there is none, shape [n].
        names: the names behind the codes.
        response_row: the record of each response, shape [t].
        source: the writer of each response, a code into `sources` or -1, shape [t].
        sources: their names.
        text: a hash of each response's text, equal for equal texts, shape [t].
        prompt: a hash of each record's prompt, shape [r].
    """

    row: np.ndarray
    number: np.ndarray
    first: np.ndarray
    second: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    annotator: np.ndarray
    group: np.ndarray
    attribute: np.ndarray
    names: dict[str, tuple[str, ...]]
    response_row: np.ndarray
    source: np.ndarray
    sources: tuple[str, ...]
    text: np.ndarray
    prompt: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def of(cls, records: Records) -> FlatPairs:
        """The comparisons of a table; a stream is read to its end."""
        table = records.materialise().dataset
        assert isinstance(table, Dataset)
        parts: list[dict[str, np.ndarray]] = []
        books: dict[str, dict[str | None, int]] = {name: {None: -1} for name in (*_NAMES, "source")}
        rows = responses = 0
        for batch in table.with_format("arrow").iter(batch_size=_BATCH):
            part = _part(batch, books)
            for name in ("row", "response_row"):
                part[name] += rows
            for name in ("first", "second"):
                part[name] += responses
            rows, responses = rows + len(part["prompt"]), responses + len(part["text"])
            parts.append(part)
        keys = (
            "row",
            "number",
            "first",
            "second",
            "label",
            "weight",
            *_NAMES,
            "response_row",
            "source",
            "text",
            "prompt",
        )
        empty = np.zeros(0, dtype=np.int64)
        joined: dict[str, Any] = {k: np.concatenate([p[k] for p in parts]) if parts else empty for k in keys}
        known = {name: tuple(str(key) for key in book if key is not None) for name, book in books.items()}
        return cls(**joined, sources=known.pop("source"), names=known)

    def select(self, places: Any) -> FlatPairs:
        """The comparisons at these places, or where this mask is true; responses and prompts stay."""
        columns = ("row", "number", "first", "second", "label", "weight", *_NAMES)
        kept = {name: getattr(self, name)[places] for name in columns}
        return FlatPairs(**{**{name: getattr(self, name) for name in self.__dataclass_fields__}, **kept})

    def items(self) -> tuple[np.ndarray, np.ndarray]:
        """What was judged: a code per comparison, equal for equal prompt, texts and attribute in any order.

        Returns:
            The codes 0 .. k - 1, shape [n], and whether the first response is the item's second text, shape [n].
        """
        a, b = self.text[self.first], self.text[self.second]
        columns = np.stack([self.prompt[self.row], np.minimum(a, b), np.maximum(a, b), self.attribute])
        order = np.lexsort(columns)
        ahead = columns[:, order]
        new = np.append(True, (ahead[:, 1:] != ahead[:, :-1]).any(0)) if len(order) else np.zeros(0, dtype=bool)
        codes = np.empty(len(order), dtype=np.int64)
        codes[order] = np.cumsum(new) - 1
        return codes, a > b


def expand(judgments: Any, start: np.ndarray) -> tuple[np.ndarray, ...]:
    """The pairs in a batch's judgments.

    Args:
        judgments: the list column of one batch, shape [r].
        start: where the responses of each record begin in the batch, shape [r].

    Returns:
        Index of the judgment among the batch's, record, first, second and label; of shape [n] each, judgments in
        their order.
    """
    said, number = judgments.flatten(), lengths(judgments)
    record = np.repeat(np.arange(len(judgments)), number)
    values, judged = said.field("values"), said.field("responses")
    counted = pc.is_in(said.field("kind"), value_set=pa.array(["comparison", "rating"]))
    usable = np.asarray(counted).astype(bool) & (lengths(values) == lengths(judged)) & (lengths(values) >= 2)
    found: list[tuple[np.ndarray, ...]] = []
    for k in np.unique(lengths(values)[usable]):
        rows = np.flatnonzero(usable & (lengths(values) == k))
        chosen = pa.array(rows)
        score = values.take(chosen).flatten().to_numpy(zero_copy_only=False).reshape(-1, k)
        place = judged.take(chosen).flatten().to_numpy(zero_copy_only=False).reshape(-1, k)
        for a in range(k):
            for b in range(a + 1, k):
                base = start[record[rows]]
                label = (1 + np.sign(score[:, a] - score[:, b])) / 2
                found.append((rows, record[rows], base + place[:, a], base + place[:, b], label))
    columns = [np.concatenate(c) for c in zip(*found)] if found else [np.zeros(0, int)] * 4 + [np.zeros(0)]
    order = np.argsort(columns[0], kind="stable")
    return tuple(column[order] for column in columns)


def lengths(lists: Any) -> np.ndarray:
    """How long each list of a list column is; 0 for null."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)


def array(column: Any) -> Any:
    """A column as one Arrow array."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _part(batch: Any, books: dict[str, dict[str | None, int]]) -> dict[str, np.ndarray]:
    responses, judgments = array(batch["responses"]), array(batch["judgments"])
    many = lengths(responses)
    start = np.append(0, np.cumsum(many))[:-1]
    rows, record, first, second, label = expand(judgments, start)
    said, before = judgments.flatten(), np.append(0, np.cumsum(lengths(judgments)))[:-1]
    each, of = responses.flatten(), pa.array(rows.astype(np.int64))
    return {
        "row": record.astype(np.int64),
        "number": (rows - before[record]).astype(np.int64) if len(rows) else rows,
        "first": first.astype(np.int64),
        "second": second.astype(np.int64),
        "label": label,
        "weight": weights_in(batch, lengths(judgments))[rows],
        "response_row": np.repeat(np.arange(len(many)), many),
        "source": _codes(each.field("source"), books["source"]),
        "text": _hashes(each.field("messages").to_pylist()),
        "prompt": _hashes(array(batch["prompt"]).to_pylist()),
        **{name: _codes(said.field(name).take(of), books[name]) for name in _NAMES},
    }


def _codes(names: Any, book: dict[str | None, int]) -> np.ndarray:
    """A code per name, new names written into the book; -1 for null."""
    coded = array(names).dictionary_encode()
    known = np.array([book.setdefault(n, len(book) - 1) for n in coded.dictionary.to_pylist()], dtype=np.int64)
    indices = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.append(known, -1)[indices]


def _hashes(messages: Iterable[list[dict[str, str]]]) -> np.ndarray:
    """A hash per text that is the same in every process, so that what is found does not depend on the day."""
    digests = b"".join(
        blake2b("\x1e".join(f"{m['role']}\x1f{m['content']}" for m in turns).encode(), digest_size=8).digest()
        for turns in messages
    )
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
