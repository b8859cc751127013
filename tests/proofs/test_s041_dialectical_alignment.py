"""Proof of S041, Dialectical Alignment: strategies chosen by AI feedback give data from which a policy learns when to
doubt its context, and still takes genuine updates.

A scripted reader remembers 80 % of 400 made-up facts and does what a strategy tells it; the longer the reasoning, the
more often it slips. A judge that is given the answer rates it. The policy that learns chooses among its memory, what
most passages say, and what another one says, by linear features of what it can see: how many passages agree with its
memory and with each other, how many are implausible beside what else it knows, and whether they bear a new date. It is
tested on facts that it never saw.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from accordance.core.errors import ConfigError
from accordance.core.judge import Rating
from accordance.core.objective import PairLogps, UnaryLogps
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Account, Message, Record, Records
from accordance.core.views import demonstrations, pairs
from accordance.curation.dialectical import (
    ANSWER,
    REASONING,
    STRATEGIES,
    Defence,
    DialecticalAlignment,
    Fact,
    defence,
    evidence_cases,
    states,
)
from accordance.curation.synthesis import Parts, make_method
from accordance.feedback.synthesis import synthesize
from accordance.lab.assistants import LabJudge
from accordance.lab.assistants.base import Scripted
from accordance.lab.scenes.evidence import Evidence, told
from accordance.lab.tabular import descend
from accordance.objectives import get_objective

BETA, PREFER = 1.0, 20
K, RHOS = 4, (0.0, 0.25, 0.5, 0.75, 1.0)
SLIPS = {"trust memory": 0.0, "compare sources": 0.12, "dialectical": 0.08}
NEW, ODD = "As of the new date,", "odd"
USES_MEMORY = {"trust memory", "dialectical"}


def _fact(number: int) -> Fact:
    rng = random.Random(number)
    answer, wrong, other, new = (f"v{number}{letter}" for letter in "abcd")

    def passage(value: str, k: int, odd: float, start: str = "") -> str:
        mark = f" ({ODD})" if rng.random() < odd else ""
        return f"{start} source {k} says that entity {number} has {value}{mark}.".strip()

    return Fact(
        f"What has entity {number}?",
        answer,
        answer if rng.random() < 0.8 else other,
        tuple(passage(answer, k, 0.1) for k in range(K)),
        wrong,
        tuple(passage(wrong, k, 0.7) for k in range(K)),
        new,
        tuple(passage(new, k, 1.0, NEW) for k in range(K)),
    )


FACTS = [_fact(number) for number in range(400)]
MEMORY = {fact.question: fact.memory for fact in FACTS}


def seen(prompt: str) -> tuple[str, list[str], list[bool], bool]:
    """What stands in a prompt, beside the memory it wakes: memory, values, implausible or not, dated or not."""
    question = prompt.rsplit("Question: ", 1)[1]
    found = re.findall(r"has (v\w+)( \(odd\))?", prompt)
    return MEMORY[question], [value for value, _ in found], [bool(odd) for _, odd in found], NEW in prompt


class ScriptedReader(Scripted):
    """Answers as a strategy in the system message tells it."""

    role = "reader"

    def reply(self, messages: tuple[Message, ...], rng: random.Random) -> str:
        name = next(name for name, text in STRATEGIES.items() if text == messages[0].content)
        memory, values, odd, dated = seen(messages[-1].content)
        votes: dict[str, float] = defaultdict(float)
        if name == "trust memory" or not values:
            votes[memory] += 1
        elif name == "trust the context":
            votes[rng.choice(values)] += 1
        else:
            for value, strange in zip(values, odd):
                votes[value] += 0.5 if strange and name == "dialectical" and not dated else 1
            votes[memory] += 2.5 if name == "dialectical" else 0
        top = max(votes.values())
        answer = rng.choice([value for value in votes if votes[value] == top])
        if rng.random() < SLIPS.get(name, 0):
            answer = "v-nothing"
        looked = {"trust memory": 0, "trust the context": 1}.get(name, len(values))
        return f"I looked at {looked} passages.\nANSWER: {answer}"


class ScriptedJudge:
    """A judge that reads the answer from the notes, and takes reasoning for the sounder the more it looks at."""

    name = "judge"

    def rate(self, prompts, completions, *, rubric=None, notes=()) -> list[Rating]:
        if rubric == ANSWER:
            answers = [note.removeprefix("The right answer: ") for note in notes]
            return [Rating(10.0 if states(t, a) else 1.0) for t, a in zip(completions, answers, strict=True)]
        assert rubric == REASONING
        return [Rating(1.0 + int(re.findall(r"looked at (\d)", text)[0])) for text in completions]


def cases(kind: str, facts: tuple[int, int]) -> Records:
    return evidence_cases(FACTS[slice(*facts)], passages=K, ratios=RHOS, edits=float(kind != "poison only"))


@cache
def made(kind: str) -> tuple[DialecticalAlignment, Records]:
    method = DialecticalAlignment(ScriptedReader(), ScriptedJudge(), dev=0.4)  # pyright: ignore
    return method, synthesize(method, cases(kind, (0, 250)), block=200)


class Policy(nn.Module):
    """A softmax over memory, what most passages say, and what another passage says, linear in what can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(6, 3, dtype=torch.float64))

    def forward(self, given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Log-probability [n] of values, from features [n, 6], allowed actions [n, 3], those that say it [n, 3]."""
        features, allowed, says = given
        logits = (features @ self.weights).masked_fill(~allowed, -torch.inf)
        return logits.masked_fill(~says, -torch.inf).logsumexp(-1) - logits.logsumexp(-1)


def options(prompt: str) -> tuple[list[str], list[float]]:
    """The values that actions say, and the features."""
    memory, values, odd, dated = seen(prompt)
    ranked = [value for value, _ in Counter(values).most_common()]
    says = [memory, *ranked[:2]]
    top = Counter(values).most_common(1)[0][1] / K if values else 0.0
    cues = [1.0, values.count(memory) / K, top, sum(odd) / K, float(dated), float(not values)]
    return says, cues


def batch(prompts: list[str], texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    rows = []
    for prompt, text in zip(prompts, texts, strict=True):
        says, cues = options(prompt)
        allowed = [k < len(says) for k in range(3)]
        rows.append((cues, allowed, [k < len(says) and states(text, says[k]) for k in range(3)]))
    features, allowed, chosen = zip(*rows)
    return torch.tensor(features, dtype=torch.float64), torch.tensor(allowed), torch.tensor(chosen)


def imitated(prompts: list[str], texts: list[str]) -> Policy:
    policy, sft, given = Policy(), get_objective("sft"), batch(prompts, texts)
    ones = torch.ones(len(prompts))
    descend(policy, lambda: sft(UnaryLogps(policy(given), ones)).mean(), steps=80, learning_rate=0.3)
    return policy


@cache
def shown(kind: str) -> Policy:
    """What SFT makes of the demonstrations."""
    some = list(demonstrations(made(kind)[1]))
    return imitated([d.record.prompt_text for d in some], [d.response.text for d in some])


@cache
def trained(kind: str) -> Policy:
    """SFT, then DPO with it as the reference."""
    records, ref = made(kind)[1], shown(kind)
    policy, dpo = deepcopy(ref), get_objective("dpo", beta=BETA)
    some = list(pairs(records))
    prompts = [pair.record.prompt_text for pair in some]
    high, low = (batch(prompts, [getattr(p, side).text for p in some]) for side in ("chosen", "rejected"))
    ones = torch.ones(len(some))

    def loss() -> Tensor:
        return dpo(
            PairLogps(policy(high), policy(low), ones, ones, ref(high).detach(), ref(low).detach())
        ).mean()

    descend(policy, loss, steps=PREFER, learning_rate=0.05)
    return policy


@cache
def baseline() -> Policy:
    """Imitation of answers that copy what most passages say."""
    prompts = [record.prompt_text for record in cases("all", (0, 250))]
    says = [options(prompt)[0] for prompt in prompts]
    return imitated(prompts, [some[1] if len(some) > 1 else some[0] for some in says])


@cache
def scores(which: Callable[[], Policy] | str) -> Defence:
    policy = trained(which) if isinstance(which, str) else which()
    test, texts = cases("all", (250, 400)), []
    for record in test:
        says, cues = options(record.prompt_text)
        logits = (torch.tensor(cues, dtype=torch.float64) @ policy.weights)[: len(says)]
        texts.append(says[int(logits.argmax())])
    return defence(test, texts)


def test_feedback_chooses_the_majority_where_poison_is_rare_and_memory_where_it_is_not():
    method = made("all")[0]
    best = {case: names[0] for case, names in method.chosen_.items()}
    assert best["rho 0.25, passages"] == best["rho 0, memory"] == best["rho 0, none"] == "majority"
    assert {best["rho 0.5, passages"], best["rho 0.75, passages"]} <= USES_MEMORY
    assert best["edit"] not in USES_MEMORY and method.chosen_["edit"][1] == "trust memory"


def test_poison_is_withstood_and_updates_and_closed_book_answers_are_kept():
    after, before = scores("all"), scores(baseline)
    for rho in (0.5, 0.75):
        assert after.defended[rho] >= before.defended[rho] + 0.2
    assert (
        min(after.defended.values()) >= 0.75
    )  # rho = 1 too: its passages are implausible; DPO costs rho = 0.25 some
    assert before.edited is not None and before.edited >= 0.95
    assert after.edited is not None and after.edited >= before.edited - 0.05
    assert after.closed_book == before.closed_book


def misled(policy: Policy) -> float:
    """Mean probability of the wrong answer at stake, over unseen facts with half of the passages poisoned or more."""
    hard = [r for r in cases("all", (250, 400)) if (r.extras["rho"] or 0) >= 0.5]
    logps = policy(batch([r.prompt_text for r in hard], [r.extras["wrong"] for r in hard]))
    return float(logps.detach().exp().mean())


def test_pairs_drive_the_poison_out_further_than_demonstrations():
    assert misled(trained("all")) <= misled(shown("all")) - 0.02


def test_without_genuine_updates_among_the_cases_the_policy_turns_to_its_memory():
    whole, poison = scores("all").edited, scores("poison only").edited
    assert whole is not None and poison is not None and poison <= whole - 0.2


def test_records_hold_no_strategy_and_right_answers_against_those_that_follow_the_poison():
    records, method = made("all")[1], made("all")[0]
    assert len(list(pairs(records))) > 200 and len(list(demonstrations(records))) == len(records)
    for record in records:
        assert [message.role for message in record.prompt] == ["user"]
        assert not any(text in record.prompt_text for text in STRATEGIES.values())
        assert states(record.responses[0].text, record.extras["answer"])
        if len(record.responses) > 1:
            assert states(record.responses[1].text, record.extras["wrong"])
    aside = {draft.extras["fact"] for draft in method._dev}
    assert aside and not aside & {record.extras["fact"] for record in records}
    account = records.account
    assert account.read == len(records) + sum(account.dropped.values())


def test_the_strategy_instructions_do_not_warn_of_attacks():
    assert not any(re.search("attack|poison|malicious|deceiv", text) for text in STRATEGIES.values())


class EvidenceReader(Scripted):
    """Answers the lab's questions by the first note, or, told to trust memory, by what is true."""

    role = "evidence reader"

    def reply(self, messages: tuple[Message, ...], rng: random.Random) -> str:
        memory = messages[0].content == STRATEGIES["trust memory"]
        scene, prompt = Evidence(), messages[-1].content
        return scene.compose(prompt, rng, {"misled": float(not memory), "warns": 0.0})  # pyright: ignore


def test_in_the_lab_of_notes_false_ones_are_met_with_memory():
    rated = LabJudge(taste={"correctness": 1.0})
    way = make_method("dialectical", Parts([EvidenceReader()], rated, [], {"seed": 0}), {"dev": 0.3})
    assert isinstance(way, DialecticalAlignment) and isinstance(way.judge, PolicyJudge)
    records = synthesize(way, Evidence().records(200, seed=0))
    assert all(way.chosen_[case][0] == "trust memory" for case in ("false", "conflict", "poisoned"))
    some = list(pairs(records))
    assert len(some) > 50
    for pair in some:
        answer = pair.record.extras["answer"]
        assert states(pair.chosen.text, answer) and not states(pair.rejected.text, answer)
        assert any(states(pair.rejected.text, value) for value in told(pair.record.prompt).values())


def test_a_case_that_none_set_aside_came_in_is_dropped_and_counted():
    few = cases("all", (0, 8))
    records = [Record(r.prompt, id=r.id, extras={**r.extras, "case": f"own {r.extras['fact']}"}) for r in few]
    made = synthesize(DialecticalAlignment(ScriptedReader(), ScriptedJudge()), Records.of(records))  # pyright: ignore
    assert len(made) == 0 and made.account.dropped["no fact set aside came in its case"] > 0


def test_its_cost_is_not_exceeded():
    reader = ScriptedReader()
    method, asked = DialecticalAlignment(reader, ScriptedJudge()), cases("all", (0, 20))  # pyright: ignore
    costs = method.cost(method.drafts(asked, Account()))
    synthesize(method, asked)
    assert 0 < reader.answered <= sum(cost.calls for cost in costs if cost.who == reader.name)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError):
        evidence_cases(FACTS[:2], ratios=(0.3,))
    with pytest.raises(ConfigError):
        evidence_cases(FACTS[:2], passages=5, ratios=(0.0,))
    with pytest.raises(ConfigError):
        DialecticalAlignment(ScriptedReader(), ScriptedJudge(), dev=1.0)  # pyright: ignore
    with pytest.raises(ConfigError):
        defence(cases("all", (0, 2)), ["v"])
