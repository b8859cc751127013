"""`accord curate` and `accord aggregate`: dry run, account, undo, broken rows set aside, errors that can be mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accordance import load_records
from accordance.app.commands.curate import parse_step
from accordance.core.errors import ConfigError
from accordance.core.report import Report
from tests.app.conftest import Accord


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """Twelve comparisons, one of them twice, one line that is no JSON and one without a rejected response."""
    rows = [{"prompt": f"q{n}", "chosen": f"good {'x ' * n}", "rejected": "bad y"} for n in range(12)]
    lines = [json.dumps(row) for row in [*rows, rows[3], {"prompt": "q", "chosen": "a", "rejected": ""}]]
    path = tmp_path / "untidy.jsonl"
    path.write_text("\n".join([*lines, "{no json"]) + "\n")
    return path


def test_curate_writes_records_account_report_and_the_broken_rows_and_undo_gives_all_back(
    accord: Accord, untidy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    steps = ["--step", "drop_duplicates", "--step", "length_balance:buckets=2,seed=1"]
    found = accord.json("curate", str(untidy), *steps, "--output-dir", str(out))
    assert found["records_before"] == 13 and found["records_after"] < 12 and found["set_aside"]["rows"] == 2
    assert found["reasons"] and found["length"]["before"]["mean"] > found["length"]["after"]["mean"]
    aside = [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert {row["origin"] for row in aside} == {"untidy.jsonl:14", "untidy.jsonl:15"}
    assert any(row["raw"] == "{no json" for row in aside)
    assert len(load_records(out / "records.jsonl")) == found["records_after"]
    account = [json.loads(line) for line in (out / "account.jsonl").read_text().splitlines()]
    assert len(account) == found["dropped"] and {row["name"] for row in account} == {
        "drop_duplicates",
        "length_balance",
    }
    assert Report.load(out).title and "<svg" in (out / "report.html").read_text()
    undone = accord.json("curate", "--undo", str(out))
    assert undone["records"] == 13
    assert list(load_records(undone["undone"])) == list(load_records(untidy, on_error="skip"))
    again = accord.json("curate", str(untidy), "--recipe", str(out / "recipe.yaml"), "--dry-run")
    assert again["records_after"] == found["records_after"] and "files" not in again


def test_a_dry_run_writes_nothing(accord: Accord, untidy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = accord.json(
        "curate", str(untidy), "--step", "drop_duplicates", "--dry-run", "--output-dir", str(out)
    )
    assert found["dropped"] == 1 and not out.exists()


def test_mistakes_are_named_with_the_way_out(accord: Accord, untidy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for args, said in (
        ([str(untidy)], "--step or --recipe"),
        ([str(untidy), "--step", "drop_tie"], "drop_ties"),
        ([str(untidy), "--step", "balance:bye=group"], "'by'"),
        ([str(untidy), "--step", "balance"], "two groups"),
        ([str(untidy), "--step", "drop_ties", "--on-error", "raise"], "malformed JSON"),
        (["--undo", str(tmp_path)], "holds no curation"),
        (["--undo", str(tmp_path), "--step", "drop_ties"], "stands alone"),
        (["--step", "drop_ties"], "no DATA"),
    ):
        result = accord("curate", *args, "--output-dir", str(out), "--json")
        assert result.exit_code == 2
        assert said in json.dumps(json.loads(result.stdout)), args
    accord.json("curate", str(untidy), "--step", "drop_duplicates", "--output-dir", str(out))
    result = accord("curate", str(untidy), "--step", "drop_duplicates", "--output-dir", str(out), "--json")
    assert result.exit_code == 2 and "another curation" in result.stdout


def test_steps_are_listed_with_their_options(accord: Accord) -> None:
    found = accord.json("curate", "--steps")
    named = {row["step"]: row["options"] for row in found["steps"]}
    assert named["length_balance"]["buckets"] == 6 and named["agree"]["scorer"] == "required"


def test_a_step_is_read_from_one_word() -> None:
    assert parse_step("drop_ties") == ("drop_ties", {})
    assert parse_step("agree:scorer=my.module:f,least=2") == ("agree", {"scorer": "my.module:f", "least": 2})
    assert parse_step("x:a=[1,2],b=c") == ("x", {"a": [1, 2], "b": "c"})
    for wrong in ("x:a", "x:a=1,a=2"):
        with pytest.raises(ConfigError):
            parse_step(wrong)


def test_aggregate_ranks_models_and_writes_a_report_with_figures(accord: Accord, tmp_path: Path) -> None:
    rows = [
        {
            "model_a": a,
            "model_b": b,
            "winner": w,
            "prompt": f"q{n}",
            "response_a": f"x{n}",
            "response_b": f"y{n}",
        }
        for n in range(30)
        for a, b, w in (("p", "q", "model_a"), ("q", "r", "model_a"), ("r", "p", "tie" if n % 3 else "model_b"))
    ]
    path = tmp_path / "arena.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    found = accord.json("aggregate", str(path), "--method", "all", "--samples", "20", "--output-dir", str(out))
    for standings in found["standings"].values():
        assert standings[0]["model"] == "p"
    assert len(found["standings"]) == 6 and found["annotators"] is None
    assert "<svg" in (out / "aggregate.html").read_text()
    assert "did you mean" in accord.error("aggregate", str(path), "--method", "bradley_tery")["remedy"]
