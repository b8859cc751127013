"""What `save_records` writes, `load_records` reads back exactly."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accordance.core.errors import DataError
from accordance.core.record import KINDS, Judgment, Message, Record, Records, Response
from accordance.feedback import load_records, save_records

texts = st.text(max_size=12)
names = st.none() | st.text(min_size=1, max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)
messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "text"]), texts), max_size=3
)
responses = st.builds(
    Response, messages.map(tuple), names, st.lists(texts, max_size=2).map(tuple)
)  # fmt: skip
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts | st.lists(texts, max_size=2)
extras = st.dictionaries(texts, leaves, max_size=2)


@st.composite
def records(draw: st.DrawFn) -> Record:
    said = draw(st.lists(responses, max_size=3))
    judgments = []
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=2)) if said else []:
        judged = draw(st.lists(st.integers(0, len(said) - 1), min_size=1, max_size=3, unique=True))
        values = draw(st.lists(numbers, min_size=len(judged), max_size=len(judged)))
        judgments.append(
            Judgment(kind, tuple(judged), tuple(values), draw(names), draw(names), draw(names), draw(names),
                     draw(st.none() | numbers), draw(names), draw(names))
        )  # fmt: skip
    text = st.text(min_size=1, max_size=6)
    return Record(tuple(draw(messages)), tuple(said), tuple(judgments), draw(text), draw(text), draw(extras))


@settings(max_examples=40, deadline=None)
@given(st.lists(records(), min_size=1, max_size=3), st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_any_records_come_back_exactly(many: list[Record], suffix: str) -> None:
    with TemporaryDirectory() as folder:
        table = Records.of(many)
        back = load_records(save_records(table, Path(folder) / f"a{suffix}"))
        assert list(back) == many
        assert back.fingerprint() == table.fingerprint()
        assert back.account.kept == len(many)


def test_a_stream_is_saved_too_and_an_existing_file_replaced(tmp_path: Path) -> None:
    rows = [{"prompt": "שלום 👋🏽", "completion": "مرحبا"}]
    path = tmp_path / "deep" / "a.jsonl"
    for streaming in (False, True):
        save_records(load_records(rows, streaming=streaming), path)
        assert list(load_records(path)) == list(load_records(rows))
    assert [p.name for p in path.parent.iterdir()] == ["a.jsonl"]
    assert "שלום 👋🏽" in path.read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    table = load_records([{"text": "a"}])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        save_records(table, tmp_path / "file" / "a.jsonl")
    with pytest.raises(DataError, match=r"ends in \.jsonl"):
        save_records(table, tmp_path / "a.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
