"""Routing Records: features, the file of a router, and what becomes of judgments of the other source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.curation import Pipeline
from accordance.curation.hyper import HybridRouter, draw_mixes, route_features


def both(n: int = 60) -> Records:
    """Pairs judged by a person and by a model; a third of the prompts carry a tag."""
    g = np.random.default_rng(0)
    return Records.of(
        Record(
            user("word " * int(g.integers(1, 20))),
            tuple(Response.of("w " * int(g.integers(1, 20))) for _ in range(2)),
            tuple(Judgment("comparison", (0, 1), (1.0, 0.0), annotator=who) for who in ("ann", "gpt")),
            origin=f"row {i}",
            extras={"tags": ["safety"]} if i % 3 == 0 else {},
        )
        for i in range(n)
    )


def fitted(records: Records) -> HybridRouter:
    """A router for which people are worth something where the prompt is tagged, and nowhere else."""
    names, features, _ = route_features(records)
    masks = draw_mixes(features, 60)
    worth = features[:, names.index("tag: safety")] - 0.5
    return HybridRouter("linear", names).fit(features, masks, masks @ worth / len(records))


def test_tagged_records_go_to_people_and_only_the_chosen_source_is_kept(tmp_path: Path):
    records = both()
    path = fitted(records).save(tmp_path / "router.json")
    step = {"route": {"router": str(path), "budget": 20, "model_annotators": ["gpt"]}}
    done = Pipeline.of(step).run(records)
    for record in done.records:
        people = "tags" in record.extras
        assert record.extras["route"] == ("human" if people else "model")
        assert [j.annotator for j in record.judgments] == (["ann"] if people else ["gpt"])
    assert list(done.undo()) == list(records)
    assert done.steps[0].notes["to_people"] == 20


def test_without_named_models_nothing_is_dropped_and_other_features_are_refused():
    records = both()
    done = Pipeline.of({"route": {"router": fitted(records), "budget": 0.5}}).run(records)
    assert len(done.records) == 60 and all(len(r.judgments) == 2 for r in done.records)
    untagged = records.where(lambda r: not r.extras, "tagged")
    with pytest.raises(DataError, match="other features"):
        Pipeline.of({"route": {"router": fitted(records)}}).run(untagged)
    with pytest.raises(ConfigError, match="no router"):
        Pipeline.of({"route": {"router": "nowhere.json"}}).run(records)


def test_bins_of_one_data_set_are_used_on_another_and_each_pair_is_in_one():
    names, features, bins = route_features(both())
    again = route_features(both(20), bins)
    assert again[0] == names and again[2] is bins
    assert (features[:, :15].reshape(60, 5, 3).sum(2) == 1).all()


def test_mixes_vary_in_what_they_hold_not_only_in_size():
    features = np.eye(4)[np.arange(400) % 4]
    counts = draw_mixes(features, 100, size=200) @ features
    assert (counts.sum(1) == 200).all() and (counts.std(0) > 15).all()
