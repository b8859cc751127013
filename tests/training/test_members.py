"""Attributes and groups with a loss of their own each: what the terms mean, that balancers see them, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.objectives import get_objective, parts_of
from accordance.training import TrainingConfig, TrainingRun, bundle_for, train
from accordance.training.bundles import columns_of
from accordance.training.members import MEMBER, member_examples, over_members, split_records
from tests.tiny import policy, records
from tests.training.test_trainer import QUICK, logged, weights


def judged(over: str = "attribute", count: int = 16, second: int = 8) -> Records:
    """Everyone says yes on the first attribute (or in the first group); on the second one, fewer say no."""
    made = []
    for number, record in enumerate(records(count)):
        first = replace(record.judgments[0], **{over: "helpful"})
        turned = replace(first, values=tuple(1 - v for v in first.values), **{over: "harmless"})
        made.append(replace(record, judgments=(first, turned) if number < second else (first,)))
    return Records.of(made)


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    return train(policy(0), some or judged(), TrainingConfig.of(QUICK | {"output_dir": str(folder)} | options))


@pytest.mark.parametrize("over", ["attribute", "group"])
def test_every_judgment_belongs_to_one_member(over: Any) -> None:
    apart = split_records(judged(over), over)
    assert {name: len(some) for name, some in apart.items()} == {"harmless": 8, "helpful": 16}
    both, names = member_examples(get_objective("dpo"), judged(over), policy().encoder, over, None, {})
    assert names == ["harmless", "helpful"]
    assert [e.columns[MEMBER] for e in both.items] == [0] * 8 + [1] * 16


def test_a_term_is_the_mean_loss_of_its_own_examples_times_its_weight() -> None:
    made, objective = policy(), get_objective("simpo")
    data, names = member_examples(objective, judged(), made.encoder, "attribute", None, {})
    split = over_members(objective, data, names, {"helpful": 3.0, "harmless": 1.0})
    bundle = bundle_for(objective, made.engine([e.group for e in data.items]), None, columns_of(data.items))
    each, terms = objective(bundle), parts_of(split)
    assert [(part.name, weight) for part, weight in terms] == [("harmless", 0.25), ("helpful", 0.75)]
    for (part, _), some in zip(terms, (each[:8], each[8:])):
        torch.testing.assert_close(part(bundle).mean(), some.mean())
    torch.testing.assert_close(split(bundle).mean(), 0.25 * each[:8].mean() + 0.75 * each[8:].mean())


def test_members_that_are_equally_large_make_the_plain_run(tmp_path: Path) -> None:
    some = Records.of(
        replace(r, judgments=tuple(replace(j, group="ab"[i % 2]) for j in r.judgments))
        for i, r in enumerate(records(16))
    )
    whole = {"per_device_train_batch_size": 16, "num_train_epochs": 3}
    plain, split = run(tmp_path / "a", some, **whole), run(tmp_path / "b", some, balance_over="group", **whole)
    torch.testing.assert_close(weights(plain), weights(split), rtol=1e-4, atol=2e-5)
    assert plain.steps == split.steps == 3


def test_a_conflict_weighs_less_where_it_should(tmp_path: Path) -> None:
    """The rarer attribute is outvoted in the plain run, and not where each has a loss of its own."""
    options = {"objective": "simpo", "num_train_epochs": 6, "learning_rate": 2e-2, "balance_over": "group"}
    some = judged("group", 16, 6)
    rare = [
        run(tmp_path / str(w), some, balance_weights={"helpful": 1.0, "harmless": w}, **options)
        for w in (0.05, 20.0)
    ]
    for done, better in zip(rare, ("helpful", "harmless")):
        last = [line for line in done.history if f"rewards/accuracies/{better}" in line][-1]
        other = "harmless" if better == "helpful" else "helpful"
        assert last[f"rewards/accuracies/{better}"] > last.get(f"rewards/accuracies/{other}", 0.0)


@pytest.mark.parametrize("balancer", ["raco", "cagrad", "mgda", "maxmin"])
def test_balancers_see_a_gradient_for_each_member(tmp_path: Path, balancer: str) -> None:
    done = run(tmp_path, balance_over="attribute", balancer=balancer, per_device_train_batch_size=12)
    assert len(logged(done, "balance/helpful")) == len(logged(done, "balance/harmless")) == done.steps
    assert torch.isfinite(weights(done)).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"balance_over": "attribute", "objective": "dpo + 0.1*sft"}, "it is a sum"),
        ({"balance_over": "attribute", "objective": "bco"}, "it keeps running values"),
        ({"balance_over": "attribute", "attribute": "helpful"}, "no effect with attribute"),
        ({"balance_over": "attribute", "balance_weights": {"helpfull": 1.0}}, "did you mean 'helpful'"),
        ({"balance_over": "attribute", "balance_weights": {"helpful": 1.0}}, "every member has a weight"),
        ({"balance_weights": {"helpful": 1.0}}, "balance_weights has no effect"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, **options)


def test_one_member_is_nothing_to_balance(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to balance"):
        run(tmp_path, records(8), balance_over="attribute")
