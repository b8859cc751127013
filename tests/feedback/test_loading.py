"""Sources (files, folders, tables, streams) and what is said when one of them can't be read."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Record, Records, Response, user
from accordance.feedback import load_records, table

ROWS = [
    {"prompt": f"frage {n} 🙂", "chosen": f"نعم {n}", "rejected": f"no, {n}\n\"really\""} for n in range(5)
]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """Rows in the kind of file that the name asks for."""
    kind = path.name.removesuffix(".gz").rsplit(".")[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        data = sink.getvalue().to_pybytes()
    elif kind == "csv":
        plain = path.with_name("plain.tmp")
        with open(plain, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        data = plain.read_bytes()
        plain.unlink()
    elif kind == "json":
        data = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    else:
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def content(records: Records) -> list[tuple[Any, ...]]:
    return [(r.prompt, r.responses, r.judgments, r.id) for r in records]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "name", [f"a.{kind}{gz}" for kind in ("json", "jsonl", "csv", "parquet") for gz in ("", ".gz")]
)
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, name: str, streaming: bool) -> None:
    records = load_records(write(tmp_path / name), streaming=streaming)
    assert content(records) == content(load_records(ROWS))
    assert records.streaming is streaming
    assert records.account.read == records.account.kept == 5
    assert next(iter(records)).origin == f"{name}:1"


def test_a_json_file_may_hold_lines_or_one_object(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl").rename(tmp_path / "a.json")
    assert content(load_records(lines)) == content(load_records(ROWS))
    alone = tmp_path / "b.json"
    alone.write_text(json.dumps(ROWS[0], indent=2))
    assert len(load_records(alone)) == 1


def test_a_long_json_list_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accordance.feedback.files._CHUNK", 7)
    assert content(load_records(write(tmp_path / "a.json"))) == content(load_records(ROWS))


def test_a_folder_is_read_to_the_bottom_each_file_in_its_own_format(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    write(tmp_path / "deep" / "test.csv", [{"prompt": "a", "completion": "b", "label": "True"}])
    (tmp_path / "README.md").write_text("not feedback")
    records = load_records(tmp_path)
    assert records.counts() == {"comparison": 5, "thumb": 1}
    assert len({record.id for record in records}) == 6
    assert len(load_records(tmp_path, split="train")) == 5
    assert len(load_records(tmp_path, split="test")) == 1
    with pytest.raises(DataError, match="no file of the split 'dev'"):
        load_records(tmp_path, split="dev")


def test_datasets_and_iterables_are_sources_too() -> None:
    data, wanted = Dataset.from_list(ROWS), content(load_records(ROWS))
    assert content(load_records(data)) == wanted
    assert content(load_records(data.to_iterable_dataset())) == wanted
    assert content(load_records(DatasetDict(train=data))) == wanted
    assert content(load_records(DatasetDict(train=data, test=data), split="test")) == wanted
    assert content(load_records(row for row in ROWS)) == wanted
    records = load_records(ROWS)
    assert list(load_records(list(records))) == list(records)
    assert load_records(records) is records
    assert list(load_records(records, limit=2)) == list(records)[:2]
    assert list(load_records(records.dataset)) == list(records)
    with pytest.raises(DataError, match="which split"):
        load_records(DatasetDict(train=data, test=data))


def test_pictures_of_a_dataset_become_data_uris() -> None:
    from datasets import Features, Image, Value
    from PIL import Image as Picture

    features = Features({"prompt": Value("string"), "images": [Image()]})
    data = Dataset.from_list([{"prompt": "what?", "images": [Picture.new("RGB", (2, 2))]}], features=features)
    (image,) = load_records(data)[0].extras["images"]
    assert image.startswith("data:")


def test_limit_stops_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    with open(path, "a") as file:
        file.write("{broken")
    for streaming in (False, True):
        records = load_records(path, limit=2, streaming=streaming)
        assert len(list(records)) == 2


def test_an_iterator_streams_once_and_says_so_the_second_time() -> None:
    stream = load_records(iter(ROWS), streaming=True)
    assert len(list(stream)) == 5
    with pytest.raises(DataError, match="read before"):
        list(stream)


def test_large_records_go_to_a_file_that_follows_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = content(load_records(ROWS))
    monkeypatch.setattr(table, "MEMORY", 1)
    monkeypatch.setattr(table, "_BATCH", 2)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [*ROWS, {"prompt": "x", "chosen": "", "rejected": "y"}]
    path = write(tmp_path / "a.jsonl", rows)
    first = load_records(path)
    assert content(first) == wanted and first.dataset.cache_files
    (kept,) = (tmp_path / "cache" / "accordance").glob("*/records.arrow")
    written = kept.stat().st_mtime_ns
    again = load_records(path)
    assert again.account == first.account == load_records(path, streaming=False).account
    assert again.account.dropped == {"empty 'chosen'": 1} and kept.stat().st_mtime_ns == written
    # Same size, same time, other content: a cache keyed by those would be stale.
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"frage 0", b"frage 9"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_records(path)[0].prompt[0].content.startswith("frage 9")


def test_a_cache_that_cannot_be_written_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setattr(table, "MEMORY", 1)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(DataError, match="HF_DATASETS_CACHE"):
        load_records(ROWS)


def test_a_big_file_is_not_held_as_objects(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    line = json.dumps({"prompt": "p" * 2000, "chosen": "c" * 2500, "rejected": "r" * 2500}) + "\n"
    with open(path, "w") as file:
        for _ in range(8_000):  # 56 MB
            file.write(line)
    code = (
        "import sys, resource, datasets, pathlib; from accordance.feedback import load_records, table\n"
        "load_records([{'prompt': 'a', 'completion': 'b'}]); table.MEMORY, table._BATCH = 2 << 20, 200\n"
        "datasets.config.HF_DATASETS_CACHE = pathlib.Path(sys.argv[2])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(load_records(sys.argv[1])) == 8_000\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "cache"], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 40  # MiB; as records they take more than 56


# What is wrong is said


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_records(source, **options)
    return str(caught.value)


def test_a_misspelt_column_gets_the_nearest_format_and_the_fix(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "choosen": "b", "rejected": "c"}]
    message = refused(write(tmp_path / "a.jsonl", rows))
    assert "a.jsonl" in message and "['choosen', 'prompt', 'rejected']" in message
    assert "nearest is 'preference'" in message and "misses chosen" in message
    assert "rename column 'choosen' to 'chosen'" in message


def test_a_missing_column_is_not_read_as_prompts_alone() -> None:
    message = refused([{"prompt": "a", "chosen": "b"}])
    assert "nearest is 'preference'" in message and "add column 'rejected'" in message


def test_unknown_columns_name_what_could_be_read() -> None:
    message = refused([{"foo": 1, "bar": 2}])
    assert "no format recognised" in message and "hh_rlhf" in message


def test_a_named_format_that_misses_a_column_says_which() -> None:
    message = refused([{"question": "a", "completion": "b"}], format="prompt_completion")
    assert "memory, row 1: column 'prompt' is missing" in message and "'completion', 'question'" in message


@pytest.mark.parametrize(("line", "found"), [("{broken", "Expecting"), ("[1]", "a list"), ("\xff", "UTF-8")])
def test_a_malformed_line_is_named_and_may_be_skipped(tmp_path: Path, line: str, found: str) -> None:
    path = write(tmp_path / "a.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = line.encode("latin-1") + b"\n"
    path.write_bytes(b"".join(lines))
    message = refused(path)
    assert "a.jsonl, line 3: malformed JSON" in message and found in message and "on_error='skip'" in message
    records = load_records(path, on_error="skip")
    assert len(records) == 4 and records.account.rows == {"malformed JSON": ["a.jsonl:3"]}


def test_a_broken_json_list_says_row_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n{"text": "a"},\n{"text": }\n]')
    assert "row 2, line 3" in refused(path)
    path.write_text('[{"text": "a"}')
    assert "cut off" in refused(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.csv.gz"])
@pytest.mark.parametrize("data", [b"", b"\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    message = refused(path)
    assert name in message and ("empty" in message or "not a parquet" in message)


def test_nothing_at_all_is_an_error_too(tmp_path: Path) -> None:
    assert "no rows" in refused([])
    assert "no file of feedback" in refused(tmp_path)


def test_a_csv_with_a_ragged_row_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,chosen,rejected\na,b,c\na,b\na,b,d\n")
    assert "a.csv, row 2: malformed csv" in refused(path)
    assert load_records(path, on_error="skip").account.rows == {"malformed csv": ["a.csv:2"]}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.csv.gz"])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"certainly something else")
    assert name in refused(tmp_path / name)


def test_a_cut_off_gzip_file_is_an_error_not_a_short_table(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", ROWS * 200)
    path.write_bytes(path.read_bytes()[:-20])
    assert "can't be read" in refused(path)


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"x")
    assert ".parquet" in refused(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"prompt": "a", "chosen": 5, "rejected": "c"}, "chosen"),
        ({"prompt": "a", "chosen": ["b"], "rejected": "c"}, "chosen"),
        ({"prompt": "a", "chosen": [{"role": "assistant"}], "rejected": "c"}, "chosen"),
        ({"prompt": "a", "completion": "b", "label": "perhaps"}, "label"),
        ({"prompt": "a", "completions": ["b"], "labels": [True, False]}, "labels"),
        ({"model_a": "A", "model_b": "B", "winner": "model_c", "prompt": "p", "response_a": "a", "response_b": "b"},
         "winner"),
        ({"text_a": "a", "text_b": "b", "preferred_text": "text_c"}, "preferred_text"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "conversations"),
        ({"context": "a", "response1": "b", "response2": "c", "overall_preference": 9}, "overall_preference"),
        ({"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 2}, "better_response_id"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_file_row_column_and_what_was_expected(
    tmp_path: Path, row: dict[str, Any], column: str
) -> None:
    path = write(tmp_path / "a.jsonl", [row])
    message = refused(path)
    assert f"a.jsonl, line 1, column {column!r}" in message
    assert "found:" in message and "expected:" in message and "remedy:" in message
    assert load_records(path, on_error="skip").account.dropped.total() == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "empty 'chosen'"),
        ({"prompt": " ", "chosen": "b", "rejected": "c"}, "empty 'prompt'"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "null 'rejected'"),
        ({"prompt": "a", "chosen": "b"}, "no 'rejected' in the row"),
        ({"prompt": "a", "chosen": [{"role": "assistant", "content": ""}], "rejected": "c"}, "empty 'chosen'"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_with_its_reason_and_place(
    row: dict[str, Any], reason: str
) -> None:
    records = load_records([ROWS[0], row])
    assert len(records) == 1 and records.account.rows == {reason: ["memory:2"]}


def test_a_name_that_is_neither_here_nor_on_the_hub_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("accordance.feedback.hub.load_dataset", offline)
    message = refused("someone/something")
    assert "no file or folder of that name here" in message and "no route to the hub" in message
    assert "no such file or folder" in refused("some/where.jsonl")


def test_a_hub_name_may_carry_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def give(*args: Any, **options: Any) -> DatasetDict:
        asked.append((args, options))
        return DatasetDict(train=Dataset.from_list(ROWS))

    monkeypatch.setattr("accordance.feedback.hub.load_dataset", give)
    assert len(load_records("someone/something:part")) == 5
    assert asked == [(("someone/something", "part"), {"split": None, "streaming": False})]


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    records = load_records(ROWS)
    for source, options in (
        (records, {"format": "preference"}),
        (ROWS, {"split": "train"}),
        (write(tmp_path / "a.jsonl"), {"split": "train"}),
        (ROWS, {"limit": 0}),
        (ROWS, {"on_error": "ignore"}),
    ):
        with pytest.raises(ConfigError):
            load_records(source, **options)  # type: ignore[arg-type]


def test_a_record_that_judges_a_response_it_lacks_is_refused() -> None:
    from accordance.core.record import Judgment

    wrong = Record(user("hi"), (Response.of("yes"),), (Judgment("comparison", (0, 1), (1.0, 0.0)),))
    assert "column 'judgments'" in refused([wrong])
    assert "a dict" in refused([3])
