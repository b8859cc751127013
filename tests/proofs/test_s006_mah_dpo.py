"""Proof of S006, MAH-DPO: heads serve goals that conflict, their blend serves the worst-off better than one head does.

A tiny Llama, trained here from scratch on answers of mixed quality, learns from pairs on three attributes: facts about
what was asked, politeness, shortness, of which facts and shortness conflict and shortness has the fewest pairs. One
head on all the pairs, at equal steps, follows the many. What is told is the share of wins over the model before.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from accordance.core.policy import Policy
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.inference import Boundary, GuidedPolicy
from accordance.models import Heads, LocalPolicy, heads_of
from accordance.training import TrainingConfig, train

TOPICS = [f"t{i}" for i in range(4)]
FACTS, POLITE, FILLER = [f"f{i}" for i in range(12)], ["please", "thanks", "kindly"], ["um", "well", "so", "hm"]
WORDS = ["<pad>", "<end>", "<user>", "<assistant>", *TOPICS, *FACTS, *POLITE, *FILLER]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}{% if m['role'] == 'assistant' %} <end>"
    "{% else %} {% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
PAIRS = {"helpful": 600, "polite": 400, "short": 200}
LONGEST = 16


def right(topic: str) -> set[str]:
    return set(FACTS[3 * int(topic[1:]) : 3 * int(topic[1:]) + 3])


def helpful(topic: str, answer: str) -> float:
    """Different facts about the topic, less half of those about another."""
    said = set(answer.split())
    return len(said & right(topic)) - 0.5 * len((said & set(FACTS)) - right(topic))


def polite(topic: str, answer: str) -> float:
    said = answer.split()
    return sum(word in POLITE for word in said) / max(len(said), 1)


def short(topic: str, answer: str) -> float:
    return -len(answer.split())


ATTRIBUTES = {"helpful": helpful, "polite": polite, "short": short}


def mixed(topic: str, draw: random.Random) -> str:
    """An answer of mixed quality."""
    said: list[str] = []
    while len(said) < LONGEST and not (said and draw.random() < 0.15):
        share = draw.random()
        kinds = ((0.35, sorted(right(topic))), (0.5, FACTS), (0.7, POLITE), (1.0, FILLER))
        said.append(draw.choice(next(words for most, words in kinds if share < most)))
    return " ".join(said)


@cache
def words() -> Any:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="um"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    made.chat_template = TEMPLATE
    return made


@cache
def before() -> Any:
    """A model that answers as `mixed` does."""
    torch.manual_seed(0)
    draw, steps = random.Random(0), 150
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes, **ids, tie_word_embeddings=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        asked = [draw.choice(TOPICS) for _ in range(48)]
        texts = [f"<user> {topic} <assistant> {mixed(topic, draw)} <end>" for topic in asked]
        batch = words()(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        labels[:, :3] = -100
        optimizer.zero_grad()
        model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def start() -> LocalPolicy:
    return LocalPolicy(copy.deepcopy(before()), words(), name="before")


@cache
def pairs() -> Records:
    draw, made = random.Random(1), []
    for name in (name for name, size in PAIRS.items() for _ in range(size)):
        first = second = 0.0
        while first == second:
            topic = draw.choice(TOPICS)
            texts = mixed(topic, draw), mixed(topic, draw)
            first, second = (ATTRIBUTES[name](topic, text) for text in texts)
        values = float(first > second), float(second > first)
        judgment = Judgment("comparison", (0, 1), values, attribute=name)
        made.append(Record(user(topic), tuple(map(Response.of, texts)), (judgment,), id=str(len(made))))
    return Records.of(made)


def learn(some: Records, **options: Any) -> LocalPolicy:
    fixed = {"learning_rate": 2e-3, "num_train_epochs": 3, "per_device_train_batch_size": 60, "beta": 0.5}
    quiet = {"save_strategy": "no", "use_cpu": True, "logging_steps": 1000, "output_dir": mkdtemp()}
    config = TrainingConfig.of(fixed | quiet | {"warmup_steps": 0} | options)
    return train(start(), some, config, progress=lambda *_: None).policy


@cache
def headed() -> LocalPolicy:
    return learn(pairs(), heads="attribute")


@cache
def union() -> LocalPolicy:
    """One head on all the pairs, as if they were all of one kind."""
    alike = [replace(r, judgments=tuple(replace(j, attribute=None) for j in r.judgments)) for r in pairs()]
    return learn(Records.of(alike))


@cache
def balanced() -> LocalPolicy:
    """One head, with a loss of its own for each attribute: the weights of the heads' run, without the heads."""
    return learn(pairs(), balance_over="attribute")


def answers(policy: Policy, seed: int = 5, n: int = 100) -> list[tuple[str, str]]:
    made = policy.generate(TOPICS, n=n, max_new_tokens=LONGEST, seed=seed)
    return [(topic, answer.text) for topic, row in zip(TOPICS, made) for answer in row]


@cache
def yardstick() -> list[tuple[str, str]]:
    return answers(start(), seed=77)


def wins(policy: Policy, against: Sequence[tuple[str, str]] | None = None) -> dict[str, float]:
    """The share of answers that beat the other's by each attribute; ties count half."""
    found = {}
    rows = list(zip(answers(policy), against or yardstick()))
    for name, worth in ATTRIBUTES.items():
        gaps = [worth(*own) - worth(*other) for own, other in rows]
        found[name] = sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)
    return found


def heads() -> Heads:
    found = heads_of(headed().model)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_each_head_serves_its_own_attribute(name):
    with heads().using(name):
        found = wins(headed())
    print(name, found)
    assert found[name] > 0.70 and found[name] == max(found.values())


def test_the_blend_serves_the_worst_attribute_better_than_one_head_on_all_pairs():
    blend, single, equal = wins(headed()), wins(union()), wins(balanced())
    print("blend", blend, "one head", single, "one head, equal weights", equal)
    assert min(blend.values()) > min(single.values()) + 0.05
    assert min(blend.values()) > min(equal.values()) + 0.05
    assert min(blend.values()) > 0.45


def test_weights_between_two_heads_move_both_attributes_monotonically():
    swept = []
    for share in range(6):
        with heads().using({"helpful": share / 5, "short": 1 - share / 5}):
            swept.append(wins(headed()))
    for name, sign in (("helpful", 1), ("short", -1)):
        values = [found[name] for found in swept]
        print(name, values)
        assert sign * spearmanr(range(6), values).statistic > 0.9
        assert sign * (values[-1] - values[0]) > 0.15


def test_steps_chosen_by_the_true_attribute_beat_answers_without_choice():
    def worth(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float | None]:
        return [helpful(prompt, text) for prompt, text in zip(prompts, completions)]

    steps = Boundary(separators=tuple(WORDS[4:]), sentences=False, min_tokens=4)
    scorer = FunctionScorer(worth)
    one, five = (GuidedPolicy(start(), scorer, candidates, steps) for candidates in (1, 5))
    chance, guided = wins(one)["helpful"], wins(five)["helpful"]
    print("n = 1", chance, "n = 5", guided)
    assert guided > chance + 0.15
    assert chance == pytest.approx(0.5, abs=0.07)
