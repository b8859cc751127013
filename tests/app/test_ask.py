"""`accord ask`: answers from a pipe, kept at once, resumed, corrected, exported; nothing is lost by stopping."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accordance import load_records
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.feedback import save_records
from accordance.feedback.interview import Interview, visible
from accordance.feedback.store import Annotator, Store, task_key
from tests.app.conftest import Accord


@pytest.fixture
def answers(tmp_path: Path) -> str:
    """Four prompts with two answers each, one with identical answers."""
    rows = [
        Record(
            user(f"q{i}"),
            (Response.of(f"long answer {i}", source="m1"), Response.of("ok", source="m2")),
            id=str(i),
        )
        for i in range(4)
    ]
    rows.append(Record(user("same"), (Response.of("a"), Response.of("a")), id="same"))
    return str(save_records(Records.of(rows), tmp_path / "answers.jsonl"))


class Asking:
    def __init__(self, accord: Accord, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.accord, self.monkeypatch, self.db = accord, monkeypatch, str(folder / "said.db")

    def __call__(self, lines: str, *args: str, code: int = 0) -> dict:
        from typer.testing import CliRunner

        from accordance.app.cli import app

        done = CliRunner().invoke(app, ["ask", "--store", self.db, "--json", *args], input=lines)
        assert done.exit_code == code, done.stderr + done.stdout
        self.shown = done.stderr
        return json.loads(done.stdout)

    def said(self) -> list[Judgment]:
        with Store(self.db) as store:
            return [judgment for record in store.records() for judgment in record.judgments]


@pytest.fixture
def asking(accord: Accord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asking:
    return Asking(accord, monkeypatch, tmp_path)


def test_answers_are_kept_as_judgments_in_the_order_shown(asking: Asking, answers: str) -> None:
    found = asking(
        "1 it says more\n=\nx no common ground\n2\n", "--records", answers, "--as", "ann", "--group", "g"
    )
    assert (found["answered"], found["left"], found["unfit"], found["interrupted"]) == (4, 0, 1, False)
    first, tie, cannot, second = asking.said()
    assert (
        first.values == (1, 0)
        and first.text == "it says more"
        and (first.annotator, first.group) == ("ann", "g")
    )
    assert (
        tie.tie and cannot.kind == "incomparable" and cannot.text == "no common ground" and cannot.values == ()
    )
    assert second.values == (0, 1) and first.strength is None
    with Store(asking.db) as store:
        shown = {
            question.record.id: question.shown
            for question in Interview(store.tasks(), Annotator("ann", "g")).questions
        }
        for record in store.records():
            for judgment in record.judgments:
                assert judgment.responses == shown[record.id]
    assert "m1" not in asking.shown, "blind"


def test_orders_differ_by_person_and_task_about_half_and_half() -> None:
    tasks = [
        (task_key(r), r)
        for r in (Record(user(str(i)), (Response.of("a"), Response.of("b"))) for i in range(300))
    ]
    first = [q.shown for q in Interview(tasks, Annotator("ann")).questions]
    again = [q.shown for q in Interview(tasks, Annotator("ann")).questions]
    other = [q.shown for q in Interview(tasks, Annotator("bob")).questions]
    assert first == again != other
    assert 120 < sum(shown == (0, 1) for shown in first) < 180
    assert 120 < sum(a == b for a, b in zip(first, other)) < 180


def test_it_resumes_where_it_stopped_and_goes_back(asking: Asking, answers: str) -> None:
    found = asking("1\nwhat?\nq\n", "--records", answers, "--as", "ann")
    assert (found["answered"], found["left"]) == (1, 3) and "no answer" in asking.shown
    found = asking("2\nb\n1 on second thoughts\ns\n=\n", "--as", "ann")
    assert (found["answered"], found["corrected"], found["skipped"], found["left"]) == (2, 1, 1, 1)
    found = asking("2\n2\n", "--as", "ann")
    assert (found["answered"], found["left"]) == (1, 0)
    with Store(asking.db) as store:
        assert len(store.judgments()) == 4 and len(store.judgments(superseded=True)) == 5
        assert sum(e.judgment.text == "on second thoughts" for e in store.judgments() if e.judgment) == 1
    assert asking("1\n1\n1\n1\n", "--as", "bob")["answered"] == 4


def test_strength_criteria_ratings_and_thumbs(asking: Asking, answers: str) -> None:
    asking("1+\n2-\n=\nq\n", "--records", answers, "--as", "ann", "--strength", "--criteria", "clear, kind")
    overall, clear, kind = asking.said()
    assert (overall.strength, clear.strength, kind.strength) == (2.0, 0.5, None)
    assert (overall.attribute, clear.attribute, kind.attribute) == (None, "clear", "kind")
    found = asking("9\n7 fine\n1\nq\n", "--as", "bob", "--kind", "rating", "--scale", "1-7")
    assert found["answered"] == 2 and "from 1 (worst) to 7" in asking.shown
    asking("+\n- rude\nq\n", "--as", "cy", "--kind", "thumb")
    kinds = {(j.annotator, j.kind, j.values) for j in asking.said() if j.annotator != "ann"}
    assert kinds == {
        ("bob", "rating", (7.0,)),
        ("bob", "rating", (1.0,)),
        ("cy", "thumb", (1.0,)),
        ("cy", "thumb", (0.0,)),
    }


def test_criteria_that_were_left_open_are_asked_when_it_goes_on(asking: Asking, answers: str) -> None:
    asking("1\n", "--records", answers, "--as", "ann", "--criteria", "clear")
    found = asking("2\nq\n", "--as", "ann", "--criteria", "clear")
    assert found["answered"] == 1
    assert [(j.attribute, j.values) for j in asking.said()] == [(None, (1, 0)), ("clear", (0, 1))]


def test_a_dry_run_says_what_would_be_asked_and_makes_nothing(asking: Asking, answers: str) -> None:
    found = asking("", "--records", answers, "--as", "ann", "--dry-run", "--limit", "3")
    assert (found["questions"], found["would_ask"]) == (4, 3)
    assert not Path(asking.db).exists()


def test_export_is_what_load_records_reads(asking: Asking, answers: str, tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    found = asking("1\nx\n", "--records", answers, "--as", "ann", "--export", str(out))
    assert found["judgments"] == {"comparison": 1, "incomparable": 1} and found["records"] == 5
    back = load_records(str(out))
    assert [j for r in back for j in r.judgments] == asking.said()
    assert asking("", "--export", str(tmp_path / "again.jsonl"))["records"] == 5


def test_people_keep_what_they_said_of_themselves(asking: Asking, answers: str) -> None:
    asking(
        "q\n", "--records", answers, "--as", "ann", "--group", "g", "--profile", "age=30", "--profile", "town=X"
    )
    asking("q\n", "--as", "ann", "--profile", "age=31")
    with Store(asking.db) as store:
        assert store.people() == [Annotator("ann", "g", {"age": "31", "town": "X"})]


def test_the_judgments_of_a_file_come_in_when_asked_for(asking: Asking, tmp_path: Path) -> None:
    said = Judgment("comparison", (0, 1), (1, 0), annotator="zoe")
    rows = Records.of([Record(user("q"), (Response.of("a"), Response.of("b")), (said,), id="1")])
    file = str(save_records(rows, tmp_path / "judged.jsonl"))
    asking("q\n", "--records", file, "--as", "ann")
    assert asking.said() == []
    asking("q\n", "--records", file, "--as", "ann", "--keep-judgments")
    assert asking.said() == [said]


def test_wrong_options_are_refused(accord: Accord, answers: str, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "s.db")]
    assert "who is asked" in accord.error("ask", *store)["problem"]
    assert "no effect" in accord.error("ask", *store, "--as", "a", "--keep-judgments")["problem"]
    assert (
        "strength"
        in accord.error("ask", *store, "--records", answers, "--as", "a", "--strength", "--kind", "thumb")[
            "problem"
        ]
    )
    assert "scale" in accord.error("ask", *store, "--as", "a", "--kind", "rating", "--scale", "5")["problem"]
    assert "folder" in accord.error("ask", "--store", str(tmp_path / "no" / "s.db"), "--as", "a")["found"]


def test_hostile_text_can_not_move_the_cursor() -> None:
    assert visible("a\x1b[2Jb\u202e\x9b\ta\nשלום 👩\u200d💻") == "a␛[2Jb<U+202E><U+009B>\ta\nשלום 👩\u200d💻"


def test_ctrl_c_loses_nothing(answers: str, tmp_path: Path) -> None:
    db = tmp_path / "said.db"
    command = ["ask", "--records", answers, "--as", "ann", "--store", str(db), "--json"]
    run = subprocess.Popen(
        [sys.executable, "-m", "accordance.app", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background ignores the signal, and its children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads yet
    )
    assert run.stdin and run.stdout and run.stderr
    run.stdin.write("1\n2\n")
    run.stdin.flush()
    end = time.monotonic() + 60
    while not (db.exists() and _judgments(db) == 2):
        assert time.monotonic() < end and run.poll() is None
        time.sleep(0.1)
    time.sleep(0.5)  # until it waits for the next answer
    run.send_signal(signal.SIGINT)
    run.wait(timeout=60)  # before communicate closes its input: that would end the interview, too
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert json.loads(out)["answered"] == 2 and json.loads(out)["interrupted"] is True
    assert "Traceback" not in err
    assert _judgments(db) == 2


def _judgments(db: Path) -> int:
    with Store(db) as store:
        return store.counts()["judgments"]


def test_informative_order_asks_first_about_what_is_not_known_yet(asking: Asking, tmp_path: Path) -> None:
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "looked",
        "at",
        "all",
        "of",
        "us",
        "for",
        "a",
        "while",
    ]
    short, long = " ".join(words[:3]), " ".join(words)
    rows = [
        Record(user(f"q{i}"), (Response.of(f"{long} {i}"), Response.of(short)), id=f"length{i}")
        for i in range(6)
    ]
    rows += [Record(user(f"p{i}"), (Response.of(f"{short} {i}"), Response.of(f"I'm sorry, I can't {i}")), id=f"no{i}")
             for i in range(6)]  # fmt: skip
    file = str(save_records(Records.of(rows), tmp_path / "mixed.jsonl"))
    with Store(asking.db) as store:
        for i in range(60):  # others have settled the matter of length
            said = Record(user(f"s{i}"), (Response.of(f"{long} {i}"), Response.of(f"{short} {i}")),
                          (Judgment("comparison", (0, 1), (1, 0)),), id=f"s{i}")  # fmt: skip
            store.add_records([said])
    found = asking("=\n" * 4, "--records", file, "--as", "ann", "--order", "informative", "--limit", "4")
    assert found["answered"] == 4
    with Store(asking.db) as store:
        mine = {e.task for e in store.judgments(annotator="ann")}
        asked = [record.id for key, record in store.tasks() if key in mine]
    assert all(name.startswith("no") for name in asked), asked


def test_help_has_an_example(accord: Accord) -> None:
    shown = accord("ask", "--help")
    assert shown.exit_code == 0 and "accord ask" in " ".join(shown.stdout.split())
