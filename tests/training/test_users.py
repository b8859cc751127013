"""Users in a run: what the loss is a mixture of, whom each term moves, checkpoints that come back, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records
from accordance.models import Reference, load_policy, nobody
from accordance.objectives import get_objective
from accordance.training import TrainingConfig, TrainingRun, bundle_for, examples_for, train
from accordance.training.bundles import columns_of
from accordance.training.users import blind, kind_weights, personal_examples, without_users
from tests.tiny import policy, records
from tests.training.test_trainer import QUICK, logged, weights


def people(count: int = 16, unnamed: int = 0) -> Records:
    """Ann says yes and bob says no of the same prompts; some judgments name nobody."""
    made: list[Record] = []
    for number in range(count):
        record = records(count // 2)[number // 2]
        judged: Judgment = record.judgments[0]
        values = judged.values if number % 2 else tuple(1 - v for v in judged.values)
        who = None if number < unnamed else "ann" if number % 2 else "bob"
        made.append(replace(record, judgments=(replace(judged, values=values, annotator=who),)))
    return Records.of(made)


def run(folder: Path, some: Records | None = None, **options: Any) -> TrainingRun:
    given = QUICK | {"output_dir": str(folder), "users": "annotator", "user_tokens": 2} | options
    given = {name: value for name, value in given.items() if value is not None}
    return train(policy(0), some or people(), TrainingConfig.of(given))


def prepared(alpha: float = 0.5, unnamed: int = 0, count: int = 16, **options: Any) -> Any:
    """A policy with users, the objective, and a bundle of all examples of both kinds."""
    made, loss = policy(), get_objective("dpo")
    config = TrainingConfig.of({"users": "annotator", "user_tokens": 2, "user_alpha": alpha} | options)
    data = examples_for(loss, people(16, unnamed).select(range(count)), made.encoder, users="annotator")
    data, _ = personal_examples(made, config, data, None)
    groups = [example.group for example in data.items]
    source = blind(Reference(policy().engine), made.users.vocabulary)
    return made, loss, bundle_for(loss, made.engine(groups), source(groups), columns_of(data.items)), data


def test_the_loss_is_the_mixture_of_the_means_of_both_kinds() -> None:
    for unnamed in (0, 5):
        _, loss, bundle, data = prepared(0.3, unnamed)
        own = bundle.extras["member"] == 1
        assert int(own.sum()) == 16 - unnamed and int((~own).sum()) == 16
        each = loss(bundle)
        wanted = 0.3 * each[own].mean() + 0.7 * each[~own].mean()
        torch.testing.assert_close((each * bundle.weight).mean(), wanted)
        assert sum(data.notes.values()) == unnamed


def test_without_weight_a_users_own_part_has_no_gradient_and_the_generic_one_learns_by_its_own_term() -> None:
    for alpha in (0.0, 0.5, 1.0):
        made, loss, bundle, _ = prepared(0.5, count=11)
        own = (bundle.extras["member"] == 1).tolist()
        mixed = (loss(bundle) * torch.tensor(kind_weights(own, alpha))).mean()
        mixed.backward()
        users = made.users
        assert (float(users.own.grad.abs().max()) == 0) is (alpha == 0)
        # What all share is moved by every user's term, and by the generic user's own, which is what is left over.
        left = users.generic.grad - users.own.grad.sum(0)
        assert (float(left.abs().max()) < 1e-6) is (alpha == 1)


def test_without_weight_a_kind_is_not_computed() -> None:
    for alpha, kind in ((0.0, 0), (1.0, 1)):
        _, _, bundle, data = prepared(alpha)
        assert len(data) == 16 and bool((bundle.extras["member"] == kind).all())
        assert bundle.weight.tolist() == [1.0] * 16
    _, _, _, data = prepared(1.0, unnamed=4)
    assert len(data) == 12 and len(data.dropped["judged by nobody that is known"]) == 4


@pytest.mark.parametrize("clusters", [0, 2])
def test_users_who_are_all_alike_have_the_loss_of_the_base_method(clusters: int) -> None:
    """At the start every o_i is 0: individual and generic terms are one, whatever alpha is."""
    _, loss, bundle, _ = prepared(0.8, user_clusters=clusters)
    own = bundle.extras["member"] == 1
    each = loss(bundle).detach()
    torch.testing.assert_close(each[own], each[~own], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((each * bundle.weight).mean(), each[~own].mean(), rtol=1e-4, atol=1e-5)


def test_without_users_a_run_is_the_plain_one(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", users=None, user_tokens=None)
    named = train(policy(0), people(), TrainingConfig.of(QUICK | {"output_dir": str(tmp_path / "b")}))
    assert torch.equal(weights(plain), weights(named)) and plain.policy.users is None
    assert not (tmp_path / "a" / "users.json").exists()


def test_the_reference_sees_no_user() -> None:
    made, loss, bundle, data = prepared()
    plain = without_users(data, made.users.vocabulary)
    alone = examples_for(loss, people(), policy().encoder)
    wanted = policy().engine([e.group for e in alone.items]).logp.view(-1, 2).repeat_interleave(2, 0)
    torch.testing.assert_close(bundle.ref_chosen, wanted[:, 0].detach(), rtol=1e-5, atol=1e-4)
    assert [list(e.group.prompt) for e in plain.items[::2]] == [list(e.group.prompt) for e in alone.items]
    torch.testing.assert_close(made.for_nobody().engine([nobody(data.items[0].group, 261)]).logp, wanted[0])


@pytest.mark.parametrize(("clusters", "epochs"), [(0, 15), (3, 30)])
def test_people_who_contradict_each_other_both_get_their_way(
    tmp_path: Path, clusters: int, epochs: int
) -> None:
    done = run(tmp_path, num_train_epochs=epochs, user_clusters=clusters, auxiliary_learning_rate=0.05)
    assert logged(done, "rewards/accuracies/individual")[-1] == 1.0
    assert max(logged(done, "rewards/accuracies/generic")[-4:]) < 1.0
    again, some = load_policy(tmp_path), records(4)
    for name in ("ann", "bob", None):
        assert again.for_user(name).logprobs(some).equals(done.policy.for_user(name).logprobs(some))
    assert done.policy.logprobs(some).equals(again.logprobs(some))


def test_users_move_at_a_rate_of_their_own(tmp_path: Path) -> None:
    still = run(tmp_path / "a", auxiliary_learning_rate=1e-9, max_steps=3)
    start = torch.cat([p.detach().flatten() for p in policy(0).model.parameters()])
    still_own = still.policy.users.own.detach()
    assert float(still_own.abs().max()) < 1e-7 < float((weights(still) - start).abs().max())
    alone = run(tmp_path / "b", auxiliary_warmup=3, max_steps=3)
    assert torch.equal(weights(alone), start) and bool(alone.policy.users.own.any())


@pytest.mark.parametrize("peft", [False, True])
def test_a_run_that_is_resumed_ends_where_an_unbroken_one_does(tmp_path: Path, peft: bool) -> None:
    saved = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "use_peft": peft}
    policy(0).save(tmp_path / "start")

    def once(name: str, **options: Any) -> TrainingRun:
        given = QUICK | {"output_dir": str(tmp_path / name), "users": "annotator", "user_tokens": 2} | saved
        return train(load_policy(tmp_path / "start"), people(), TrainingConfig.of(given | options))

    whole = once("whole")
    again = once("again", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert again.steps == whole.steps == 6 and torch.equal(weights(again), weights(whole))
    for one, other in zip(whole.policy.users.parameters(), again.policy.users.parameters()):
        assert torch.equal(one, other)
    half = load_policy(tmp_path / "whole" / "checkpoint-3")
    assert half.has_adapter is peft and not torch.equal(half.users.own, whole.policy.users.own)
    found = load_policy(tmp_path / "again").for_user("ann").logprobs(records(4))
    assert found.equals(whole.policy.for_user("ann").logprobs(records(4)))


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "simpo"},
        {"objective": "dpo + 0.1*sft"},
        {"objective": "kto"},
        {"objective": "pro"},
        {"objective": "sft"},
        {"objective": "robust"},
        {"objective": "lcpo(dpo)"},
        {"objective": "tdpo"},
        {"objective": "dpo + 0.1*sft", "balancer": "raco"},
        {"balance_over": "group", "balancer": "raco"},
        {"heads": "group"},
        {"users": "group"},
        {"user_start": "uniform", "user_clusters": 2},
        {"use_peft": True, "reference_cache": False},
    ],
)
def test_any_offline_objective_learns_users(tmp_path: Path, options: dict[str, Any]) -> None:
    done = run(tmp_path, max_steps=2, **options)
    assert done.steps == 2 and torch.isfinite(weights(done)).all()
    assert done.policy.users.clusters or bool(done.policy.users.own.any())


def test_held_out_examples_of_people_who_are_not_known_are_the_generic_users(tmp_path: Path) -> None:
    some = [*people()]
    strange = [
        replace(r, judgments=(replace(r.judgments[0], annotator="eve"),)) if i < 2 else r
        for i, r in enumerate(some[:6])
    ]
    config = TrainingConfig.of(
        QUICK | {"output_dir": str(tmp_path), "users": "annotator", "eval_strategy": "epoch"}
    )
    done = train(policy(0), Records.of(some[6:]), config, held_out=Records.of(strange))
    assert done.policy.users.names == ("ann", "bob")
    assert logged(done, "eval_loss") and logged(done, "eval_rewards/accuracies/individual")


def test_what_users_say_of_themselves_stands_before_their_tokens(tmp_path: Path) -> None:
    (tmp_path / "who.json").write_text(json.dumps({"ann": "I like yes."}))
    done = run(tmp_path / "run", user_texts=str(tmp_path / "who.json"), max_steps=2)
    own = {tuple(e.group.prompt[:13]) for e in done.examples.items if e.user == "ann" and e.columns["member"]}
    assert {done.policy.tokenizer.decode(ids[:11]) for ids in own} == {"I like yes."}
    assert {ids[11:] for ids in own} == {done.policy.users.ids("ann")}
    assert load_policy(tmp_path / "run").users.texts == {"ann": "I like yes."}


def test_a_policy_with_users_learns_on_and_gets_new_ones(tmp_path: Path) -> None:
    first = run(tmp_path / "a", max_steps=2)
    before = first.policy.users.own[0].detach().clone()
    more = Records.of(replace(r, judgments=(replace(r.judgments[0], annotator="eve"),)) for r in records(8))
    with pytest.raises(ConfigError, match="the policy has users"):
        train(first.policy, more, TrainingConfig.of(QUICK | {"output_dir": str(tmp_path / "b")}))
    options = QUICK | {"output_dir": str(tmp_path / "c"), "users": "annotator", "user_tokens": 2}
    done = train(load_policy(tmp_path / "a"), more, TrainingConfig.of(options))
    assert done.policy.users.names == ("ann", "bob", "eve")
    assert torch.equal(done.policy.users.own[0], before)  # who said nothing new stays as they were


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"users": None}, "user_tokens has no effect without users"),
        ({"users": "person"}, "users: Input should be"),
        ({"user_alpha": 1.5}, "user_alpha"),
        ({"loop": "iterate"}, "one policy for all"),
        ({"objective": "mapl(dpo)"}, "arranges examples of its own"),
        ({"objective": "aot"}, "sorts pairs"),
        ({"objective": "sparsepo"}, "trained parts of its own"),
        ({"objective": "grpo", "reward": "population"}, "judged by nobody"),
        ({"parallel": "ddp"}, "on one process"),
        ({"user_texts": "nowhere.json"}, "can't be read"),
        ({"auxiliary_learning_rate": 0.1, "users": None, "user_tokens": None}, "has no effect on dpo"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, **options)


def test_records_that_name_nobody_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no judgment names its annotator"):
        run(tmp_path, records(8))
