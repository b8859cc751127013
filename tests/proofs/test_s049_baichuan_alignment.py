"""Proof of S049, Baichuan Alignment: each part of the recipe, and the whole of it from one config.

A Llama of 30 thousand weights is pre-trained on a world of things in four domains. Asked about one, it says what it is
(often wrongly) and closes in a tone; asked to be warm or exact it mostly is. People want the right domain, and warmth
about food but exactness about furniture: quality counts both, 0 to 2.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import policy as byte_policy
from tests.tiny_words import pretrained, word_tokenizer

from accordance.core.policy import Prompt
from accordance.core.record import Judgment, Record, Records, Response, as_prompt, user
from accordance.core.scorer import FunctionScorer
from accordance.models import Group, LocalPolicy, load_policy
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.loops import Names
from accordance.training.loops.baichuan_augment import AugmentedPolicy, worth_it

WANTED = {"cheese": "warm", "bread": "warm", "lamp": "exact", "chair": "exact"}
CLOSINGS = {"warm": "gladly", "exact": "precisely", "flat": "so"}
DOMAINS = list(WANTED)
THINGS = {f"i{n}": DOMAINS[n % 4] for n in range(120)}


def answer(domain: str, tone: str) -> str:
    return f"a {domain} {CLOSINGS[tone]}"


def talk(draw: random.Random) -> str:
    """A question, perhaps with a complement, and an answer of mixed quality."""
    thing = draw.choice(list(THINGS))
    asked = draw.choice([None, None, "warm", "exact"])
    tone = asked if asked is not None and draw.random() < 0.8 else draw.choice(list(CLOSINGS))
    domain = THINGS[thing] if draw.random() < 0.6 else draw.choice(DOMAINS)
    return f"user : what is {thing} {f'be {asked} ' if asked else ''}assistant : {answer(domain, tone)}"


@cache
def start() -> Any:
    draw = random.Random(0)
    tokenizer = word_tokenizer([talk(draw) for _ in range(3000)])
    return pretrained(
        tokenizer, lambda: [talk(draw) for _ in range(64)], steps=260, rate=8e-3, hidden=32, seed=0
    )


def thing_of(prompt: Prompt) -> str:
    return next(word for word in as_prompt(prompt)[-1].content.split() if word in THINGS)


def quality(prompts: Any, completions: Any, **_: Any) -> list[float]:
    """Whether the domain is right, plus whether the tone is the one that it wants."""
    found = []
    for prompt, text in zip(prompts, completions):
        domain = THINGS[thing_of(prompt)]
        right = f"a {domain}" in text and sum(word in DOMAINS for word in text.split()) == 1
        found.append(float(right) + float(CLOSINGS[WANTED[domain]] in text.split()))
    return found


QUALITY = FunctionScorer(quality)


def asked(thing: str) -> tuple[Any, ...]:
    return user(f"what is {thing}")


#: No stage sees these.
HELD_OUT = [thing for n, thing in enumerate(THINGS) if n >= 96]
SOME = list(THINGS)[:40]
SEEN = [thing for thing in THINGS if thing not in HELD_OUT]


def complements() -> Records:
    """Both complements to every prompt; which one helps, the judge finds out."""
    shown = Judgment("demonstration", (0,))
    return Records.of(
        Record(asked(thing), (Response.of(f"be {tone}"),), (shown,))
        for thing in SEEN
        for tone in ("warm", "exact")
    )


def demonstrations() -> Records:
    """Right answers whose tone is mostly, but not always, right."""
    draw, shown = random.Random(1), Judgment("demonstration", (0,))
    tones = {thing: WANTED[THINGS[thing]] if draw.random() < 0.75 else "flat" for thing in SEEN}
    return Records.of(
        Record(asked(thing), (Response.of(answer(THINGS[thing], tone)),), (shown,))
        for thing, tone in tones.items()
    )


def comparisons() -> Records:
    """A better answer against a worse one, in tone or in domain."""
    draw, made = random.Random(2), []
    for thing in SEEN * 2:
        domain, tone = THINGS[thing], WANTED[THINGS[thing]]
        worse = draw.choice([answer(domain, "flat"), answer(draw.choice(DOMAINS), tone)])
        if worse != answer(domain, tone):
            pair = (Response.of(answer(domain, tone)), Response.of(worse))
            made.append(Record(asked(thing), pair, (Judgment("comparison", (0, 1), (1.0, 0.0)),)))
    return Records.of(made)


def held_out() -> Records:
    shown = Judgment("demonstration", (0,))
    return Records.of(
        Record(asked(t), (Response.of(answer(THINGS[t], WANTED[THINGS[t]])),), (shown,)) for t in HELD_OUT
    )


def sampled(policy: Any, things: Any = HELD_OUT, n: int = 12) -> np.ndarray:
    """The quality of sampled answers, shape [things * n]."""
    prompts = [asked(thing) for thing in things]
    drawn = policy.generate(prompts, n=n, max_new_tokens=8, seed=5)
    return np.array(quality([p for p in prompts for _ in range(n)], [c.text for row in drawn for c in row]))


def effect(after: np.ndarray, before: np.ndarray) -> float:
    """The difference of means in standard deviations, those of both pooled."""
    return float((after.mean() - before.mean()) / np.sqrt((after.var() + before.var()) / 2))


def recipe(folder: Path) -> dict[str, Any]:
    """The three stages in one config, as `accord align --recipe` reads it."""
    return {
        "loop": "baichuan",
        "loop.complements": "complements",
        "loop.augmenter": "small",
        "loop.augmenter_options": {"learning_rate": 5e-3, "num_train_epochs": 4},
        "loop.judge": "quality",
        "loop.answers": 8,
        "loop.probe_reward": "quality",
        "loop.probe_length": 8,
        "loop.complement_length": 6,
        "loop.plan": [
            {
                "name": "imitate",
                "records": "demonstrations",
                "objective": "sft",
                "options": {"num_train_epochs": 4},
            },
            {
                "name": "prefer",
                "records": "comparisons",
                "objective": "dpo + 0.5*sft",
                "options": {"num_train_epochs": 3, "beta": 0.3, "learning_rate": 5e-4},
            },
        ],
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 14,
        "logging_steps": 100,
        "save_strategy": "no",
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "run"),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRun, Path]:
    folder = tmp_path_factory.mktemp("baichuan")
    given = {"complements": complements(), "demonstrations": demonstrations(), "comparisons": comparisons()}
    names = Names(given | {"quality": QUALITY, "small": start()()})
    done = run_loop(
        start()(), demonstrations(), TrainingConfig.of(recipe(folder)), held_out=held_out(), names=names
    )
    print({name: {k: round(v, 3) for k, v in m.items()} for name, m in done.measures.items()})
    return done, folder / "run"


def test_quality_rises_at_every_stage_and_ends_above_imitation_alone(whole: tuple[TrainingRun, Path]) -> None:
    done, folder = whole
    augmenter = load_policy(folder / "augmenter")
    imitating = AugmentedPolicy(load_policy(folder / "stages" / "01-imitate"), augmenter)
    final = AugmentedPolicy(load_policy(folder), augmenter)
    stages = [start()(), AugmentedPolicy(start()(), augmenter), imitating, final]
    found = [sampled(policy, n=12) for policy in stages]
    print("quality", [round(float(some.mean()), 3) for some in found])
    assert all(after.mean() > before.mean() + 0.05 for before, after in pairwise(found))
    assert effect(found[3], found[2]) >= 0.3
    told = [done.measures[name]["reward"] for name in ("plain start", "start", "after imitate", "after prefer")]
    assert told[-1] > told[0] + 0.3, "the run's own probes say so, too"


def test_the_augmenter_makes_a_frozen_policy_answer_better_about_the_same_thing(
    whole: tuple[TrainingRun, Path],
) -> None:
    frozen, augmenter = start()(), load_policy(whole[1] / "augmenter")
    both = AugmentedPolicy(frozen, augmenter, max_new_tokens=6)
    before = frozen.weights_hash()
    found = effect(sampled(both), sampled(frozen))
    print(f"complement: {found:.2f} sd")
    assert found >= 0.3 and frozen.weights_hash() == before
    prompts = [asked(thing) for thing in THINGS]
    kept = [
        after[0].content.startswith(prompt[0].content)
        and [word for word in after[0].content.split() if word in THINGS] == [thing_of(prompt)]
        for prompt, after in zip(prompts, both.augmented(prompts))
    ]
    assert np.mean(kept) >= 0.98


def test_the_filter_keeps_the_complements_that_help() -> None:
    kept = worth_it(complements(), start()(), QUALITY, answers=8, max_new_tokens=8)
    good = [WANTED[THINGS[thing_of(record.prompt)]] in record.responses[0].text for record in kept]
    print(f"{len(kept)} of {len(complements())} kept, of these {np.mean(good):.2f} good")
    assert np.mean(good) > 0.7
    assert len(kept) + sum(kept.account.dropped.values()) == len(complements())


# Packing.


def flat_gradient(policy: LocalPolicy, loss: torch.Tensor) -> torch.Tensor:
    policy.model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def samples() -> list[Group]:
    draw = torch.Generator().manual_seed(0)

    def ids(n: int) -> list[int]:
        return torch.randint(5, 261, (n,), generator=draw).tolist()

    return [Group(ids(p), [ids(r)]) for p, r in ((5, 9), (12, 2), (3, 20), (8, 6))]


def packed_gradient(policy: LocalPolicy) -> torch.Tensor:
    """The gradient of the mean negative log-likelihood per token of the samples, packed by the engine."""
    return flat_gradient(policy, -policy.engine(samples()).tokens.mean())


def plain_gradient(policy: LocalPolicy, rows: list[list[Group]]) -> torch.Tensor:
    """The same by ordinary forward passes, one a row; samples of one row stand behind each other as one text."""
    found = []
    for row in rows:
        ids, places = [], []
        for one in row:
            places += range(len(ids) + len(one.prompt), len(ids) + one.tokens)
            ids += [*one.prompt, *one.responses[0]]
        logps = policy.engine.bare(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        found += [logps[place - 1, ids[place]] for place in places]
    return flat_gradient(policy, -torch.stack(found).mean())


def test_the_gradient_of_a_packed_batch_is_that_of_its_samples_one_by_one() -> None:
    policy = byte_policy(0)
    packed, alone = packed_gradient(policy), plain_gradient(policy, [[one] for one in samples()])
    assert policy.engine.shared, "packed into one row"
    assert (packed - alone).abs().max() < 1e-6 and alone.abs().max() > 1e-2


def test_attention_that_leaks_across_samples_gives_another_gradient() -> None:
    policy = byte_policy(0)
    leaked, packed = plain_gradient(policy, [samples()]), packed_gradient(policy)
    assert (leaked - packed).abs().max() > 1e-3


def test_a_mean_of_means_would_give_short_samples_another_weight() -> None:
    policy = byte_policy(0)
    each = torch.stack([plain_gradient(policy, [[one]]) for one in samples()])
    assert (each.mean(0) - packed_gradient(policy)).abs().max() > 1e-3


# Merging.


def test_a_merge_of_two_specialists_keeps_most_of_what_each_gained(tmp_path: Path) -> None:
    """One learned the domains of things, the other their tones."""
    draw, shown = random.Random(3), Judgment("demonstration", (0,))

    def rows(domain_right: bool) -> Records:
        made = []
        for thing in SOME * 4:
            domain, tone = THINGS[thing], WANTED[THINGS[thing]]
            text = (
                answer(domain, draw.choice(list(CLOSINGS)))
                if domain_right
                else answer(domain if draw.random() < 0.7 else draw.choice(DOMAINS), tone)
            )
            made.append(Record(asked(thing), (Response.of(text),), (shown,)))
        return Records.of(made)

    names = Names({"domains": rows(True), "tones": rows(False)})
    sft = {"objective": "sft", "begin": "start"}
    plan = [{"name": part, "records": part, **sft} for part in ("domains", "tones")]
    plan.append({"name": "both", "merge": {"domains": 0.4, "tones": 0.6}})
    options = {"loop": "stages", "loop.plan": plan, "output_dir": str(tmp_path), "save_strategy": "no"}
    options |= {"learning_rate": 2e-3, "num_train_epochs": 8, "per_device_train_batch_size": 16}
    done = run_loop(start()(), demonstrations(), TrainingConfig.of(options), names=names)

    def parts(policy: LocalPolicy) -> np.ndarray:
        prompts = [asked(thing) for thing in SOME]
        drawn = policy.generate(prompts, n=12, max_new_tokens=8, seed=5)
        texts = [(THINGS[thing_of(p)], c.text.split()) for p, row in zip(prompts, drawn) for c in row]
        return np.array(
            [
                np.mean([domain in t for domain, t in texts]),
                np.mean([CLOSINGS[WANTED[d]] in t for d, t in texts]),
            ]
        )

    before, merged = parts(start()()), parts(done.policy)
    one, other = (parts(load_policy(tmp_path / "stages" / name)) for name in ("01-domains", "02-tones"))
    gains = (one - before)[0], (other - before)[1]
    kept = (merged - before) / gains
    print(f"before {before}, specialists {one} {other}, merged {merged}: kept {kept}")
    assert min(gains) > 0.2 and min(kept) >= 0.8
