"""`accord synthesize`: cost before, budget, resume, and what lies in the folder afterwards; all offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accordance import load_records
from accordance.app.assistants import assistants
from accordance.core.errors import ConfigError
from accordance.core.record import Message, Record, Records
from accordance.core.report import Report
from accordance.curation.synthesis import METHODS
from accordance.feedback import save_records
from tests.app.conftest import Accord


def test_without_a_method_the_methods_are_listed_and_help_shows_examples(accord: Accord) -> None:
    assert {m["name"] for m in accord.json("synthesize")["methods"]} == set(METHODS)
    assert "accord synthesize rank" in " ".join(accord("synthesize", "--help").stdout.split())


def test_a_dry_run_says_what_it_costs_and_leaves_nothing_behind(accord: Accord, tmp_path: Path) -> None:
    folder = str(tmp_path / "made")
    plan = accord.json("synthesize", "rank", "--model=lab", "--limit=12", "--dry-run", "-o", folder)
    assert plan["items"] == 12 and plan["calls_at_most"] == 12 * 5 and not Path(folder).exists()
    made = accord.json("synthesize", "rank", "--model=lab", "--limit=12", "-o", folder)
    assert made["calls"] == plan["calls_at_most"] and made["records"] == made["pairs"]


def test_records_account_and_report_lie_in_the_folder(accord: Accord, tmp_path: Path) -> None:
    found = accord.json(
        "synthesize", "rank", "--model=lab", "--limit=20", "--set", "n=3", "-o", str(tmp_path / "made")
    )
    records = load_records(tmp_path / "made" / "records.jsonl.gz")
    assert len(records) == found["records"] == 20 - sum(found["account"]["dropped"].values())
    assert records[0].extras["provenance"]["method"] == "rank"
    dropped = (tmp_path / "made" / "dropped.jsonl").read_text().splitlines()
    assert len(dropped) == 20 - len(records)
    report = Report.load(tmp_path / "made" / "synthesize.json")
    assert report.values["records"] == len(records)
    assert "<svg" in (tmp_path / "made" / "synthesize.html").read_text()


def test_a_budget_stops_it_and_resume_pays_only_for_the_rest(accord: Accord, tmp_path: Path) -> None:
    args = ["synthesize", "rank", "--model=lab", "--limit=20", "--block=4", "-o", str(tmp_path / "made")]
    first = accord.json(*args, "--budget=50")
    assert (
        first["calls"] <= 50
        and 0 < first["items"] == 20
        and first["account"]["dropped"]["the budget was spent"] > 0
    )
    assert accord(*args).exit_code == 2
    second = accord.json(*args, "--resume")
    assert first["calls"] + second["calls"] == 100 and second["calls_saved"] == first["calls"]
    whole = accord.json(
        "synthesize", "rank", "--model=lab", "--limit=20", "--block=4", "-o", str(tmp_path / "other")
    )
    same = [load_records(tmp_path / f / "records.jsonl.gz").fingerprint() for f in ("made", "other")]
    assert same[0] == same[1] and whole["records"] == second["records"]
    other = accord(*args, "--resume", "--seed=1")
    assert other.exit_code == 2 and "other settings" in other.stderr


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("joint", ["--model=lab"]),
        ("diverse", ["--model=lab", "--set", "pool=5", "--set", "n=3"]),
        ("ultrafeedback", ["--model=lab:writers", "--set", "per_prompt=3"]),
        ("self-reference", ["--set", "votes=2", "--set", "probabilities=true"]),
        ("janus", ["--model=lab", "--set", "sets=2"]),
        ("self-align", ["--model=lab", "--set", "share=0.5"]),
        ("verbose-cloning", ["--model=lab"]),
        ("anyprefer", ["--model=lab", "--judge=lab?noise=0.1", "--set", "rounds=2"]),
    ],
)
def test_every_method_runs_offline_out_of_the_box(
    accord: Accord, tmp_path: Path, method: str, more: list[str]
) -> None:
    found = accord.json("synthesize", method, "--limit=8", "-o", str(tmp_path / "made"), *more)
    assert 0 < found["calls"] <= found["calls_at_most"]
    assert found["records"] + sum(found["account"]["dropped"].values()) == found["items"] >= 8


def test_conversations_become_pairs(accord: Accord, tmp_path: Path) -> None:
    turns = (
        Message("user", "What is 7 plus 5?"),
        Message("assistant", "Stop wasting my time. 7 plus 5 is 12."),
        Message("user", "Please be polite to me, that was rude."),
    )
    rows = Records.of([Record(turns, id=str(i)) for i in range(3)])
    save_records(rows, tmp_path / "logs.jsonl")
    args = [
        "wildfeedback",
        "--records",
        str(tmp_path / "logs.jsonl"),
        "--model=lab",
        "-o",
        str(tmp_path / "made"),
    ]
    found = accord.json("synthesize", *args)
    assert found["records"] + sum(found["account"]["dropped"].values()) == 3 and found["records"] > 0
    record = load_records(tmp_path / "made" / "records.jsonl.gz")[0]
    assert record.responses[1].text == turns[1].content and record.extras["wishes"]


def test_tools_are_functions_by_name(accord: Accord, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def twelve(prompt):\n    return 'The answer is 12.'\n")
    tool = f"--tool={tmp_path / 'tools.py'}:twelve"
    found = accord.json("synthesize", "anyprefer", "--model=lab", tool, "--limit=4", "-o", str(tmp_path / "a"))
    assert found["calls"] > 0
    assert (
        "uses no tools" in accord("synthesize", "rank", "--model=lab", tool, "-o", str(tmp_path / "b")).stderr
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rnak", "--model=lab"], "did you mean 'rank'"),
        (["rank"], "needs a model"),
        (["rank", "--model=lab", "--set", "vote=2"], "did you mean 'votes'"),
        (["rank", "--model=lab", "--set", "votes=two"], "another type"),
        (["rank", "--model=lab?charm=1"], "no such setting"),
        (["joint", "--model=lab", "--model=lab"], "uses one model"),
        (["ultrafeedback", "--model=lab"], "at least 2"),
        (["self-reference", "--model=lab"], "uses no models"),
        (["rank", "--model=lab", "--resume"], "nothing to go on with"),
    ],
)
def test_what_can_not_be_done_is_refused_with_the_way_out(
    accord: Accord, tmp_path: Path, args: list[str], said: str
) -> None:
    found = accord("synthesize", *args, "--limit=2", "-o", str(tmp_path / "made"))
    assert found.exit_code == 2 and said in " ".join(found.stderr.split())


def test_names_stand_for_assistants() -> None:
    assert len(assistants(["lab:writers"], "writer")) == 6
    assert assistants(["lab?noise=0.5"], "judge")[0].noise == 0.5  # type: ignore[attr-defined]
    pytest.importorskip("inspect_ai", reason="inspect-ai is an extra")
    assert json.dumps(assistants(["api:lab/judge?noise=0.5"], "judge")[0].name) == '"lab/judge"'
    with pytest.raises(ConfigError):
        assistants(["lab?noise=-1"], "judge")
