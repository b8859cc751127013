"""Proof of S030, Janus: many system messages per instruction teach a policy to obey combinations it never saw, and
answers to other system messages are negatives that no judge had to label.

The policy reads the words of its system message (a linear map from words to the log-odds of four attributes), so that
what it learns of one wording or combination may or may not carry over to others.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from accordance.core.errors import ConfigError
from accordance.core.objective import PairLogps, UnaryLogps
from accordance.core.record import Record, Records, user
from accordance.core.views import pairs as pairs_of_records
from accordance.curation.janus import HIERARCHY, Multifaceted, combinations
from accordance.feedback.synthesis import synthesize
from accordance.lab import world
from accordance.lab.assistants import LabWriter
from accordance.objectives import get_objective

#: preference -> (attribute, level).
MEANS = {
    "formal": (0, 1), "playful": (0, 0), "detailed": (1, 1), "brief": (1, 0),
    "polite": (2, 1), "blunt": (2, 0), "careful": (3, 1), "decided": (3, 0),
}  # fmt: skip
ATTRIBUTES = ("formality", "elaboration", "politeness", "hedging")
#: Wordings of the test, none of which stands in the hierarchy.
UNSEEN = {
    "formal": "Stay formal throughout.", "playful": "Keep it playful, will you.", "brief": "Short and brief, thanks.",
    "detailed": "Every detail counts here.", "polite": "Polite words only.", "blunt": "Drop the politeness.",
    "careful": "Say if you are sure.", "decided": "No hedging.",
}  # fmt: skip
IMITATE, PREFER, BETA = 250, 60, 2.0
EVERY = combinations(HIERARCHY)
TRAIN = random.Random(0).sample(EVERY, round(0.4 * len(EVERY)))
TEST = [some for some in EVERY if some not in TRAIN]


def words(text: str) -> set[str]:
    return {word.strip(".,:").rstrip("s") for word in text.casefold().split()}


VOCABULARY = sorted({w for d in HIERARCHY.values() for ws in d.values() for text in ws for w in words(text)})


def features(text: str) -> Tensor:
    said = words(text)
    return torch.tensor([1.0, *(float(word in said) for word in VOCABULARY)], dtype=torch.float64)


def levels(prompt: str, text: str) -> Tensor:
    found = world.attributes(prompt, text)
    return torch.tensor(
        [float(found[a] > (0.25 if a == "hedging" else 0.5)) for a in ATTRIBUTES], dtype=torch.float64
    )


class Reader(nn.Module):
    """P(each attribute is high) from the words of the system message."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(1 + len(VOCABULARY), 4, dtype=torch.float64))

    def forward(self, told: Tensor, said: Tensor) -> Tensor:
        """Log-probability of responses with levels `said` [n, 4] under system messages `told` [n, V]."""
        return logsigmoid((told @ self.weights) * (2 * said - 1)).sum(-1)


@cache
def made(allowed: str, sets: int = 3, plain: float = 0.1) -> Records:
    rng = random.Random(1)
    asked = list(dict.fromkeys(world.sample_prompt(rng, rng.choice(["fact", "sum"])) for _ in range(900)))[:260]
    prompts = Records.of([Record(user(p), id=str(i)) for i, p in enumerate(asked)])
    some = {"varied": TRAIN, "uniform": TRAIN[:1] * 3}[allowed]
    writer = LabWriter(obedience=0.9, manner={"fluency": 1.0, "relevance": 1.0})
    return synthesize(Multifaceted(writer, allowed=some, sets=sets, plain=plain), prompts, block=100)


def told_of(record: Record) -> Tensor:
    return features(record.prompt[0].content if record.prompt[0].role == "system" else "")


def rows(records: Records, which: int) -> tuple[Tensor, Tensor]:
    some = [r for r in records if len(r.responses) > which]
    said = [levels(r.prompt_text, r.responses[which].text) for r in some]
    return torch.stack([told_of(r) for r in some]), torch.stack(said)


def fit(policy: Reader, loss, steps: int) -> Reader:
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return policy


@cache
def trained(kind: str) -> Reader:
    policy, sft = Reader(), get_objective("sft")
    told, said = rows(made("uniform" if kind == "uniform" else "varied"), 0)
    fit(policy, lambda: sft(UnaryLogps(policy(told, said), torch.ones(len(said)))).mean(), IMITATE)
    if kind != "dpo":
        return policy
    told, chosen = (t[[len(r.responses) > 1 for r in made("varied")]] for t in (told, said))
    _, rejected = rows(made("varied"), 1)
    ref, dpo, ones = trained("varied"), get_objective("dpo", beta=BETA), torch.ones(len(told))

    def loss() -> Tensor:
        logps = [p(told, x) for p in (policy, ref) for x in (chosen, rejected)]
        return dpo(PairLogps(logps[0], logps[1], ones, ones, logps[2].detach(), logps[3].detach())).mean()

    return fit(policy, loss, PREFER)


def obeyed(policy: Reader, unseen_words: bool = True) -> float:
    """Share of attributes obeyed by sampled answers, over combinations that were never trained on (exact)."""
    shares = []
    for some in TEST:
        wordings = [UNSEEN[p] if unseen_words else HIERARCHY[d][p][0] for d, p in some.items()]
        high = torch.sigmoid(features(" ".join(wordings)) @ policy.weights).detach()
        shares += [
            high[a].item() if level else 1 - high[a].item() for a, level in (MEANS[p] for p in some.values())
        ]
    return float(np.mean(shares))


def test_varied_system_messages_are_obeyed_in_combinations_and_wordings_never_seen_and_a_uniform_one_is_not():
    assert obeyed(trained("varied")) >= 0.8
    assert abs(obeyed(trained("uniform")) - 0.5) <= 0.05


def test_mismatched_answers_add_obedience_on_top_of_imitation():
    assert obeyed(trained("dpo")) >= obeyed(trained("varied")) + 0.03
    # With the wordings of the training imitation is near the writer's own obedience; nothing is lost there.
    assert obeyed(trained("dpo"), unseen_words=False) >= obeyed(trained("varied"), unseen_words=False) - 0.01


def test_plain_prompts_keep_what_they_had():
    """Without a system message the policy answers like the plain rows, within 0.1 for each attribute."""
    told, said = rows(made("varied", plain=1.0), 0)
    plain = told[:, 1:].sum(1) == 0
    policy = Reader()
    fit(policy, lambda: -policy(told, said).mean(), 120)
    high = torch.sigmoid(features("") @ policy.weights).detach()
    assert (high - said[plain].mean(0)).abs().max() < 0.1


def test_a_conditional_reward_ranks_matched_above_mismatched_and_is_lost_without_the_system_message():
    pairs = [r for r in made("varied") if len(r.responses) == 2]
    train, test = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]

    def batch(records, blind=False):
        told = torch.stack([features("") if blind else told_of(r) for r in records])
        return told, *(
            torch.stack([levels(r.prompt_text, r.responses[k].text) for r in records]) for k in (0, 1)
        )

    reward = Reader()  # r(system, response) = the same bilinear form
    told, chosen, rejected = batch(train)
    fit(reward, lambda: -logsigmoid(reward(told, chosen) - reward(told, rejected)).mean(), 100)

    def accuracy(blind: bool) -> float:
        told, chosen, rejected = batch(test, blind)
        differ = (chosen != rejected).any(1)
        gap = (reward(told, chosen) - reward(told, rejected))[differ]
        return ((gap > 0).double() + 0.5 * (gap == 0).double()).mean().item()

    assert accuracy(blind=False) >= 0.9 and abs(accuracy(blind=True) - 0.5) <= 0.08


def test_every_instruction_comes_under_several_messages_with_the_rejected_answer_for_the_same_one():
    records = made("varied")
    by: dict[str, list[Record]] = {}
    for r in records:
        by.setdefault(r.extras["instruction"], []).append(r)
    assert all(len({r.prompt_text for r in group}) == 1 for group in by.values())
    for group in by.values():
        pairs = [r for r in group if len(r.responses) == 2]
        assert len({str(r.extras["preferences"]) for r in pairs}) == len(pairs) <= 3
        messages = {r.prompt[0].content: r.responses[0].text for r in pairs}
        for r in pairs:
            other = messages.get(r.extras["rejected_system"])
            assert other is None or other == r.responses[1].text
    assert all(p.chosen == p.record.responses[0] for p in pairs_of_records(records))
    assert records.account.notes["rows without a system message"] > 0
    assert records.account.kept == len(records)
    with pytest.raises(ConfigError):
        Multifaceted(LabWriter(), sets=1)
