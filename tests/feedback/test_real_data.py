"""The real files beside the repository, where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from accordance.feedback import load_records, preflight

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")


@needs_data
@pytest.mark.parametrize("streaming", [False, True])
def test_hh_rlhf_keeps_account_of_every_row(streaming: bool) -> None:
    records = load_records(DATA / "hh-rlhf-harmless-test.jsonl.gz", streaming=streaming)
    made = list(records)
    account = records.account
    assert account.read == 2312
    assert account.rows["no common prompt"] == [
        f"hh-rlhf-harmless-test.jsonl.gz:{line}" for line in (1255, 1689, 1951, 1953, 2037)
    ]
    # Four answers are empty: nothing trains on those.
    assert account.dropped == {"no common prompt": 5, "empty 'chosen'": 4}
    assert len(made) == account.kept == 2303
    for record in made:
        assert record.prompt[-1].role == "user"
        assert [len(response.messages) for response in record.responses] == [1, 1]


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "icai").glob("*.csv")), ids=lambda path: path.stem)
def test_icai_pairs_have_a_prompt_and_the_order_shown(path: Path) -> None:
    records = load_records(path)
    assert len(records) in (30, 60) and not records.account.dropped
    assert all(record.prompt and "Output:" not in record.responses[0].text for record in records)
    first = preflight(records).values["first_preferred"]
    shares = {"aligned": 8 / 30, "mixed": 21 / 60, "orthogonal": 13 / 30}
    assert first == pytest.approx(next(share for name, share in shares.items() if name in path.stem))
