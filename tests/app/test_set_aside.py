"""Every command that reads feedback sets broken rows aside in its folder, and names them; without one it says how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.app.conftest import QUICK, Accord


@pytest.fixture
def untidy(tmp_path: Path) -> str:
    """Forty comparisons, then a line that is no JSON and one without a chosen response."""
    rows = [
        {"prompt": r.prompt_text, "chosen": r.responses[0].text, "rejected": r.responses[1].text}
        for r in tiny.records(40)
    ]
    lines = [*map(json.dumps, rows), "{no json", json.dumps({"prompt": "q", "chosen": "", "rejected": "b"})]
    path = tmp_path / "untidy.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("words", "page"),
    [
        (["explain", "{}", "--samples=100"], "explain.html"),
        (["curate", "{}", "--step=drop_ties"], "report.html"),
        (["synthesize", "rank", "--records={}", "--model=lab", "--set=n=2"], "synthesize.html"),
        (["data", "--records={}"], "preflight.html"),
        (["diagnose", "discretion", "{}", "--principle=more politeness", "--principle=less harm"], "diagnose.html"),
        (["evaluate", "--model={model}", "--records={}", "--samples=2", "--max-new-tokens=2"], "report.html"),
        (["align", "--model={model}", "--records={}", "--on-error=skip", *QUICK], "report.html"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_command_with_a_folder_keeps_broken_rows_there_and_names_them(
    accord: Accord, model: str, untidy: str, tmp_path: Path, words: list[str], page: str
) -> None:
    out = tmp_path / "out"
    args = [word.replace("{model}", model).replace("{}", untidy) for word in words]
    found = accord.json(*args, "--output-dir", str(out))
    said = found.get("set_aside") or found["report"]["set_aside"]
    assert said["rows"] == 2 and said["file"] == str(out / "set_aside.jsonl")
    rows = [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == [41, 42] and rows[0]["raw"] == "{no json"
    told = (out / page).read_text()
    assert "set_aside.jsonl" in told and "untidy.jsonl:41" in told and "malformed JSON" in told


def test_aggregate_sets_aside_too(accord: Accord, tmp_path: Path) -> None:
    rows = [
        {
            "model_a": "p",
            "model_b": "q",
            "winner": "model_a" if n % 3 else "model_b",
            "prompt": f"q{n}",
            "response_a": f"x{n}",
            "response_b": f"y{n}",
        }
        for n in range(12)
    ]
    path = tmp_path / "arena.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"winner": "nobody"}]))
    out = tmp_path / "out"
    found = accord.json("aggregate", str(path), "--samples=0", "--output-dir", str(out))
    assert found["set_aside"]["rows"] == 1
    row = json.loads((out / "set_aside.jsonl").read_text())
    assert row["line"] == 13 and row["raw"]["winner"] == "nobody" and "nobody" in row["found"]


def test_without_a_folder_the_rows_are_named_and_the_way_to_keep_them(accord: Accord, untidy: str) -> None:
    found = accord.json("explain", untidy, "--samples=100")
    assert found["set_aside"]["file"] is None and found["set_aside"]["rows"] == 2
    warning = next(text for text in found["warnings"] if "could not be used" in text)
    assert "untidy.jsonl:41" in warning and f"accord data --records {untidy} --output-dir" in warning
    told = accord("score", "--records", untidy, "--scorer", "population")
    assert "untidy.jsonl:41" in told.stderr and "--output-dir" in told.stderr


def test_on_error_raise_stops_at_the_first_and_names_the_other_way(accord: Accord, untidy: str) -> None:
    found = accord.error("explain", untidy, "--on-error=raise")
    assert "line 41" in found["where"] and "--on-error skip" in found["remedy"]


def test_a_file_of_which_nothing_can_be_used_is_refused_with_its_rows(accord: Accord, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"prompt": "p", "chosen": "", "rejected": "x"}\n' * 4)
    found = accord.error("explain", str(path))
    assert found["problem"] == "no row can be used" and "empty.jsonl:1" in found["found"]
    out = tmp_path / "out"
    kept = accord.json("data", "--records", str(path), "--output-dir", str(out))
    assert kept["set_aside"]["rows"] == 4 and len((out / "set_aside.jsonl").read_text().splitlines()) == 4
