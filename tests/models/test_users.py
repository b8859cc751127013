"""Users' soft tokens: looked up where they stand, saved and found again, and unseen by those who know no users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, ModelError
from accordance.models import (
    CopiedReference,
    Group,
    LocalPolicy,
    Users,
    add_users,
    load_policy,
    nobody,
    users_of,
)
from tests.tiny import llama, policy, records

WORDS = [[9, 17, 30], [12, 5, 8, 40]]


def personal(clusters: int = 0, tokens: int = 2, **changes: Any) -> LocalPolicy:
    """A policy with two users who differ from the generic one."""
    made = policy(0, **changes)
    users = add_users(made.model, ["ann", "bob"], tokens=tokens, clusters=clusters, seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in users.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=draw))
    return made


def by_hand(made: LocalPolicy, name: str | None, prompt: list[int], response: list[int]) -> float:
    """Log-probability of a response by the model's own forward from vectors."""
    users = users_of(made.model)
    assert users is not None
    number = 0 if name is None else users.names.index(name) + 1
    if users.clusters:
        share = torch.softmax(users.weights[number], -1)
        front = sum(share[c] * users.shared[c] for c in range(users.clusters))
    else:
        front = users.generic if number == 0 else users.generic + users.own[number - 1]
    table = made.engine.bare.get_input_embeddings().weight
    vectors = torch.cat([front, table[prompt + response]])[None]
    scores = made.engine.bare(inputs_embeds=vectors, use_cache=False).logits[0]
    first = users.tokens + len(prompt)
    logps = torch.log_softmax(scores[first - 1 : -1], -1)
    return logps.gather(1, torch.tensor(response)[:, None]).sum().item()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("clusters", [0, 3])
@pytest.mark.parametrize("name", [None, "ann", "bob"])
def test_log_probabilities_are_those_of_the_vectors_put_in_by_hand(
    name: str | None, clusters: int, shared: bool
) -> None:
    made = personal(clusters)
    made = made if shared else LocalPolicy(made.model, made.tokenizer, shared=False)
    users = users_of(made.model)
    assert users is not None
    groups = [Group([*users.ids(name), *range(5 + i, 12 + i)], WORDS) for i in range(3)]
    found = made.engine(groups).logp.tolist()
    wanted = [by_hand(made, name, list(g.prompt[users.tokens :]), r) for g in groups for r in WORDS]
    assert found == pytest.approx(wanted, abs=1e-4)
    made.engine.check(groups)


def test_the_own_part_of_a_user_is_moved_by_that_users_prompts_alone() -> None:
    made = personal()
    users = users_of(made.model)
    assert users is not None
    made.engine([Group([*users.ids("ann"), 7, 8], WORDS)]).logp.sum().backward()
    assert float(users.own.grad[0].abs().max()) > 0 == float(users.own.grad[1].abs().max())
    assert torch.equal(users.own.grad[0], users.generic.grad)  # what all share is moved by all
    users.zero_grad()
    made.engine([Group([*users.ids(None), 7, 8], WORDS)]).logp.sum().backward()
    assert float(users.own.grad.abs().max()) == 0 < float(users.generic.grad.abs().max())


def test_users_begin_as_the_generic_one_and_those_who_are_not_known_are_the_generic_one() -> None:
    made = policy()
    users = add_users(made.model, ["ann"], tokens=2, frequent=[9, 17])
    some = records(4)
    generic = made.for_user(None).logprobs(some)
    assert made.for_user("ann").logprobs(some).equals(generic)
    assert made.for_user("who").logprobs(some).equals(generic)
    plain = made.for_nobody().logprobs(some)
    assert plain.equals(policy().logprobs(some)) and not plain.equals(generic)
    table = made.engine.bare.get_input_embeddings().weight
    torch.testing.assert_close(users.generic, table[[9, 17]])


def test_what_is_written_for_a_user_has_the_log_probability_it_was_written_with() -> None:
    made = personal().for_user("bob")
    prompt = records(4)[0].prompt
    for completion in made.generate([prompt], n=3, max_new_tokens=6, seed=3)[0]:
        ids = made.encode(prompt, ()).prompt_ids
        scored = made.engine([Group(ids, [list(completion.token_ids)])]).tokens
        assert list(completion.logprobs) == pytest.approx(scored.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("asks", "value"),
    [
        ("repetition_penalty", 1.5),
        ("no_repeat_ngram_size", 2),
        ("num_beams", 2),
    ],
)
def test_a_checkpoint_with_penalties_writes_for_a_user_and_does_not_take_them_for_words(
    asks: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = personal(), []
    prompts = [record.prompt for record in records(3)]
    plain = made.for_user("bob").generate(prompts, n=2, max_new_tokens=4, temperature=0.0)
    setattr(made.model.generation_config, asks, value)
    monkeypatch.setattr("accordance.models.generation._own_batch", None)
    ordinary = made.model.generate
    made.model.generate = lambda **given: (seen.append(given["input_ids"]), ordinary(**given))[1]
    found = made.for_user("bob").generate(prompts, n=2, max_new_tokens=4, temperature=0.0)
    assert int(seen[0].max()) < made.users.vocabulary
    for prompt, row, before in zip(prompts, found, plain):
        ids = made.for_user("bob").encode(prompt, ()).prompt_ids
        scored = made.engine([Group(ids, [list(row[0].token_ids)])]).tokens
        assert list(row[0].logprobs) == pytest.approx(scored.tolist(), abs=1e-4)  # bob's, whatever is penalised
        if asks == "num_beams":
            assert row[0].token_ids == before[0].token_ids


@pytest.mark.parametrize("clusters", [0, 2])
@pytest.mark.parametrize("peft", [False, True])
def test_users_are_saved_beside_the_checkpoint_and_found_again(
    tmp_path: Path, peft: bool, clusters: int
) -> None:
    made = personal(clusters)
    users_of(made.model).texts["ann"] = "I like rain."
    base = made
    if peft:
        from peft import LoraConfig, get_peft_model

        policy(0).save(tmp_path / "base")
        made = load_policy(tmp_path / "base")
        add_users(made.model, ["ann", "bob"], tokens=2, clusters=clusters)
        users_of(made.model).load_state_dict(users_of(base.model).state_dict())
        users_of(made.model).texts["ann"] = "I like rain."
        made = LocalPolicy(get_peft_model(made.model, LoraConfig(target_modules="all-linear")), made.tokenizer)
    made.save(tmp_path / "run")
    again, some = load_policy(tmp_path / "run"), records(4)
    assert again.has_adapter is peft and again.users.names == ("ann", "bob")
    for name in ("ann", "bob", None):
        assert made.for_user(name).logprobs(some).equals(again.for_user(name).logprobs(some))
    assert again.logprobs(some).equals(again.for_user(None).logprobs(some))  # nobody named: the generic user
    assert not again.for_user("ann").logprobs(some).equals(again.for_user("ann", text="").logprobs(some))


def test_the_checkpoint_itself_is_an_ordinary_model(tmp_path: Path) -> None:
    made = personal()
    made.save(tmp_path)
    for file in ("users.json", "users.safetensors"):
        (tmp_path / file).unlink()
    assert load_policy(tmp_path).users is None
    assert load_policy(tmp_path).logprobs(records(4)).equals(policy().logprobs(records(4)))
    assert made.weights_hash() == policy().weights_hash()


def test_a_copy_of_the_model_has_users_of_its_own() -> None:
    made = personal()
    copied, groups = CopiedReference(made.engine), [Group([*made.users.ids("ann"), 7, 8], WORDS)]
    before = copied(groups).logp
    torch.testing.assert_close(before, made.engine(groups).logp.detach())
    with torch.no_grad():
        users_of(made.model).own.zero_()
    assert torch.equal(copied(groups).logp, before)
    assert not torch.equal(made.engine(groups).logp.detach(), before)


def test_a_text_stands_before_the_soft_tokens_and_nobody_sees_neither() -> None:
    made = personal()
    group = Group(made.for_user("ann", text="I am old.").encode(records(4)[0].prompt, ()).prompt_ids, WORDS)
    own = Group(made.for_nobody().encode(records(4)[0].prompt, ()).prompt_ids, WORDS)
    assert nobody(group, made.users.vocabulary) == own and nobody(own, made.users.vocabulary) is own
    said = len(group.prompt) - len(own.prompt) - 2
    assert made.tokenizer.decode(group.prompt[:said]) == "I am old."


def test_further_users_are_added_and_known_ones_stay() -> None:
    for clusters in (0, 3):
        made = personal(clusters)
        before = made.for_user("bob").logprobs(records(4))
        add_users(made.model, ["bob", "eve"], tokens=2, clusters=clusters)
        assert made.users.names == ("ann", "bob", "eve")
        assert made.for_user("bob").logprobs(records(4)).equals(before)
        generic = made.for_user(None).logprobs(records(4))
        assert made.for_user("eve").logprobs(records(4))["logprob"].to_numpy() == pytest.approx(
            generic["logprob"].to_numpy(), abs=1e-5
        )
        with pytest.raises(ConfigError, match="another kind"):
            add_users(made.model, ["eve"], tokens=3, clusters=clusters)


def test_first_values_of_clusters_are_different_words_and_uniform_ones_stay_in_bounds() -> None:
    made = policy()
    users = add_users(made.model, ["ann"], tokens=2, clusters=2, frequent=[9, 17, 30, 31])
    table = made.engine.bare.get_input_embeddings().weight
    torch.testing.assert_close(users.shared.flatten(0, 1), table[[9, 17, 30, 31]])
    other = add_users(llama(), ["ann"], tokens=50)
    assert 0.4 < float(other.generic.abs().max()) <= 0.5 and abs(float(other.generic.mean())) < 0.05


@pytest.mark.parametrize("names", [[], ["ann", "ann"], [""]])
def test_users_need_different_names(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="different names"):
        Users(names, torch.zeros(2, 4), 10)


def test_a_model_that_can_not_take_users_says_so() -> None:
    made = policy()
    with pytest.raises(ModelError, match="no users"):
        made.for_user("ann")
    users = Users(["ann"], torch.zeros(2, 32), 7)
    from accordance.models.users import attach_users

    with pytest.raises(ModelError, match="another vocabulary"):
        attach_users(made.model, users)
    model = llama()
    ordinary = model.forward
    model.forward = lambda **kwargs: ordinary(
        **kwargs | ({"position_ids": kwargs["input_ids"] % 5} if "input_ids" in kwargs else {})
    )
    with pytest.raises(ModelError, match="can't stand before a prompt"):
        add_users(model, ["ann"])
    assert users_of(model) is None and not model.get_input_embeddings()._forward_hooks
