"""Proof of S022, WildFeedback: what users complain of in conversations teaches what they want, and nobody else does.

Users of a small-world chat have hidden wishes that depend on what they ask about. A tabular writer of sixteen manners
answers three questions in a row; where a wish is not met the user complains (in several wordings, and one complaint
in ten has no reason). Pairs mined from the logs train the writer: SFT, then DPO.
"""

from __future__ import annotations

import itertools
import random
from functools import cache

import numpy as np
import pytest
import torch

from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Message, Record, Records
from accordance.core.views import pairs
from accordance.feedback.reactions import AskedDetector, Moment, RuleDetector, satisfaction
from accordance.feedback.synthesis import synthesize
from accordance.feedback.wild import CHECKLIST, WildFeedback, signal_weights, wish_list
from accordance.lab import world
from accordance.lab.assistants import LabCritic, LabJudge, LabUser, LabWriter
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_objective

KINDS = ("fact", "howto", "sum")
WISHES = {
    "fact": {"correctness": 1.0, "elaboration": 0.0},
    "howto": {"politeness": 1.0, "elaboration": 1.0},
    "sum": {"correctness": 1.0, "formality": 0.0},
}
AXES = ("politeness", "correctness", "elaboration", "formality")
MANNERS = list(itertools.product((0.0, 1.0), repeat=4))
USERS = {
    kind: LabUser(wishes=wishes, spurious=0.1, silent=0.2, kinds=[kind]) for kind, wishes in WISHES.items()
}
#: A judge of no user's taste in particular: it likes what is formal and long.
GENERIC = {"formality": 2.0, "elaboration": 2.0, "correctness": 1.0}


def manner(prompt: str, text: str) -> int:
    found = world.attributes(prompt, text)
    return min(range(16), key=lambda k: sum(abs(found[a] - v) for a, v in zip(AXES, MANNERS[k])))


@cache
def logs(n: int = 700) -> tuple[Records, list[dict[int, object]]]:
    """Conversations of three questions, and for each the answers that were complained of, with the true cause."""
    rng, records, causes = random.Random(0), [], []
    for number in range(n):
        turns, complaints = [], {}
        for _ in range(3):
            kind = rng.choice(KINDS)
            asked = world.sample_prompt(rng, kind)
            answer = world.write(asked, rng, **dict(zip(AXES, rng.choice(MANNERS))), relevance=1.0)
            said, cause = USERS[kind].reacts(asked, answer, rng)
            turns += [Message("user", asked), Message("assistant", answer), Message("user", said)]
            complaints[len(turns) - 2] = cause
        records.append(Record(tuple(_joined(turns)), id=str(number)))
        causes.append(complaints)
    return Records.of(records, source="logs"), causes


def _joined(turns: list[Message]) -> list[Message]:
    """Between a reaction and the next question the assistant says a word, so that roles alternate."""
    made = []
    for turn in turns:
        if made and made[-1].role == turn.role == "user":
            made.append(Message("assistant", "I see."))
        made.append(turn)
    return made


class Mine(WildFeedback):
    """Looks at reactions to answers, not at the next question after the assistant's word."""

    def moments(self, record):
        return [m for m in super().moments(record) if m.answer.content != "I see."]


class OffByOne(Mine):
    """Takes a reaction for one to the answer before the one that drew it."""

    def moments(self, record):
        found = super().moments(record)
        return [Moment(a.context, a.answer, b.reaction, a.turn) for a, b in itertools.pairwise(found)]


def mined(method=Mine, judge: bool = True) -> Records:
    checklist = PolicyJudge(LabJudge(noise=0.1)) if judge else None
    expert = LabWriter(skill={"relevance": 1.0}, name="expert")
    return synthesize(method(LabCritic(knowledge=0.95), expert, checklist), logs()[0], block=300)


def test_reactions_are_told_apart_on_wordings_never_seen():
    satisfied = [
        "Cheers mate, that did it!",
        "Ah, now I get it.",
        "Excellent, spot on.",
        "I learned something today.",
        "You are so helpful, I am grateful.",
        "Haha, I love this.",
        "Ok, that works for me.",
        "Much better now.",
        "Nice one!",
        "That clears it up, thank you.",
    ]
    dissatisfied = [
        "Are you mistaken? The sum is false.",
        "This is useless to me.",
        "You forgot half of my question.",
        "Could you rewrite it in simpler words?",
        "I asked for a list, not a story.",
        "That makes no sense.",
        "Too vague. Elaborate on the second step.",
        "Your tone is awful.",
        "The capital you named is not right.",
        "Make it sound less stiff, so stiff I fall asleep.",
    ]
    neither = [
        "What colour is the zorbin?",
        "And how do I bake bread?",
        "My sister lives in the next town.",
        "How much is 3 plus 4?",
        "Tell me a story about a dragon.",
        "Is there a train in the evening?",
        "Which one has more legs?",
        "Next question: who wrote the song?",
        "Now the same for cats.",
        "Then let us talk about tea.",
    ]
    truth = [1] * 10 + [-1] * 10 + [0] * 10
    some = [Moment((), Message("assistant", "x"), text, 1) for text in satisfied + dissatisfied + neither]
    found = [satisfaction(labels or ()) for labels in RuleDetector().labels(some)]
    assert macro_f1(truth, found) >= 0.85


def macro_f1(truth, found):
    scores = []
    for side in (1, -1, 0):
        hit = sum(t == f == side for t, f in zip(truth, found))
        scores.append(2 * hit / max(1, truth.count(side) + found.count(side)))
    return np.mean(scores)


@pytest.mark.parametrize("detector", [RuleDetector(), AskedDetector(LabCritic(knowledge=0.95))])
def test_complaints_are_found_and_laid_to_the_answer_that_drew_them(detector):
    records, causes = logs()
    truth, found, places = [], [], []
    for record, cause in zip(records, causes):
        at = [i for i, m in enumerate(record.prompt) if m.role == "assistant" and m.content != "I see."]
        by_place = dict(zip(at, cause.values()))
        some = Mine(LabCritic(), LabWriter(), None).moments(record)
        for moment, labels in zip(some, detector.labels(some)):
            cause_here = by_place[moment.turn]
            truth.append(0 if cause_here is None else 1 if cause_here is True else -1)
            found.append(satisfaction(labels or ()))
            if truth[-1] == -1 and found[-1] == -1:
                asked = moment.context[-1].content
                text, user = moment.answer.content, USERS[world.parse(asked).kind]
                places.append(cause_here in user.violated(asked, text) or not user.violated(asked, text))
    assert macro_f1(truth, found) >= 0.85 and np.mean(places) >= 0.95


def test_wishes_are_recovered_as_they_were_hidden():
    hit = named = there = 0
    tally: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for record in mined(judge=False):
        counts = tally[world.parse(record.prompt[-1].content).kind]
        for wish in record.extras["wishes"]:
            counts[wish] = counts.get(wish, 0) + 1
    for kind, counts in tally.items():
        hidden = {f"The answer should have {'more' if v else 'less'} {a}." for a, v in WISHES[kind].items()}
        found = {wish for wish, many in counts.items() if many >= 0.1 * sum(counts.values())}
        hit, named, there = hit + len(found & hidden), named + len(found), there + len(hidden)
    assert 2 * hit / (named + there) >= 0.8


def satisfied(policy: TabularPolicy) -> float:
    """Share of answers that break no wish of those who ask, exactly."""
    good = torch.tensor(
        [[all(dict(zip(AXES, m)).get(a, v) == v for a, v in WISHES[k].items()) for m in MANNERS] for k in KINDS]
    )
    return policy.expected(good.double()).mean().item()


def trained(rows: list[tuple[int, int, int]]) -> float:
    """SFT on the chosen, then DPO on the pairs; (kind, chosen manner, rejected manner)."""
    prompt, chosen, rejected = (torch.tensor(column) for column in zip(*[r for r in rows if r[1] != r[2]]))
    policy = TabularPolicy(torch.zeros(3, 16, dtype=torch.float64))
    sft, dpo = get_objective("sft"), get_objective("dpo", beta=0.3)
    descend(policy, lambda: sft(policy.single(prompt, chosen)).mean(), steps=20, learning_rate=0.1)
    ref = policy.frozen()
    descend(
        policy, lambda: dpo(policy.pairs(prompt, chosen, rejected, ref=ref)).mean(), steps=60, learning_rate=0.1
    )
    return satisfied(policy)


def rows_of(records: Records) -> list[tuple[int, int, int]]:
    rows = []
    for pair in pairs(records):
        asked = pair.prompt[-1].content
        kind = KINDS.index(world.parse(asked).kind)
        rows.append((kind, manner(asked, pair.chosen.text), manner(asked, pair.rejected.text)))
    return rows


def generic_rows(n: int) -> list[tuple[int, int, int]]:
    """The same number of pairs, chosen by a judge of generic taste among answers of the writer."""
    rng, judge = random.Random(1), PolicyJudge(LabJudge(taste=GENERIC))
    kinds = [rng.choice(KINDS) for _ in range(n)]
    asked = [world.sample_prompt(rng, kind) for kind in kinds]
    a, b = ([world.write(p, rng, **dict(zip(AXES, rng.choice(MANNERS)))) for p in asked] for _ in range(2))
    wins = judge.compare(asked, a, b)
    return [
        (KINDS.index(k), manner(p, x if v.winner == 1 else y), manner(p, y if v.winner == 1 else x))
        for k, p, x, y, v in zip(kinds, asked, a, b, wins)
        if v.winner
    ]


def test_training_on_mined_pairs_meets_wishes_more_often_than_the_start_and_than_a_generic_judge():
    found = rows_of(mined())
    start = satisfied(TabularPolicy(torch.zeros(3, 16, dtype=torch.float64)))
    wild, generic = trained(found), trained(generic_rows(len(found)))
    assert wild >= start + 0.15 and wild >= generic + 0.08
    # A reaction laid to the wrong answer teaches the wishes of those who asked something else.
    off = trained(rows_of(mined(OffByOne)))
    assert off < wild - 0.1


def test_the_checklist_judge_agrees_with_the_hidden_wishes_and_a_generic_judge_does_not():
    rng = random.Random(2)
    rows = []
    for _ in range(400):
        kind = rng.choice(KINDS)
        asked = world.sample_prompt(rng, kind)
        a, b = (world.write(asked, rng, **dict(zip(AXES, rng.choice(MANNERS)))) for _ in range(2))
        gap = len(USERS[kind].violated(asked, b)) - len(USERS[kind].violated(asked, a))
        if gap:
            wishes = [f"The answer should have {'more' if v else 'less'} {n}." for n, v in WISHES[kind].items()]
            rows.append((asked, a, b, gap > 0, wish_list(wishes)))
    asked, a, b, first, notes = map(list, zip(*rows))
    checklist = PolicyJudge(LabJudge(noise=0.3)).compare(asked, a, b, rubric=CHECKLIST, notes=notes)
    generic = PolicyJudge(LabJudge(taste=GENERIC, noise=0.3)).compare(asked, a, b)

    def agrees(verdicts):
        return np.mean([(v.winner == 1) == f and v.winner != 0 for v, f in zip(verdicts, first)])

    assert agrees(checklist) >= 0.85 and agrees(generic) <= 0.7


def test_the_mined_records_hide_the_wishes_from_the_prompt_and_leave_the_reaction_out():
    records = mined()
    for record in list(records)[:50]:
        text = " ".join(m.content for m in record.prompt)
        assert (
            len(record.prompt) == record.extras["turn"]
            and record.extras["reaction"] != record.prompt[-1].content
        )
        assert not any(wish in text for wish in record.extras["wishes"])
        assert record.prompt[-1].role == "user" and record.extras["provenance"]["labels"].startswith(
            "the user's"
        )
    assert records.account.dropped["the user was content"] > 0
    # Told the wishes, the expert meets them: few of its answers fail the checklist.
    failed = records.account.dropped["the checklist judge does not favour the chosen answer"]
    assert 0 < failed < 0.25 * (len(records) + failed)
    content = WildFeedback(LabCritic(), LabWriter(), None, keep_content=True)
    both = signal_weights(synthesize(content, logs()[0].select(range(60))))
    assert set(both) == {"comparison", "thumb"} and both["comparison"] < both["thumb"]
