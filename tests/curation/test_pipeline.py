"""The pipeline: what a step does to which row is accounted for, can be undone, saved as a recipe and read again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Account, Judgment, Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.curation import (
    Agree,
    Pipeline,
    Step,
    Tools,
    make_step,
    read_pipeline,
    save_curated,
    save_pipeline,
    step_kinds,
    undo_folder,
)
from accordance.feedback import load_records


def records(count: int = 60, seed: int = 0) -> Records:
    """Comparisons with ties, repeated prompts, several annotators, groups, and lengths that tell who wins."""
    g = np.random.default_rng(seed)
    made = []
    for number in range(count):
        prompt = f"question {number % (count // 3)}"
        texts = [f"answer {'word ' * int(g.integers(1, 9))}{int(g.integers(4))}" for _ in range(2)]
        judgments = tuple(
            Judgment(
                "comparison",
                (0, 1) if g.random() < 0.5 else (1, 0),
                [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)][int(g.integers(3))],
                annotator=f"p{int(g.integers(5))}",
                group="ab"[int(g.random() < 0.8)],
            )
            for _ in range(int(g.integers(1, 4)))
        )
        origin = f"data.jsonl:{number + 1}"
        made.append(
            Record(user(prompt), tuple(map(Response.of, texts)), judgments, str(number), origin, {"kind": "q"})
        )
    return Records.of(made, source="data.jsonl")


LENGTH = FunctionScorer(lambda prompts, completions: [len(c) for c in completions], "length")
EVERY = [
    "drop_ties",
    {"drop_duplicates": {"of": "record", "loose": True}},
    "drop_cycles",
    {"limit_length": {"most": 8}},
    {"length_balance": {"buckets": 3}},
    {"balance": {"by": "group"}},
    {"balance": {"by": "group", "how": "weigh"}},
    {"balance": {"by": "extras.kind", "most": 30}},
    "weigh_annotators",
    {"drop_disputed": {"least": 0.6}},
    {"relabel": {"soft": True}},
    Agree(scorer=LENGTH),
    {"curriculum": {"stages": 2, "by": "length"}},
    "drop_similar",
    {"keep_best": {"least": 0.5}},
    *({"select": {"budget": 0.5, "strategy": how}} for how in ("isa", "random", "k_center")),
    *({"select": {"budget": 0.4, "strategy": how, "by": "length"}} for how in ("top", "bottom", "middle")),
]


def _told(step: object) -> str:
    """A name that is the same in every process: an object's holds its address."""
    return step.name if isinstance(step, Step) else str(step)


@pytest.mark.parametrize("step", EVERY, ids=_told)
def test_every_step_can_be_undone_from_its_account(step):
    before = records()
    done = Pipeline.of(step).run(before)
    assert done.touches, "the step must do something to these records, or the test says nothing"
    assert done.records.fingerprint() != before.fingerprint()
    assert list(done.undo()) == list(before)
    assert done.undo().account == before.account


@pytest.mark.parametrize("step", EVERY, ids=_told)
def test_the_account_says_of_every_row_what_became_of_it(step):
    before = records()
    done = Pipeline.of(step).run(before)
    dropped = {touch.row for touch in done.touches if touch.action == "dropped"}
    assert set(done.rows) | dropped == set(range(len(before))) and not set(done.rows) & dropped
    changed = {touch.row for touch in done.touches if touch.action == "changed"}
    for row, record in zip(done.rows, done.records):
        assert (record != before[row]) == (row in changed)
    assert all(touch.reason and touch.origin for touch in done.touches)
    assert done.records.account.kept == len(done.records)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([s for s in EVERY if not isinstance(s, Agree)]), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_any_steps_in_any_order_can_be_undone(steps, seed):
    before = records(30, seed)
    try:
        done = Pipeline.of(*steps).run(before)
    except DataError as error:  # nothing left to balance, nobody left to compare with
        assert str(error)
        return
    assert list(done.undo()) == list(before)


def test_the_input_is_left_alone_and_a_second_run_does_the_same():
    before = records()
    mark = before.fingerprint()
    pipeline = Pipeline.of("drop_ties", {"length_balance": {"buckets": 3}}, {"balance": {"how": "weigh"}})
    one, two = pipeline.run(before), pipeline.run(before)
    assert before.fingerprint() == mark and before.account == Account(read=60)
    assert one.records.fingerprint() == two.records.fingerprint() and one.touches == two.touches


def test_copies_and_added_pairs_are_numbered_on_and_go_when_undone():
    before = Records.of(
        Record(user(f"q{n}"), (Response.of("a"), Response.of("b")), id=str(n), extras={"kind": "xy"[n > 1]})
        for n in range(6)
    )
    done = Pipeline.of({"balance": {"by": "extras.kind", "how": "copy"}}).run(before)
    assert Counter(r.extras["kind"] for r in done.records) == {"x": 4, "y": 4}
    assert sorted(done.rows) == list(range(8))
    copied = [touch for touch in done.touches if touch.action == "copied"]
    assert {touch.row for touch in copied} == {6, 7} and {touch.numbers["copy_of"] for touch in copied} <= {
        0,
        1,
    }
    assert list(done.undo()) == list(before)
    later = Pipeline.of(
        {"balance": {"by": "extras.kind", "how": "copy"}}, {"drop_duplicates": {"of": "record"}}
    ).run(before)
    assert len(later.records) == 6 and list(later.undo()) == list(before)


def test_a_curation_on_disk_gives_back_its_input_and_notices_changes(tmp_path: Path):
    before = records()
    pipeline = Pipeline.of("drop_ties", "weigh_annotators", {"curriculum": {"by": "agreement"}})
    done = pipeline.run(before)
    files = save_curated(done, tmp_path, pipeline)
    assert load_records(files["records"]).fingerprint() == done.records.fingerprint()
    back = undo_folder(tmp_path)
    assert list(back) == list(before) and back.account == before.account
    lines = [json.loads(line) for line in files["account"].read_text().splitlines()]
    assert len(lines) == len(done.touches) and {line["action"] for line in lines} >= {"dropped", "changed"}
    assert read_pipeline(files["recipe"]).steps == pipeline.steps
    text = files["records"].read_text()
    files["records"].write_text(text.replace("answer", "Answer", 1))
    with pytest.raises(DataError, match="changed since"):
        undo_folder(tmp_path)
    with pytest.raises(DataError, match="holds no curation"):
        undo_folder(tmp_path / "nowhere")


def test_a_curation_that_drops_everything_can_still_be_undone(tmp_path: Path):
    before = records()
    pipeline = Pipeline.of({"limit_length": {"least": 1000}})
    done = pipeline.run(before)
    assert len(done.records) == 0
    save_curated(done, tmp_path, pipeline)
    assert list(undo_folder(tmp_path)) == list(before)


def test_recipes_refuse_what_they_do_not_know(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    for text, said in (
        ("step: []", "did you mean 'steps'"),
        ("steps: drop_ties", "steps is a list"),
        ("steps: [drop_tie]", "did you mean 'drop_ties'"),
        ("steps: [{length_balance: {bucket: 3}}]", "did you mean 'buckets'"),
        ("steps: [{length_balance: {buckets: 0}}]", "greater than or equal to 1"),
        ("steps: [{balance: {how: copy}}]", "copy copies records"),
        ("steps: [{balance: {how: weigh, most: 3}}]", "no effect"),
        ("steps: [limit_length]", "no limit is given"),
        ("steps: [agree]", "needs scorer"),
        ("steps: [{select: {by: gap}}]", "by goes with strategy"),
        ("steps: [{select: {strategy: random, scorer: x}}]", "no effect"),
        ("steps: []", "needs a step"),
        ("- drop_ties", "a recipe is a mapping"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as found:
            read_pipeline(path)
        assert said in str(found.value) and "recipe.yaml" in str(found.value)


def test_a_scorer_in_memory_is_named_in_the_recipe_and_refused_when_read(tmp_path: Path):
    path = save_pipeline(Pipeline.of(Agree(scorer=LENGTH)), tmp_path / "recipe.yaml")
    assert "in memory: length" in path.read_text()
    with pytest.raises(ConfigError, match="was an object in memory"):
        read_pipeline(path)
    with pytest.raises(ConfigError, match="can't be resolved"):
        Pipeline.of({"agree": {"scorer": "mine"}}).run(records())
    done = Pipeline.of({"agree": {"scorer": "mine"}}).run(records(), Tools(resolve={"mine": LENGTH}.get))
    assert done.touches


def test_every_registered_step_explains_itself_and_its_options():
    for name, kind in step_kinds().items():
        assert kind.__doc__, name
        for option in kind.model_fields:
            assert f"{option}" in kind.__doc__.split("Attributes:")[1], (name, option)
    with pytest.raises(ConfigError):
        make_step("drop_ties", {"option": 1})
