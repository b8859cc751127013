"""Message trees: read in both forms, filtered with account, cut into threads and rankings, split by tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.views import demonstrations, pairs
from accordance.feedback import load_records
from accordance.feedback.growing import Forest, Limits, Task
from accordance.feedback.trees import (
    clean,
    load_trees,
    merge_rankings,
    ranking_records,
    split_trees,
    tally,
    thread_records,
)
from tests.app.conftest import Accord
from tests.feedback.samples import SAMPLES


def message(id: str, parent: str | None, role: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    row = {
        "message_id": id,
        "parent_id": parent,
        "role": role,
        "text": f"text {id}",
        "rank": rank,
        "lang": "en",
    }
    return {**row, "message_tree_id": "t", "user_id": f"u{id}", "tree_state": "ready_for_export", **more}


ROWS = [
    message("b", "a", "assistant", 1),
    message("a", None, "prompter", user_id="u1"),
    message(
        "c", "a", "assistant", 0, labels={"name": ["spam", "quality"], "value": [0.0, 0.75], "count": [3, 2]}
    ),
    message("d", "a", "assistant", 2, labels={"quality": {"value": 0.25, "count": 2}}, user_id="u1"),
    message("e", "c", "prompter", lang="de"),
    message("f", "e", "assistant"),
    message("g", "b", "prompter"),
]


def paths(rows: list[dict[str, Any]], **options: Any) -> list[str]:
    kept, _ = clean(load_trees(rows), **options)
    return sorted("".join(n.id for n in path) for tree in kept for path in tree.threads())


def test_threads_end_at_the_assistant_and_come_once_each() -> None:
    (tree,) = load_trees(ROWS)
    assert sorted("".join(n.id for n in path) for path in tree.threads()) == ["ab", "acef", "ad"]
    assert ["".join(n.id for n in path) for path in tree.threads(top=1)] == ["acef"]
    made = thread_records([tree])
    assert sorted(d.response.text for d in demonstrations(made)) == ["text b", "text d", "text f"]
    assert [m.role for m in made[2].prompt] == ["user", "assistant", "user"] and made[2].judgments[
        0
    ].annotator == "uf"


def test_rankings_are_what_the_format_reads_too() -> None:
    made = ranking_records(load_trees(ROWS))
    assert len(made) == 1 and len(pairs(made)) == 3
    assert [r.text for r in made[0].responses] == ["text c", "text b", "text d"]
    assert made[0].extras["quality"] == [0.75, None, 0.25]
    plain = load_records(sorted(ROWS, key=lambda row: row["message_id"]))
    best = {
        tuple(m.content for m in p.prompt): p.chosen.text for p in pairs(plain) if p.rejected.text == "text b"
    }
    assert best == {("text a",): "text c"}


@pytest.mark.parametrize("name", ["oasst", "oasst_trees"])
def test_both_exports_give_the_same_tree(name: str) -> None:
    (tree,) = load_trees(SAMPLES[name])
    assert [(n.id, n.role) for n in tree.root.walk()] == [
        ("m1", "user"), ("m2", "assistant"), ("m3", "assistant"), ("m4", "user"), ("m5", "assistant")
    ]  # fmt: skip
    assert tally([tree])["pairs"] == 1 and tally([tree])["deepest"] == 4


def test_what_goes_takes_its_answers_along_and_is_accounted_for() -> None:
    kept, account = clean(load_trees(ROWS), langs=["en"])
    assert account.dropped == {"not in the languages asked for": 1, "answers a message that went": 1}
    assert account.read == 7 and account.kept == sum(1 for _ in kept[0].root.walk())
    assert paths(ROWS, least_quality=0.5) == ["ab", "acef"]
    assert paths(ROWS, per_author=1) == ["ab", "acef"], "u1 wrote a and d"
    assert paths([{**r, "deleted": r["message_id"] == "c"} for r in ROWS]) == ["ab", "ad"]
    assert paths([{**r, "review_result": r["message_id"] != "b"} for r in ROWS]) == ["acef", "ad"]
    spam = [{**r, "labels": {"spam": 0.6}} if r["message_id"] == "f" else r for r in ROWS]
    assert paths(spam) == ["ab", "ac", "ad"] and paths(spam, spam=0.7) == ["ab", "acef", "ad"]


def test_a_split_keeps_trees_whole_and_no_tree_moves_when_others_come() -> None:
    def moved(row: dict[str, Any], t: int) -> dict[str, Any]:
        parent = row["parent_id"] and f"{t}{row['parent_id']}"
        return row | {"message_tree_id": f"t{t}", "message_id": f"{t}{row['message_id']}", "parent_id": parent}

    many = [moved(row, t) for t in range(50) for row in ROWS]
    trees = load_trees(many)
    rest, out = split_trees(trees, 0.4, seed=3)
    assert {t.id for t in rest} | {t.id for t in out} == {f"t{t}" for t in range(50)} and 10 < len(out) < 30
    again = split_trees(trees[:20], 0.4, seed=3)[1]
    assert {t.id for t in again} <= {t.id for t in out}
    with pytest.raises(ConfigError, match="share"):
        split_trees(trees, 1.5)


def test_one_ranking_merges_to_itself_and_bad_ones_are_refused() -> None:
    assert merge_rankings([[2, 0, 1]], 3)[0] == [2, 0, 1]
    for wrong in ([0, 0, 1], [0, 3]):
        with pytest.raises(DataError, match="each item once"):
            merge_rankings([wrong], 3)


def test_broken_trees_are_named() -> None:
    with pytest.raises(DataError, match="parent is not in the source"):
        load_trees([*ROWS, message("z", "nobody", "assistant")])
    with pytest.raises(DataError, match="one root"):
        load_trees([*ROWS, message("z", None, "prompter")])
    with pytest.raises(DataError, match="no message tree"):
        load_trees([{"prompt": "hi", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="can't be read"):
        load_trees([message("a", None, "wizard")])


def test_tasks_are_done_once_by_whom_they_were_given_to() -> None:
    forest = Forest(Limits(reviews=1), prompts=1)
    task = forest.next_task("ann")
    assert task is not None and task.kind == "prompt" and forest.next_task("bob") is None
    forest.write(task, "hello?")
    with pytest.raises(DataError, match="not open"):
        forest.write(task, "again")
    assert forest.next_task("ann") is None, "nobody reviews their own prompt"
    review = forest.next_task("bob")
    assert review == Task("label", "bob", 0, 0)
    with pytest.raises(DataError, match="another answer"):
        forest.label(review, {"spam": 2.0})
    forest.label(review, {"spam": 1.0})
    assert forest.states == ["aborted_low_grade"]
    with pytest.raises(ConfigError, match="at least 1"):
        Limits(depth=0)


def test_the_command_filters_counts_and_cuts(accord: Accord, tmp_path: Path) -> None:
    source, out = tmp_path / "trees.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = accord.json("ask", "trees", str(source), "--cut", "threads", "--lang", "en", "-o", str(out))
    assert found["messages"]["dropped"]["not in the languages asked for"] == 1
    assert found["written"][str(out)]["records"] == len(load_records(str(out))) == 3
    assert "no effect" in accord.error("ask", "trees", str(source), "--top", "1")["problem"]
    assert accord("ask", "trees", str(source)).exit_code == 0


@pytest.fixture
def accord() -> Accord:
    return Accord()
