"""Columns that an objective asks for reach its bundle: who judged, and numbers that the records carry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from accordance.core.errors import DataError
from accordance.core.record import Records
from accordance.objectives import get_objective
from accordance.training import TrainingConfig, examples_for, train
from tests.tiny import policy, records


def judged(names: list[str | None], **extras: object) -> Records:
    """Records whose judges have these names, in turn."""
    some = list(records(len(names)))
    return Records.of(
        replace(r, judgments=tuple(replace(j, annotator=name) for j in r.judgments), extras=dict(extras))
        for r, name in zip(some, names)
    )


def test_annotators_are_numbered_only_where_they_are_asked_for_and_alike_in_held_out_data():
    encoder = policy().encoder
    plain = examples_for(get_objective("dpo"), judged(["ann", "bob"]), encoder)
    assert "annotator" not in plain[0].columns and plain.annotators == {}
    asked = examples_for(get_objective("lcpo(dpo)"), judged(["ann", "bob", "ann", None]), encoder)
    assert asked.annotators == {"ann": 0, "bob": 1, "": 2}
    assert [item.columns["annotator"] for item in asked.items] == [0, 1, 0, 2]
    held = examples_for(get_objective("lcpo(dpo)"), judged(["cy", "bob"]), encoder, annotators=asked.annotators)
    assert [item.columns["annotator"] for item in held.items] == [3, 1] and "cy" not in asked.annotators


def test_numbers_come_from_the_records_and_missing_ones_are_named():
    encoder, objective = policy().encoder, get_objective("conflict(dpo)")
    made = examples_for(objective, judged(["ann"] * 2, conflict=-0.5), encoder)
    assert [item.columns["conflict"] for item in made.items] == [-0.5, -0.5]
    for wrong, found in ({}, "nothing"), ({"conflict": "no"}, "'no'"):
        with pytest.raises(DataError, match="needs a number 'conflict'") as error:
            examples_for(objective, judged(["ann"], **wrong), encoder)
        assert error.value.found == found


def test_a_recipe_trains_a_wrapped_sum_and_its_reliabilities_move(tmp_path: Path):
    options = {
        "objective": "lcpo(dpo + 0.1*sft)",
        "lcpo.memory": 4.0,
        "learning_rate": 1e-2,
        "max_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "output_dir": str(tmp_path),
    }
    config = TrainingConfig.of(options)
    train(policy(), judged(["ann", "bob"] * 4), config)
    objective = config.build_objective()
    assert objective.options["lcpo.memory"] == 4.0
    moved = objective.state["reliability"] != 0.75
    assert moved[:2].all() and not moved[2:].any()
    assert not torch.equal(objective.state["reliability"][0], objective.state["reliability"][1])


def test_responses_under_prompts_of_their_own_have_the_log_probs_of_separate_groups():
    """What two prompts share is computed once; what they don't counts for the prompt, not for the answer."""
    from accordance.core.record import Judgment, Record, Response, user
    from accordance.models import Group
    from accordance.objectives.language import JUDGMENT, with_words
    from accordance.training.bundles import bundle_for, columns_of

    made, objective = policy(), get_objective("cut")
    critiques = [
        Record(user(f"q{i}"), (Response.of("abc"[: i + 1]),), (Judgment("critique", (0,), text="w" * i),))
        for i in range(3)
    ]
    data = examples_for(objective, Records.of(critiques), made.encoder)
    logps = made.engine([item.group for item in data.items])
    bundle = bundle_for(objective, logps, None, columns_of(data.items))
    for i, record in enumerate(critiques):
        words = with_words(record.prompt, JUDGMENT.format("w" * i))
        for prompt, sums, lengths in (
            (words, bundle.chosen, bundle.chosen_length),
            (record.prompt, bundle.rejected, bundle.rejected_length),
        ):
            ids = made.encoder.encode(prompt, record.responses)
            alone = made.engine([Group(*ids)])
            torch.testing.assert_close(sums[i], alone.logp[0], rtol=1e-4, atol=1e-5)
            assert lengths[i] == alone.lengths[0] == i + 2
    assert len(bundle.tokens.logp) == 2 * sum(i + 2 for i in range(3))


def test_cut_trains_from_a_recipe_on_critiques(tmp_path: Path):
    from accordance.core.record import Judgment, Record, Response, user

    some = Records.of(
        Record(user(f"q{i}"), (Response.of("abc"),), (Judgment("critique", (0,), text="too short"),))
        for i in range(4)
    )
    config = TrainingConfig.of(
        {
            "objective": "cut",
            "threshold": 1.2,
            "max_steps": 2,
            "save_strategy": "no",
            "use_cpu": True,
            "output_dir": str(tmp_path),
        }
    )
    assert train(policy(), some, config).steps == 2
