"""Rows that could not be used are set aside as they stood: file, line, what was wrong, what was expected."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from accordance import load_records
from accordance.core.record import Account
from accordance.feedback import save_set_aside, set_aside

GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}
#: Lines, and for those that are set aside what is said of them.
LINES: list[tuple[str, Any, str, str]] = [
    (json.dumps(GOOD), None, "", ""),
    ('{"prompt": "q", broken é', '{"prompt": "q", broken é', "malformed JSON", "one JSON object"),
    (
        json.dumps(GOOD | {"chosen": 7}),
        GOOD | {"chosen": 7},
        "column 'chosen' has a value that can't be read",
        'a string or a list of messages [{"role": ..., "content": ...}]',
    ),
    (
        json.dumps({"prompt": "q", "chosen": "a"}),
        {"prompt": "q", "chosen": "a"},
        "no 'rejected' in the row",
        "a value for 'rejected', as in other rows",
    ),
    (
        json.dumps(GOOD | {"chosen": " "}),
        GOOD | {"chosen": " "},
        "empty 'chosen'",
        "text that is more than blanks",
    ),
    ("[1, 2]", "[1, 2]", "malformed JSON", "an object from column to value"),
    (json.dumps(GOOD | {"rejected": None}), GOOD | {"rejected": None}, "null 'rejected'", "text or messages"),
    (json.dumps(GOOD), None, "", ""),
]


@pytest.mark.parametrize("name", ["feedback.jsonl", "feedback.jsonl.gz"])
def test_each_broken_line_comes_back_as_it_was_read_with_place_problem_and_expectation(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    text = "".join(line + "\n" for line, *_ in LINES).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    records = load_records(path, on_error="skip")
    assert len(records) == 2
    rows = set_aside(records.select([0]).account)  # the account goes with what is made of the records
    wanted = [
        (number, raw, problem, expected)
        for number, (_, raw, problem, expected) in enumerate(LINES, 1)
        if problem
    ]
    assert [(row["line"], row["raw"], row["problem"], row["expected"]) for row in rows] == wanted
    assert {row["file"] for row in rows} == {str(path)}
    assert "int: 7" in next(row["found"] for row in rows if row["line"] == 3)


def test_rows_of_a_table_are_counted_and_ragged_ones_keep_their_cells(tmp_path: Path) -> None:
    path = tmp_path / "feedback.csv"
    path.write_text('prompt,chosen,rejected\nq,a,b\nq,"a, c",\nq,a\nq,b,a\n', encoding="utf-8")
    records = load_records(path, on_error="skip")
    rows = set_aside(records.account)
    assert [(row["row"], row["raw"]) for row in rows] == [
        (2, {"prompt": "q", "chosen": "a, c", "rejected": ""}),
        (3, ["q", "a"]),
    ]
    assert [row["problem"] for row in rows] == ["empty 'rejected'", "malformed csv"]
    assert "3 cells" in rows[1]["expected"]


def test_a_format_and_a_split_that_were_named_count_the_second_time_too(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "train" / "a.jsonl").write_text('{"prompt": "p", "completion": ""}\n' * 3)
    (tmp_path / "test" / "a.jsonl").write_text('{"prompt": "p", "completion": ""}\n{"prompt": "p"}\n')
    records = load_records(tmp_path, split="test", format="prompt_only")
    assert not records.account.dropped and set_aside(records.account) == []
    records = load_records(tmp_path, split="test")
    assert [row["origin"] for row in set_aside(records.account)] == ["test/a.jsonl:1", "test/a.jsonl:2"]


def test_what_can_not_be_read_again_is_told_by_its_place() -> None:
    records = load_records(iter([GOOD, GOOD | {"chosen": ""}]))
    assert set_aside(records.account) == [{"origin": "memory:2", "raw": None, "problem": "empty 'chosen'"}]


def test_the_file_is_written_whole_and_goes_when_nothing_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    odd = '{"prompt": "q", "chosen": "", "rejected": "half \\ud83d of a pair"}'
    path.write_text(json.dumps(GOOD) + "\n" + odd + "\n")
    out = tmp_path / "out"
    file = save_set_aside(load_records(path).account, out)
    assert file is not None and json.loads(file.read_text())["raw"] == json.loads(odd)
    assert save_set_aside(Account(), out) is None and not file.exists()


def test_rows_that_the_cache_remembers_are_set_aside_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accordance.feedback import table

    monkeypatch.setattr(table, "MEMORY", 64)
    monkeypatch.setattr(table.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "feedback.jsonl"
    path.write_text("".join(line + "\n" for line, *_ in LINES))
    first, second = (set_aside(load_records(path, on_error="skip").account) for _ in range(2))
    assert first == second and len(first) == 6
