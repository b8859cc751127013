"""The store on SQLite: what is written once, corrected, withdrawn, read back; and what is refused."""

from __future__ import annotations

import builtins
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from accordance.core.errors import DataError, MissingExtra
from accordance.core.record import Judgment, Message, Record, Records, Response, user
from accordance.feedback import load_records, save_records
from accordance.feedback.store import Annotator, Entry, Store, Written, task_key
from accordance.feedback.store.connection import persist, url_of
from accordance.feedback.store.migrate import migrate
from accordance.feedback.store.schema import tables

TASK = Record(user("which?"), (Response.of("a"), Response.of("b")), id="t1")


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "said.db") as held:
        yield held


def said(first: float, second: float, **more: Any) -> Judgment:
    return Judgment("comparison", (1, 0), (first, second), **more)


def test_records_come_back_as_they_went_in(store: Store) -> None:
    judgments = (
        said(1, 0, annotator="ann", group="g", attribute="tone", strength=2.0, text="shorter 🙂"),
        said(1, 0, annotator="ann", group="g", attribute="tone", strength=2.0, text="shorter 🙂"),  # said twice
        Judgment("incomparable", (0, 1), text="apples and pears \x00", annotator="bob"),
        Judgment("critique", (0,), text="too long", principle="be short", persona="a child"),
        Judgment("steps", (1,), (1.0, 0.0)),
    )
    record = Record(
        (Message("system", "be kind"), Message("user", "שלום")),
        (Response.of("one", source="m1"), Response((Message("assistant", "two"),), None, ("tw", "o"))),
        judgments,
        id="r",
        origin="file:3",
        extras={"tools": [{"name": "x"}], "n": 1},
    )
    many = [record, TASK, *[Record(user(f"q{i}"), (Response.of(str(i)),), id=str(i)) for i in range(1203)]]
    assert store.add_records(many) == Written(5, 0)
    assert list(store.records()) == many
    assert store.add_records(many) == Written(0, 5), "the same records again add nothing"
    assert store.counts() == {"people": 0, "tasks": 1205, "judgments": 5}
    assert list(store.records("another project")) == []


def test_export_and_import_through_a_file(store: Store, tmp_path: Path) -> None:
    store.add_records(
        [Record(TASK.prompt, TASK.responses, (said(1, 0), Judgment("incomparable", (0, 1))), "t1")]
    )
    save_records(store.records(), tmp_path / "out.jsonl")
    back = load_records(tmp_path / "out.jsonl")
    with Store(tmp_path / "other.db") as other:
        other.add_records(back)
        assert [r.judgments for r in other.records()] == [r.judgments for r in store.records()]


def test_a_key_is_one_write_however_often_it_is_tried(store: Store) -> None:
    store.add_tasks([TASK])
    entry = Entry("k1", task_key(TASK), said(1, 0))
    assert store.add_judgments([entry]) == Written(1, 0)
    assert store.add_judgments([entry, Entry("k2", task_key(TASK), said(1, 0))]) == Written(1, 1)
    with pytest.raises(DataError, match="stands for something else"):
        store.add_judgments([Entry("k3", task_key(TASK), said(1, 0)), Entry("k1", task_key(TASK), said(0, 1))])
    assert [e.key for e in store.judgments()] == ["k1", "k2"], "a refused batch leaves nothing behind"


def test_a_write_whose_answer_was_lost_is_tried_again_and_stands_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_tasks([TASK])
    lost = []

    @sa.event.listens_for(store._engine, "commit")
    def _commit(connection: Any) -> None:
        if not lost:
            lost.append(True)
            connection.connection.dbapi_connection.commit()  # it is written ...
            raise sa.exc.OperationalError("COMMIT", {}, sqlite3.OperationalError("database is locked"))  # type: ignore[arg-type]

    assert store.add_judgments([Entry("k1", task_key(TASK), said(1, 0))]) == Written(0, 1)
    assert lost and len(store.judgments(superseded=True)) == 1


def test_a_correction_is_a_new_row_and_the_old_one_stays(store: Store) -> None:
    store.add_tasks([TASK])
    task = task_key(TASK)
    store.add_judgments([Entry("k1", task, said(1, 0)), Entry("k2", task, said(1, 1))])
    store.add_judgments([Entry("k3", task, said(0, 1), supersedes="k1"), Entry("k4", task, None, "k2")])
    assert [(e.key, e.judgment and e.judgment.values) for e in store.judgments()] == [("k3", (0, 1))]
    assert [e.key for e in store.judgments(superseded=True)] == ["k1", "k2", "k3", "k4"]
    assert store.records()[0].judgments == (said(0, 1),)
    with pytest.raises(DataError, match="corrected before"):
        store.add_judgments([Entry("k5", task, said(1, 1), supersedes="k1")])
    again = Entry("k6", task, said(1, 1), supersedes="k4")  # what was withdrawn may be said again
    store.add_judgments([again])
    assert [e.key for e in store.judgments(annotator=None)] == ["k3", "k6"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (Entry("k", "nowhere", said(1, 0)), "no task"),
        (Entry("k", task_key(TASK), Judgment("comparison", (0, 2), (1, 0))), "2 responses"),
        (Entry("k", task_key(TASK), Judgment("comparison", (0, 1), (1,))), "one value"),
        (Entry("k", task_key(TASK), said(float("nan"), 0)), "finite"),
        (Entry("k", task_key(TASK), Judgment("praise", (0,))), "unknown kind"),  # type: ignore[arg-type]
        (Entry("k", task_key(TASK), None), "withdraws nothing"),
        (Entry("k", task_key(TASK), said(1, 0), "j0"), "no judgment of that task"),
        (Entry("k", task_key(TASK), said(1, 0, text="\ud83d")), "surrogates"),
        (Entry("k\0", task_key(TASK), said(1, 0)), "no database"),
    ],
)
def test_what_can_not_be_given_back_is_refused(store: Store, entry: Entry, complaint: str) -> None:
    store.add_tasks([TASK])
    with pytest.raises(DataError, match=complaint):
        store.add_judgments([entry])
    assert store.counts()["judgments"] == 0


def test_people_are_corrected_by_new_rows(store: Store) -> None:
    ann = Annotator("ann", "north", {"age": "25-34"})
    assert store.add_people([ann, Annotator("bob")]) == Written(2, 0)
    assert store.add_people([ann]) == Written(0, 1)
    store.add_people([Annotator("ann", "south")])
    store.add_people([ann])
    assert store.people() == [ann, Annotator("bob")]
    assert store.counts()["people"] == 4
    with pytest.raises(DataError, match="needs a name"):
        store.add_people([Annotator(" ")])


def test_writers_in_many_threads_lose_nothing_on_sqlite(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with Store(tmp_path / "said.db") as mine:  # who opens an empty store at once with others makes it, too
            mine.add_tasks([TASK])
            for i in range(10):
                mine.add_judgments([Entry(f"{number}-{i}", task_key(TASK), said(1, 0))])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(tmp_path / "said.db") as held:
        assert {e.key for e in held.judgments()} == {f"{n}-{i}" for n in range(6) for i in range(10)}


def test_migrations_make_the_tables_that_the_code_expects(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables().metadata) == []


def test_migrations_go_back_and_forth_and_refuse_what_is_newer_or_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "said.db"
    with Store(path) as store:
        migrate(store._engine, "here", "0001")
        with store._engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DataError, match="newer version"):
        Store(path)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE people (id INTEGER)")
    other.close()
    with pytest.raises(DataError, match="somebody else's"):
        Store(tmp_path / "other.db")
    (tmp_path / "text.db").write_text("this is no database, it is a text about something else entirely")
    with pytest.raises(DataError, match="refuses"):
        Store(tmp_path / "text.db", patience=0.1)


def test_places_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    assert url_of("postgres://me@host/db") == "postgresql+psycopg://me@host/db"
    with pytest.raises(DataError, match="no folder"):
        Store(tmp_path / "none" / "said.db")
    with pytest.raises(DataError, match="no database"):
        Store("oracle-ish://x")
    with pytest.raises(DataError, match="can't be reached") as found:
        Store(f"postgresql://me:secret@/db?host={tmp_path}", patience=0.2)
    assert "secret" not in str(found.value) and "attempts" in str(found.value)


def test_a_refusal_is_not_tried_again() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise sa.exc.OperationalError("x", {}, sqlite3.OperationalError("disk is full"))  # type: ignore[arg-type]

    with pytest.raises(DataError, match="refuses"):
        persist(work, patience=5, where="here")
    assert len(tries) == 1


def test_without_sqlalchemy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "sqlalchemy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"sqlalchemy") as found:
        Store(tmp_path / "said.db")
    assert "accordance[store]" in str(found.value)


def test_records_of_a_store_are_records(store: Store) -> None:
    store.add_records([Record(TASK.prompt, TASK.responses, (said(1, 0),), "t1")])
    found = store.records()
    assert isinstance(found, Records) and found.account.kept == 1
    assert json.dumps(found.counts()) == '{"comparison": 1}'
