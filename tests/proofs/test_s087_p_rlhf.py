"""Proof of S087, P-RLHF: with users' embeddings the same pairs align a model with people who disagree.

Two worlds. A table whose logits are shared values plus a user's embedding times features of the responses, and two
groups of users with opposite taste on one feature: it learns where plain DPO, and its own generic user, can't tell the
groups apart, and loses nothing where they agree. Everybody begins with the first group's taste, so that the generic
user is on nobody's side only if it learns by a term of its own. And a small language model, told ids alone, that
answers one group of people at length and the other in few words.
"""

from __future__ import annotations

import random
from functools import cache
from tempfile import mkdtemp

import torch
from tests.tiny_words import pretrained, word_tokenizer
from torch import Tensor, nn

from accordance.core.objective import PairLogps
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.models import LocalPolicy, Users
from accordance.objectives import get_objective
from accordance.training import TrainingConfig, train
from accordance.training.users import kind_weights

PROMPTS, RESPONSES, WIDTH, PEOPLE, PAIRS, BETA, ALPHA = 10, 16, 4, 10, 600, 0.5, 0.5


class PersonalTable(nn.Module):
    """Logits over responses: a table that all share, plus a user's embedding times the responses' features."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features  # [prompts, responses, width]
        self.logits = nn.Parameter(torch.zeros(PROMPTS, RESPONSES))
        self.users = Users([f"user {i}" for i in range(PEOPLE)], torch.zeros(1, WIDTH), 0)
        with torch.no_grad():
            self.users.own[..., 0] += 1.0

    def log_probs(self, who: Tensor) -> Tensor:
        """Log-probability of every response to every prompt for some users, 0 the generic one, [n, P, R]."""
        return (self.logits + torch.einsum("nd,prd->npr", self.users(who), self.features)).log_softmax(-1)

    def pairs(self, prompt: Tensor, chosen: Tensor, rejected: Tensor, who: Tensor | None) -> PairLogps:
        """Pairs as a bundle; nobody's user tokens at all for None. The reference is uniform."""
        table = self.logits.log_softmax(-1)[prompt] if who is None else None
        rows = self.log_probs(who)[torch.arange(len(prompt)), prompt] if who is not None else table
        reference, ones = torch.full((len(prompt),), -torch.tensor(RESPONSES).log()), torch.ones(len(prompt))
        own = [rows.gather(1, side[:, None])[:, 0] for side in (chosen, rejected)]
        return PairLogps(*own, ones, ones, reference, reference)


def taste(features: Tensor, group: Tensor) -> Tensor:
    """How good each response is to people of each group, [n, P, R]: alike on one feature, opposite on another."""
    sign = torch.where(group == 0, 1.0, -1.0)
    return 0.5 * features[None, ..., 1] + sign[:, None, None] * 3.0 * features[None, ..., 0]


def world(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prompt, the two responses, and who judges, for some comparisons."""
    draw = torch.Generator().manual_seed(seed)
    prompt = torch.randint(PROMPTS, (count,), generator=draw)
    first = torch.randint(RESPONSES, (count,), generator=draw)
    second = (first + torch.randint(1, RESPONSES, (count,), generator=draw)) % RESPONSES
    return prompt, first, second, torch.randint(PEOPLE, (count,), generator=draw)


def sides(features: Tensor, group: Tensor, prompt: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """How much better the first response is to people of these groups, [n]."""
    rows = taste(features, group)[torch.arange(len(prompt)), prompt]
    return rows.gather(1, first[:, None])[:, 0] - rows.gather(1, second[:, None])[:, 0]


@cache
def tables() -> dict[str, dict[str, float]]:
    """Held-out accuracy of DPO, of P-DPO and of its generic user.

    Where the groups disagree: in the eyes of whoever asks, and of the first group alone (``first``), which whoever is
    on nobody's side is right about half of the time; where they agree; and that of the person served worst.
    """
    runs: list[dict[str, dict[str, float]]] = [_one(seed) for seed in range(5)]
    return {
        kind: {who: sum(run[kind][who] for run in runs) / len(runs) for who in runs[0][kind]}
        for kind in runs[0]
    }


def _one(seed: int) -> dict[str, dict[str, float]]:
    features = torch.randn(PROMPTS, RESPONSES, WIDTH, generator=torch.Generator().manual_seed(100 + seed))
    prompt, first, second, who = world(seed, PAIRS)
    group = who % 2  # every other person
    sure = torch.sigmoid(sides(features, group, prompt, first, second))
    said = torch.rand(PAIRS, generator=torch.Generator().manual_seed(50 + seed)) < sure
    chosen, rejected = torch.where(said, first, second), torch.where(said, second, first)
    dpo, table, plain = get_objective("dpo", beta=BETA), PersonalTable(features), PersonalTable(features)

    individual = [True] * PAIRS + [False] * PAIRS
    weights = torch.tensor(kind_weights(individual, ALPHA))
    both = [torch.cat([side, side]) for side in (prompt, chosen, rejected)]
    asking = torch.cat([who + 1, torch.zeros_like(who)])
    for model, asked, counted in (
        (table, (*both, asking), weights),
        (plain, (prompt, chosen, rejected, None), 1.0),
    ):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            (counted * dpo(model.pairs(*asked))).mean().backward()
            optimizer.step()

    test = world(1000 + seed, 4000)
    own, other = (sides(features, g, *test[:3]) for g in (test[3] % 2, 1 - test[3] % 2))
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        bundles = {
            "dpo": plain.pairs(*test[:3], None),
            "personal": table.pairs(*test[:3], test[3] + 1),
            "generic": table.pairs(*test[:3], torch.zeros_like(test[3])),
        }
    for kind, mask in (("disagree", own * other < 0), ("agree", own * other > 0)):
        right = {name: ((b.chosen > b.rejected) == (own > 0))[mask] for name, b in bundles.items()}
        found[kind] = {name: float(values.float().mean()) for name, values in right.items()}
        if kind == "disagree":
            side = sides(features, torch.zeros_like(test[3]), *test[:3]) > 0
            found["first"] = {
                name: float(((b.chosen > b.rejected) == side)[mask].float().mean())
                for name, b in bundles.items()
            }
            each = [right["personal"][test[3][mask] == i].float().mean() for i in range(PEOPLE)]
            found["worst"] = {"personal": float(min(each))}
    return found


def test_users_embeddings_tell_groups_apart_that_plain_dpo_can_not():
    found, worst = tables()["disagree"], tables()["worst"]["personal"]
    print("where the groups disagree:", found, "worst served:", worst)
    assert found["personal"] > 0.80 and worst > 0.70
    assert 0.45 < found["dpo"] < 0.56 and 0.45 < found["generic"] < 0.56


def test_the_generic_user_is_on_nobodys_side():
    found = tables()["first"]
    print("for the first group, where the groups disagree:", found)
    assert 0.45 < found["dpo"] < 0.56 and 0.45 < found["generic"] < 0.56


def test_where_the_groups_agree_nothing_is_lost():
    found = tables()["agree"]
    print("where the groups agree:", found)
    assert found["personal"] >= found["dpo"] and found["generic"] >= found["dpo"]
    assert found["generic"] > 0.60  # untrained, it is right about half of them


TOPICS, SAID, LONGEST = [f"t{i}" for i in range(4)], [f"w{i}" for i in range(8)], 16


def answer(draw: random.Random) -> str:
    """Words, at every one an equal chance to end."""
    words = [draw.choice(SAID)]
    while len(words) < LONGEST and draw.random() > 0.2:
        words.append(draw.choice(SAID))
    return " ".join(words)


@cache
def people() -> Records:
    """Comparisons by eight people, of whom four like short answers and four long ones; nothing else is said of them."""
    draw, made = random.Random(1), []
    while len(made) < 480:
        texts, number = (answer(draw), answer(draw)), len(made) % 8
        sizes = [len(text.split()) for text in texts]
        if sizes[0] == sizes[1]:
            continue
        short = 0 if sizes[0] < sizes[1] else 1
        liked = short if number < 4 else 1 - short
        judgment = Judgment(
            "comparison", (0, 1), (float(liked == 0), float(liked == 1)), annotator=f"p{number}"
        )
        made.append(
            Record(user(draw.choice(TOPICS)), tuple(map(Response.of, texts)), (judgment,), id=str(len(made)))
        )
    return Records.of(made)


@cache
def base():
    draw = random.Random(0)
    texts = [f"user : {topic} assistant : {' '.join(SAID)}" for topic in TOPICS]

    def batch() -> list[str]:
        return [f"user : {draw.choice(TOPICS)} assistant : {answer(draw)}" for _ in range(32)]

    return pretrained(word_tokenizer(texts), batch, steps=150, rate=4e-3, hidden=32)


@cache
def trained(**options) -> LocalPolicy:
    fixed = {"learning_rate": 3e-4, "num_train_epochs": 4, "per_device_train_batch_size": 64, "beta": 0.5}
    quiet = {"save_strategy": "no", "use_cpu": True, "logging_steps": 1000, "output_dir": mkdtemp()}
    config = TrainingConfig.of(fixed | quiet | {"warmup_steps": 0} | options)
    return train(base()(), people(), config, progress=lambda *_: None).policy


PERSONAL = {"users": "annotator", "user_tokens": 2, "auxiliary_learning_rate": 1e-2}


def length(policy: LocalPolicy) -> float:
    """Mean number of words of sampled answers."""
    made = policy.generate(TOPICS, n=50, max_new_tokens=LONGEST + 1, seed=5)
    return sum(len(c.text.split()) for row in made for c in row) / (50 * len(TOPICS))


def test_a_model_told_ids_alone_answers_each_group_at_the_length_it_likes():
    policy = trained(**PERSONAL)
    each = {name: length(policy.for_user(name)) for name in policy.users.names}
    short, long = (sum(each[f"p{i}"] for i in some) / 4 for some in (range(4), range(4, 8)))
    generic, plain, before = length(policy.for_user(None)), length(trained()), length(base()())
    print("each", each, "generic", generic, "dpo", plain, "before", before)
    assert long > 1.3 * short
    assert max(each[f"p{i}"] for i in range(4)) < min(each[f"p{i}"] for i in range(4, 8))
    assert short < generic < long and short < plain < long
