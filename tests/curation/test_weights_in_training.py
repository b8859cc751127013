"""Weights that curation gives are the weights that training uses: for pairs, lists, and pairs taken apart."""

from __future__ import annotations

import pytest

from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.weights import weighted
from accordance.objectives import get_objective
from accordance.training import examples_for
from tests import tiny


def records(weights: list[float] | None) -> Records:
    """Two judgments of one pair."""
    judgments = (
        Judgment("comparison", (0, 1), (1.0, 0.0)),
        Judgment("comparison", (0, 1), (0.0, 1.0), annotator="b"),
    )
    record = Record(user("q"), (Response.of("yes"), Response.of("no")), judgments)
    return Records.of([record if weights is None else weighted(record, weights)])


@pytest.mark.parametrize("objective", ["dpo", "pro", "kto"])
def test_each_example_has_the_weight_of_its_judgment(objective):
    encoder, loss = tiny.policy().encoder, get_objective(objective)
    found = [example.columns["weight"] for example in examples_for(loss, records([0.5, 2.0]), encoder).items]
    assert sorted(set(found)) == [0.5, 2.0] and len(found) == (4 if objective == "kto" else 2)
    plain = examples_for(loss, records(None), encoder).items
    assert all("weight" not in example.columns for example in plain)
