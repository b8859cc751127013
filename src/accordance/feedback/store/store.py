"""`Store`: people, tasks and judgments in a database, written once each however often the writing is tried."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from accordance.core.errors import DataError
from accordance.core.record import KINDS, Account, Judgment, Record, Records
from accordance.feedback import table
from accordance.feedback.store.connection import connect, persist
from accordance.feedback.store.migrate import migrate
from accordance.feedback.store.schema import sqlalchemy, tables

_BATCH = 500
_WITHDRAWN = "withdrawn"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Annotator:
    """Somebody who judges.

    Attributes:
        name: who; the same in every judgment.
        group: to which group they belong.
        profile: what else they said of themselves, such as ``{"age": "25-34"}``; plain data.
    """

    name: str
    group: str | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One judgment on its way into the store, or as it stands there.

    Attributes:
        key: chosen by the client, unique; the same key again is the same write.
        task: key of the task that was judged (`task_key`).
        judgment: what was said; None withdraws what `supersedes` names.
        supersedes: key of the judgment that this one replaces.
    """

    key: str
    task: str
    judgment: Judgment | None
    supersedes: str | None = None


@dataclass(frozen=True)
class Written:
    """What a write did: rows that are new, and rows that were there already with the same content."""

    new: int = 0
    already: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.new + other.new, self.already + other.already)


def task_key(record: Record, project: str = "default") -> str:
    """The key of a record as a task of a project: a hash of its prompt, responses, id and extras."""
    row = record.to_row()
    return _hash(project, {name: row[name] for name in ("prompt", "responses", "id", "extras")})


class Store:
    """Feedback in a database: SQLite in a file, or PostgreSQL where several people share it.

    Nothing is ever changed or deleted: a correction is a new row that supersedes an old one. Every write carries
    keys, so that it can be tried again when its answer is lost; it is, with growing waits, for `patience` seconds.

    Args:
        place: the path of an SQLite file, which is made where it is missing, or a URL such as
            ``postgresql://user@host/name``.
        patience: seconds for which a server may be away before a call fails.
        make: make the file and the tables where they are missing.

    Raises:
        MissingExtra: the extra ``store`` is not installed.
        DataError: the database can't be reached or used, or there is no store and `make` is off.
    """

    def __init__(self, place: str | Path, *, patience: float = 60.0, make: bool = True) -> None:
        self.patience = patience
        self._engine = connect(place)
        self.where = self._engine.url.render_as_string(hide_password=True)
        if not make and not self._there():
            raise DataError("there is no store", where=self.where, remedy="accord ask --records FILE makes one")
        self.revision = self._persist(lambda: migrate(self._engine, self.where))

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    # Writing

    def add_people(self, people: Iterable[Annotator]) -> Written:
        """Add people; who is there already with another group or profile is corrected by a new row.

        Returns:
            How many rows are new, and how many people stood there as they are.

        Raises:
            DataError: a name that is empty or can't be written.
        """
        done = Written()
        for person in people:
            if not person.name.strip():
                raise DataError("an annotator needs a name", where=self.where, found=repr(person.name))
            now = self._current_people([person.name]).get(person.name)
            content = {
                "name": person.name,
                "group": person.group,
                "profile": _dump(dict(person.profile), self.where),
            }
            if now is not None and all(now[name] == value for name, value in content.items()):
                done += Written(0, 1)
                continue
            before = None if now is None else now["key"]
            row = {"key": _hash("person", content, before), "supersedes": before, **content}
            done += self._add(tables().people, [row], ("name", "group", "profile"))
        return done

    def add_tasks(self, records: Iterable[Record], project: str = "default") -> Written:
        """Add the prompts and responses of records as tasks; their judgments are not added (see `add_records`)."""
        done = Written()
        for batch in _batches(records):
            rows = {}
            for record in batch:
                bare = replace(record, judgments=())
                key = task_key(record, project)
                rows[key] = {
                    "key": key,
                    "supersedes": None,
                    "project": project,
                    "responses": len(record.responses),
                    "record": _dump(bare.to_row(), record.origin or self.where),
                }
            done += self._add(tables().tasks, list(rows.values()), ("project",))
            done += Written(0, len(batch) - len(rows))
        return done

    def add_judgments(self, entries: Iterable[Entry]) -> Written:
        """Add judgments, in one transaction per 500.

        Raises:
            DataError: a judgment that no record could hold, of a task that is not there, or that supersedes what
                is not there or was superseded by another; a key that stands for something else.
        """
        done = Written()
        for batch in _batches(entries):
            self._check(batch)
            rows = [
                {
                    "key": entry.key,
                    "supersedes": entry.supersedes,
                    "task": entry.task,
                    "annotator": entry.judgment and entry.judgment.annotator,
                    "kind": entry.judgment.kind if entry.judgment else _WITHDRAWN,
                    "judgment": _dump(
                        asdict(entry.judgment) if entry.judgment else {}, f"judgment {entry.key}"
                    ),
                }
                for entry in batch
            ]
            done += self._add(tables().judgments, rows, ("task", "judgment", "supersedes", "kind"))
        return done

    def add_records(self, records: Iterable[Record], project: str = "default") -> Written:
        """Add records with their judgments. The same records again add nothing; with more judgments, only those.

        Returns:
            What became of the judgments.
        """
        done = Written()
        for batch in _batches(records):
            self.add_tasks(batch, project)
            entries, seen = [], dict[str, int]()
            for record in batch:
                task = task_key(record, project)
                for judgment in record.judgments:
                    said = _hash(task, asdict(judgment))
                    # Two equal judgments of one record are two judgments.
                    seen[said] = seen.get(said, -1) + 1
                    entries.append(Entry(f"{said}-{seen[said]}", task, judgment))
            done += self.add_judgments(entries)
        return done

    # Reading

    def people(self) -> list[Annotator]:
        """Everybody, as last corrected, in the order in which they came."""
        rows = self._current_people(None).values()
        return [Annotator(row["name"], row["group"], json.loads(row["profile"])) for row in rows]

    def tasks(self, project: str | None = None) -> Iterator[tuple[str, Record]]:
        """Keys and records (without judgments) of the tasks, of one project or all, in order."""
        sa, tasks = sqlalchemy(), tables().tasks
        last = -1
        while True:
            query = sa.select(tasks).where(tasks.c.number > last).order_by(tasks.c.number).limit(_BATCH)
            rows = self._read(query if project is None else query.where(tasks.c.project == project))
            for row in rows:
                yield row["key"], Record.from_row(json.loads(row["record"]))
            if not rows:
                return
            last = rows[-1]["number"]

    def judgments(
        self,
        *,
        tasks: Sequence[str] | None = None,
        annotator: str | None = None,
        superseded: bool = False,
    ) -> list[Entry]:
        """What was said, in order.

        Args:
            tasks: only of these tasks.
            annotator: only by them.
            superseded: also what was corrected or withdrawn since, and the withdrawals.
        """
        sa, j = sqlalchemy(), tables().judgments
        query = sa.select(j).order_by(j.c.number)
        if tasks is not None:
            query = query.where(j.c.task.in_(list(tasks)))
        if annotator is not None:
            query = query.where(j.c.annotator == annotator)
        if not superseded:
            later = j.alias()
            query = query.where(
                j.c.kind != _WITHDRAWN, ~sa.exists(sa.select(1).where(later.c.supersedes == j.c.key))
            )
        return [Entry(row["key"], row["task"], _judgment(row), row["supersedes"]) for row in self._read(query)]

    def records(self, project: str | None = None) -> Records:
        """Everything that holds now as Records: each task with its judgments, in the order in which they came."""
        account = Account()

        def made() -> Iterator[Record]:
            for batch in _batches(self.tasks(project)):
                said: dict[str, list[Judgment]] = {}
                for entry in self.judgments(tasks=[key for key, _ in batch]):
                    assert entry.judgment is not None
                    said.setdefault(entry.task, []).append(entry.judgment)
                for key, record in batch:
                    account.read += 1
                    yield replace(record, judgments=tuple(said.get(key, ())))

        return Records(table.build(made(), account), account, self.where)

    def counts(self) -> dict[str, int]:
        """Rows of each table, corrections included."""
        sa = sqlalchemy()
        each = {"people": tables().people, "tasks": tables().tasks, "judgments": tables().judgments}
        return {
            name: self._read(sa.select(sa.func.count().label("n")).select_from(held))[0]["n"]
            for name, held in each.items()
        }

    # Inside

    def _persist(self, work: Callable[[], Item]) -> Item:
        return persist(work, patience=self.patience, where=self.where)

    def _there(self) -> bool:
        """Whether there are tables of ours; makes nothing, not even an empty file."""
        file = self._engine.url.database
        if self._engine.dialect.name == "sqlite" and (not file or not Path(file).exists()):
            return False

        def work() -> bool:
            with self._engine.connect() as connection:
                return sqlalchemy().inspect(connection).has_table("judgments")

        return self._persist(work)

    def _read(self, query: Any) -> list[Mapping[str, Any]]:
        def work() -> list[Mapping[str, Any]]:
            with self._engine.connect() as connection:
                return list(connection.execute(query).mappings())

        return self._persist(work)

    def _current_people(self, names: Sequence[str] | None) -> dict[str, Mapping[str, Any]]:
        sa, people = sqlalchemy(), tables().people
        query = sa.select(people).order_by(people.c.number)
        if names is not None:
            query = query.where(people.c.name.in_(list(names)))
        return {row["name"]: row for row in self._read(query)}

    def _add(self, held: Any, rows: list[dict[str, Any]], same: Sequence[str]) -> Written:
        """Insert what is not there; `same`: columns that must agree where a key is there already."""
        if not rows:
            return Written()
        sa = sqlalchemy()
        for row in rows:
            _writable(row, self.where)

        def work() -> Written:
            if self._engine.dialect.name == "postgresql":
                from sqlalchemy.dialects.postgresql import insert
            else:
                from sqlalchemy.dialects.sqlite import insert
            # Rows in the order of their keys would avoid deadlocks, but order is what `number` keeps: two clients
            # that write the same keys crosswise deadlock, and the one that loses tries again.
            statement = insert(held).on_conflict_do_nothing(index_elements=["key"]).returning(held.c.key)
            with self._engine.begin() as connection:
                new = set(connection.scalars(statement, rows))
                old = [row["key"] for row in rows if row["key"] not in new]
                there = connection.execute(sa.select(held).where(held.c.key.in_(old))).mappings() if old else ()
                found = {row["key"]: row for row in there}
                for row in rows:
                    now = found.get(row["key"], row)
                    differ = [name for name in same if now[name] != row[name]]
                    if differ:
                        raise DataError(
                            f"the key stands for something else in {held.name!r}",
                            where=f"{self.where}, key {row['key']}",
                            found={name: row[name] for name in differ},
                            expected=str({name: now[name] for name in differ}),
                            remedy="a new key, with supersedes= to correct what is there",
                        )
            return Written(len(new), len(rows) - len(new))

        try:
            return self._persist(work)
        except sa.exc.IntegrityError as error:
            raise DataError(
                "what the judgments stand on is not there, or was corrected before",
                where=self.where,
                found=" ".join(str(error.orig).split()),
                expected="tasks that were added, and supersedes= naming judgments that nothing supersedes yet",
            ) from error

    def _check(self, batch: Sequence[Entry]) -> None:
        """Refuse what `records` could not give back."""
        sa, tasks, judgments = sqlalchemy(), tables().tasks, tables().judgments
        asked = {entry.task for entry in batch}
        query = sa.select(tasks.c.key, tasks.c.responses).where(tasks.c.key.in_(asked))
        sizes = {row["key"]: row["responses"] for row in self._read(query)}
        replaced = [entry.supersedes for entry in batch if entry.supersedes is not None]
        of = {}
        if replaced:
            query = sa.select(judgments.c.key, judgments.c.task).where(judgments.c.key.in_(replaced))
            of = {row["key"]: row["task"] for row in self._read(query)}
        of |= {entry.key: entry.task for entry in batch}
        for entry in batch:
            wrong = _wrong(entry, sizes.get(entry.task))
            if entry.supersedes is not None and of.get(entry.supersedes) != entry.task:
                wrong = f"it supersedes {entry.supersedes!r}, which is no judgment of that task"
            if wrong:
                raise DataError(f"this judgment can't be kept: {wrong}", where=f"key {entry.key}", found=entry)


def _wrong(entry: Entry, responses: int | None) -> str | None:
    judgment = entry.judgment
    if responses is None:
        return f"no task {entry.task!r} in the store"
    if judgment is None:
        return None if entry.supersedes else "it says nothing and withdraws nothing"
    if judgment.kind not in KINDS:
        return f"unknown kind {judgment.kind!r}"
    if not all(0 <= i < responses for i in judgment.responses):
        return f"the task has {responses} responses"
    if judgment.kind in ("comparison", "rating", "thumb") and len(judgment.values) != len(judgment.responses):
        return "one value per judged response"
    if not all(math.isfinite(value) for value in judgment.values):
        return "a value that is no finite number"
    return None


def _judgment(row: Mapping[str, Any]) -> Judgment | None:
    if row["kind"] == _WITHDRAWN:
        return None
    held = json.loads(row["judgment"])
    return Judgment(**{**held, "responses": tuple(held["responses"]), "values": tuple(held["values"])})


def _dump(value: Any, where: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)
        text.encode()
    except (TypeError, ValueError) as error:  # half of a surrogate pair, too, which Records can't hold either
        raise DataError("this can't be written as JSON", where=where, found=str(error)) from error
    return text


def _writable(row: Mapping[str, Any], where: str) -> None:
    for name, value in row.items():
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
            raise DataError(
                "text that no database can hold", where=f"{where}, column {name!r}", found=repr(value)
            )


def _hash(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
