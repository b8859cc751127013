"""Records: prompts, the responses to them, and the judgments people or models passed on those.

`Record` is one of them as a plain object; `Records` is many of them as a memory-mapped or streaming
`datasets` table with one schema, `FEATURES`, and an `Account` of every row that was read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Value
from datasets import List as ListOf

from accordance.core.errors import DataError

JudgmentKind = Literal["comparison", "incomparable", "thumb", "rating", "critique", "demonstration", "steps"]
KINDS: tuple[str, ...] = get_args(JudgmentKind)

_BLOCK = 256  # records read at once

#: The role of a message that is plain text: it goes to the model as it stands, without a chat template.
TEXT = "text"


@dataclass(frozen=True)
class Message:
    """One turn: a role (``system``, ``user``, ``assistant``, ``tool``, or ``text`` for untemplated text)."""

    role: str
    content: str


@dataclass(frozen=True)
class Response:
    """One answer to a prompt.

    Attributes:
        messages: its turns; nearly always one, by the assistant.
        source: the model or person that wrote it, where known.
        steps: the text cut into steps, where step judgments refer to them.
    """

    messages: tuple[Message, ...]
    source: str | None = None
    steps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the response says, roles left out."""
        return "\n".join(message.content for message in self.messages)

    @classmethod
    def of(cls, text: str, *, source: str | None = None, role: str = "assistant") -> Response:
        """A response of one message."""
        return cls((Message(role, text),), source)


@dataclass(frozen=True)
class Judgment:
    """What one person or model said about one or more responses of a record.

    Attributes:
        kind: ``comparison`` (two or more responses against each other), ``incomparable`` (asked to compare
            them, the annotator said that they can't be; no values: it is no tie), ``thumb``, ``rating``,
            ``critique``, ``demonstration`` (this is how to answer) or ``steps``.
        responses: the indices judged, in the order in which they were shown.
        values: one number per judged response, **higher is better**; equal numbers in a comparison are a
            tie; 1 and 0 for thumbs; for ``steps`` one number per step of the one response.
        text: the critique, or the reason given.
        annotator: who judged.
        group: the group that the annotator belongs to.
        attribute: what was judged (``helpfulness``, ``harmlessness``); None for overall.
        strength: how strongly, where it was asked; larger is stronger, 1 is ordinary.
        principle: the principle under which it was judged.
        persona: the persona for whom it was judged.
    """

    kind: JudgmentKind
    responses: tuple[int, ...]
    values: tuple[float, ...] = ()
    text: str | None = None
    annotator: str | None = None
    group: str | None = None
    attribute: str | None = None
    strength: float | None = None
    principle: str | None = None
    persona: str | None = None

    @property
    def tie(self) -> bool:
        """Whether a comparison found no difference at all."""
        return self.kind == "comparison" and len(set(self.values)) == 1


@dataclass(frozen=True)
class Record:
    """One prompt, its responses, and the judgments on them.

    Attributes:
        prompt: the conversation up to the response; empty where the whole text is the response.
        responses: what was answered.
        judgments: what was said about the answers.
        id: a name of the record, unique within its source.
        origin: the file and row it came from, for error messages.
        extras: `tools`, `images`, `chat_template_kwargs` and whatever else the source carried.
    """

    prompt: tuple[Message, ...]
    responses: tuple[Response, ...] = ()
    judgments: tuple[Judgment, ...] = ()
    id: str = ""
    origin: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chat(self) -> bool:
        """Whether the model's chat template renders this record (plain text goes in as it stands)."""
        turns = [*self.prompt, *(message for response in self.responses for message in response.messages)]
        return not any(message.role == TEXT for message in turns)

    @property
    def prompt_text(self) -> str:
        """What the last user turn (or the plain text) asks."""
        for message in reversed(self.prompt):
            if message.role in ("user", TEXT):
                return message.content
        return ""

    def to_row(self) -> dict[str, Any]:
        """The record as a row of `FEATURES`."""
        row = asdict(self)
        row["extras"] = json.dumps(self.extras, ensure_ascii=False, sort_keys=True) if self.extras else ""
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """The record that a row of `FEATURES` holds."""
        return cls(
            prompt=_messages(row["prompt"]),
            responses=tuple(
                Response(_messages(r["messages"]), r["source"], tuple(r["steps"])) for r in row["responses"]
            ),
            judgments=tuple(
                Judgment(**{**j, "responses": tuple(j["responses"]), "values": tuple(j["values"])})
                for j in row["judgments"]
            ),
            id=row["id"],
            origin=row["origin"],
            extras=json.loads(row["extras"]) if row["extras"] else {},
        )


def chat(*turns: tuple[str, str]) -> tuple[Message, ...]:
    """Messages from (role, content) pairs."""
    return tuple(Message(role, content) for role, content in turns)


def user(text: str) -> tuple[Message, ...]:
    """A prompt of one user turn."""
    return (Message("user", text),)


def as_prompt(prompt: str | Sequence[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    """A prompt from what people pass: a string (one user turn), messages, or role-content mappings."""
    if isinstance(prompt, str):
        return user(prompt)
    return tuple(m if isinstance(m, Message) else Message(m["role"], m["content"]) for m in prompt)


_text = Value("string")
_message = {"role": _text, "content": _text}

#: The schema of `Records.dataset`.
FEATURES = Features(
    {
        "id": _text,
        "origin": _text,
        "prompt": ListOf(_message),
        "responses": ListOf({"messages": ListOf(_message), "source": _text, "steps": ListOf(_text)}),
        "judgments": ListOf(
            {
                "kind": _text,
                "responses": ListOf(Value("int32")),
                "values": ListOf(Value("float64")),
                "text": _text,
                "annotator": _text,
                "group": _text,
                "attribute": _text,
                "strength": Value("float64"),
                "principle": _text,
                "persona": _text,
            }
        ),
        "extras": _text,
    }
)


@dataclass
class Account:
    """What became of every row that was read: kept, or dropped for a reason, with where it stood.

    Attributes:
        read: rows read.
        dropped: for each reason, how many rows.
        rows: for each reason, the origins of the dropped rows (all of them).
        notes: things done to rows that were kept, each with how often.
        reading: by which source, format and split the rows were read, where they can be read again.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rows: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    reading: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def kept(self) -> int:
        """Rows that became records."""
        return self.read - sum(self.dropped.values())

    def drop(self, reason: str, origin: str = "") -> None:
        """Count a row as dropped. The row must have been counted in `read`."""
        self.dropped[reason] += 1
        self.rows.setdefault(reason, []).append(origin)

    def unused(self, most: int = 3) -> str:
        """How many rows could not be used, for which reasons, with the first rows of each; empty where all could."""
        parts = []
        for reason, count in self.dropped.most_common(most):
            parts.append(f"{reason}: {', '.join(self.rows[reason][:most])}{', ...' * (count > most)}")
        parts += ["..."] * (len(self.dropped) > most)
        lost = sum(self.dropped.values())
        return f"{lost:,} of {self.read:,} rows could not be used ({'; '.join(parts)})" if lost else ""

    def to_dict(self, examples: int = 5) -> dict[str, Any]:
        """Counts, and the first few origins for each reason."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "dropped_examples": {reason: rows[:examples] for reason, rows in self.rows.items()},
            "notes": dict(self.notes),
        }

    def copy(self) -> Account:
        """An independent copy, so that what happens to a derived table is not written into its source."""
        rows = {reason: list(origins) for reason, origins in self.rows.items()}
        return Account(self.read, Counter(self.dropped), rows, Counter(self.notes), dict(self.reading))


class NoLength(DataError, TypeError):
    """Streaming records have no length; a TypeError too, so that ``list(records)`` reads on without one."""


class Records:
    """Many records: a `datasets` table with the schema `FEATURES`, and the account of how it was read.

    Args:
        dataset: memory-mapped (`Dataset`) or streaming (`IterableDataset`); the columns of `FEATURES`.
        account: what became of the rows of the source.
        source: where the records came from, for messages and reports.

    Raises:
        DataError: the table has other columns than the schema.
    """

    def __init__(
        self, dataset: Dataset | IterableDataset, account: Account | None = None, source: str = "memory"
    ) -> None:
        columns = dataset.column_names
        if columns is not None and set(columns) != set(FEATURES):
            raise DataError(
                "these are not Records",
                where=source,
                found=f"columns {sorted(columns)}",
                expected=f"columns {sorted(FEATURES)}",
                remedy="load raw data with accordance.load_records(...)",
            )
        self.dataset = dataset
        self.source = source
        self.account = account or Account(read=len(dataset) if isinstance(dataset, Dataset) else 0)

    @classmethod
    def of(
        cls, records: Iterable[Record], *, account: Account | None = None, source: str = "memory"
    ) -> Records:
        """Records from objects, held in memory."""
        rows = [record.to_row() for record in records]
        dataset = Dataset.from_list(rows, features=FEATURES) if rows else _empty()
        return cls(dataset, account or Account(read=len(rows)), source)

    @property
    def streaming(self) -> bool:
        """Whether the records can only be read in order, without a length."""
        return not isinstance(self.dataset, Dataset)

    def __len__(self) -> int:
        if not isinstance(self.dataset, Dataset):
            raise NoLength(
                "streaming records have no length", where=self.source, remedy="call .materialise(limit)"
            )
        return len(self.dataset)

    def __bool__(self) -> bool:
        return self.streaming or len(self) > 0

    def __iter__(self) -> Iterator[Record]:
        if not isinstance(self.dataset, Dataset):
            for row in self.dataset:
                yield Record.from_row(row)
            return
        for start in range(0, len(self), _BLOCK):
            yield from self.block(start, start + _BLOCK)

    def block(self, start: int, stop: int) -> list[Record]:
        """Consecutive records, read at once: several times as fast as one by one."""
        columns: dict[str, list[Any]] = self._table()[start:stop]
        rows = zip(*columns.values(), strict=True)
        return [Record.from_row(dict(zip(columns, row, strict=True))) for row in rows]

    def __getitem__(self, index: int) -> Record:
        if not isinstance(self.dataset, Dataset):
            raise DataError(
                "streaming records can't be indexed", where=self.source, remedy="call .materialise(limit)"
            )
        return Record.from_row(self.dataset[index])

    def __repr__(self) -> str:
        size = "streaming" if self.streaming else f"{len(self)} records"
        return f"Records({self.source!r}, {size})"

    def select(self, indices: Iterable[int]) -> Records:
        """The records at these indices, in this order. The account stays that of the source."""
        return Records(self._table().select(list(indices)), self.account.copy(), self.source)

    def where(self, keep: Callable[[Record], bool], reason: str) -> Records:
        """The records for which `keep` is true; the others are in the account under `reason`."""
        account, kept = self.account.copy(), []
        for index, record in enumerate(self):
            if keep(record):
                kept.append(index)
            else:
                account.drop(reason, record.origin)
        return Records(self._table().select(kept), account, self.source)

    def split(self, held_out: float | int, seed: int = 0) -> tuple[Records, Records]:
        """Two parts (rest, held out) such that no prompt stands in both.

        A prompt goes by the hash of its text and the seed, so that appending rows moves no other row.

        Args:
            held_out: a share below 1, or about how many records.
            seed: another seed, another split.
        """
        share = held_out if held_out < 1 else held_out / max(len(self), 1)
        rest: list[int] = []
        out: list[int] = []
        for index, prompt in enumerate(self._table()["prompt"]):
            key = json.dumps([seed, prompt], ensure_ascii=False, sort_keys=True).encode()
            place = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
            (out if place < share else rest).append(index)
        return self.select(rest), self.select(out)

    def materialise(self, limit: int | None = None) -> Records:
        """Streaming records (at most `limit`) as a table in memory; a table as it is."""
        if not self.streaming:
            return self
        stream = self.dataset if limit is None else self.dataset.take(limit)
        rows = list(stream)
        dataset = Dataset.from_list(rows, features=FEATURES) if rows else _empty()
        return Records(dataset, self.account, self.source)

    def fingerprint(self) -> str:
        """A hash of the content: equal for equal records, whatever file they came from."""
        digest = hashlib.blake2b(digest_size=16)
        columns = sorted(set(FEATURES) - {"origin"})
        for row in self._table().select_columns(columns):
            digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """How many judgments there are of each kind."""
        kinds: Counter[str] = Counter()
        for batch in self._table().with_format("arrow").iter(batch_size=10_000):
            judged: Any = batch["judgments"].combine_chunks()  # type: ignore[call-overload]
            flat = judged.flatten() if isinstance(judged, pa.Array) else judged
            kinds.update(flat.field("kind").to_pylist())
        return dict(kinds)

    def _table(self) -> Dataset:
        if not isinstance(self.dataset, Dataset):
            raise DataError(
                "this needs all the records at once, and these are streaming",
                where=self.source,
                remedy="call .materialise(limit), or load without streaming=True",
            )
        return self.dataset


def _messages(rows: Iterable[Mapping[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(row["role"], row["content"]) for row in rows)


def _empty() -> Dataset:
    """A table without rows (`Dataset.from_list` makes no columns of nothing)."""
    return Dataset.from_dict({column: [] for column in FEATURES}, features=FEATURES)
