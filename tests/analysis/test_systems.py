"""Parts of the systems of this room that their proofs do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from accordance.analysis import PairTable, SparseFeatures, explain
from accordance.analysis.embedding import HashedText
from accordance.analysis.principles import cluster
from accordance.analysis.profile import levels
from accordance.analysis.wimhf import relabel
from accordance.core.errors import ConfigError


def test_texts_at_levels_become_pairs_in_which_the_higher_level_is_preferred():
    table = levels(["q"], [["poor", "fair", "good"]])
    assert {table.pair(i)[1:] for i in range(len(table))} == {
        ("fair", "poor"),
        ("good", "poor"),
        ("good", "fair"),
    }


def test_only_labels_that_go_the_unwanted_way_are_flipped_strongest_first():
    z = np.array([3.0, -3.0, 2.0, -1.0, 0.0, 1.0])
    label = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])  # more of it is preferred in rows 0, 2 and 3
    table = PairTable.of(["p"] * 6, ["a"] * 6, ["b"] * 6, label)
    mended, flipped = relabel(table, z, 1, 2)
    assert flipped.tolist() == [0, 2] and mended.label.tolist() == [0, 1, 0, 0, 1, 0]
    assert relabel(table, z, -1, 9)[1].tolist() == [1, 5]
    with pytest.raises(ConfigError):
        relabel(table, z, 0, 1)


def test_merging_keeps_as_many_clusters_as_asked_for_and_the_same_for_the_same_seed():
    vectors = np.random.default_rng(0).normal(size=(60, 5))
    codes = cluster(vectors, 7, seed=3)
    assert len(np.unique(codes)) <= 7 and (codes == cluster(vectors, 7, seed=3)).all()


def test_texts_that_share_words_embed_near_each_other():
    v = HashedText()(["the cat sat down", "a cat sat here", "stocks fell sharply", ""])
    assert v[0] @ v[1] > v[0] @ v[2] + 0.1 and np.abs(v[3]).max() < 1e-9


def test_sparse_features_go_through_explain_and_names_that_are_not_borne_out_are_left_out():
    g = np.random.default_rng(0)
    words = ("purring", "stocks", "rain")
    has = g.random((2, 600, 3)) < 0.5
    texts = [[" ".join(w for w, there in zip(words, row) if there) for row in side] for side in has]
    label = (g.random(600) < 1 / (1 + np.exp(-2.0 * (has[0, :, 0].astype(float) - has[1, :, 0])))).astype(float)
    table = PairTable.of([f"p{i}" for i in range(600)], *texts, label)

    def alone(shown) -> str:
        """The word that the texts with more of it have, and the others don't."""
        return max(words, key=lambda w: sum((w in more) - (w in less) for _, more, less in shown))

    def makes(annotator):
        return SparseFeatures(
            units=4, active=2, epochs=60, batch_size=32, learning_rate=5e-3, annotator=annotator, namer=alone,
            embed=lambda texts: np.array([[w in t for w in words] for t in texts], dtype=float),
        )  # fmt: skip

    honest = makes(lambda name, p, a, b: int(name in a) - int(name in b))
    report = explain(table, features=[honest], controls=(), samples=100, shuffles=0)
    effects = report.values["effects"]
    best = report.values["survivors"][0]
    assert best.startswith("purring") and effects[best]["low"] > 0.3
    assert max(honest.fidelity.values()) > 0.5
    assert makes(lambda name, p, a, b: int(g.integers(-1, 2))).differences(table).names == ()
