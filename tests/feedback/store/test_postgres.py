"""The store on a real PostgreSQL server: many writers at once, and a server that is killed while they write."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from accordance.core.errors import DataError
from accordance.core.record import Judgment, Record, Response, user
from accordance.feedback.store import Annotator, Entry, Store, Written, task_key

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "postgres"
WRITERS, EACH, KILLS = 20, 500, 3


class Server:
    """A server that can be killed as a power cut would: all its processes at once, without a word."""

    def __init__(self) -> None:
        self.folder, self.url = self._start()

    def _start(self, *folder: str) -> tuple[str, str]:
        done = subprocess.run(
            [SCRIPT, "start", *folder], check=False, capture_output=True, text=True, timeout=420
        )
        if done.returncode == 3:
            pytest.skip(f"PostgreSQL can't be had here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        where, url = done.stdout.split()
        return where, url

    def kill(self) -> None:
        pid = int((Path(self.folder) / "data" / "postmaster.pid").read_text().split()[0])
        head = psutil.Process(pid)
        family = [head, *head.children(recursive=True)]
        for process in family:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=10)

    def start_again(self) -> None:
        self._start(self.folder)

    def stop(self) -> None:
        subprocess.run([SCRIPT, "stop", self.folder], check=True, timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def task(number: int) -> Record:
    return Record(user(f"question {number}"), (Response.of("a"), Response.of("b")), id=str(number))


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def test_twenty_writers_and_a_server_killed_under_them_lose_nothing_and_write_nothing_twice(
    server: Server,
) -> None:
    keys = [task_key(task(i)) for i in range(50)]
    told: list[Written] = []  # what writers heard
    sent: list[str] = []
    broken: list[BaseException] = []

    def judgment(writer: int, i: int) -> Entry:
        values = (1.0, 0.0) if (writer + i) % 2 else (0.0, 1.0)
        said = Judgment("comparison", (0, 1), values, text=f"{writer}/{i}", annotator=f"person-{writer}")
        return Entry(f"{writer}-{i}", keys[i % len(keys)], said)

    def write(writer: int) -> None:
        try:
            with Store(server.url, patience=120) as store:
                store.add_people([Annotator(f"person-{writer}", "even" if writer % 2 else "odd")])
                i = 0
                while i < EACH:
                    many = 1 + (i * 7 + writer) % 9  # now one, now several in a transaction
                    batch = [judgment(writer, n) for n in range(i, min(i + many, EACH))]
                    told.append(store.add_judgments(batch))
                    sent.extend(entry.key for entry in batch)
                    i += many
        except BaseException as error:
            broken.append(error)

    with Store(server.url) as store:
        store.add_tasks(task(i) for i in range(50))
    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    all_of_them = WRITERS * EACH
    for kill in range(1, KILLS + 1):
        until(lambda: broken or len(sent) > all_of_them * kill / (KILLS + 1), "writers get on")  # noqa: B023
        server.kill()
        before = len(sent)
        assert before < all_of_them, "the writers were done before the server was killed"
        time.sleep(0.3)  # they try meanwhile
        server.start_again()
    for thread in threads:
        thread.join(120)
    assert not broken, broken
    with Store(server.url) as store:
        found = store.judgments(superseded=True)
        assert len(found) == all_of_them, "none lost, none twice"
        expected = {entry.key: entry for n in range(WRITERS) for i in range(EACH) for entry in [judgment(n, i)]}
        assert {entry.key: entry for entry in found} == expected
        assert sum(w.new + w.already for w in told) == all_of_them
        assert len(store.people()) == WRITERS
        assert sum(len(record.judgments) for record in store.records()) == all_of_them


def test_a_server_that_stays_away_is_an_error_that_loses_nothing(server: Server) -> None:
    with Store(server.url, patience=0.5) as store:
        store.add_tasks([task(999)])
        server.kill()
        entry = Entry("late", task_key(task(999)), Judgment("comparison", (0, 1), (1, 1)))
        with pytest.raises(DataError, match="can't be reached"):
            store.add_judgments([entry])
        server.start_again()
        store.patience = 60
        assert sum(vars(store.add_judgments([entry])).values()) == 1
        assert [e.key for e in store.judgments(tasks=[entry.task])] == ["late"]


def test_corrections_and_text_are_kept_as_on_sqlite(server: Server) -> None:
    with Store(server.url) as store:
        record = Record(
            user("שלום 🙂"), (Response.of("a"), Response.of("b")), id="x", extras={"n": [1, "\x00"]}
        )
        store.add_tasks([record], "corrected")
        key = task_key(record, "corrected")
        first, second = Judgment("comparison", (0, 1), (1, 0)), Judgment("incomparable", (1, 0), text="\x00")
        store.add_judgments([Entry("c1", key, first), Entry("c2", key, second, "c1")])
        with pytest.raises(DataError, match="corrected before"):
            store.add_judgments([Entry("c3", key, first, "c1")])
        (back,) = store.records("corrected")
        assert back.judgments == (second,) and back.extras == json.loads(json.dumps(record.extras))
