"""MORA as a method of synthesis: what is made of prompts, what is refused, and that a resumed run pays for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from accordance.core.asking import AnswerCache, Asked, Budget
from accordance.core.errors import ConfigError
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Account, Message, Record, Records, user
from accordance.core.requests import Request
from accordance.curation.mora_synthesis import (
    SINGLE,
    TURNS,
    UNREAD,
    AskedRewriter,
    RatedAspect,
    RewardExpansion,
)
from accordance.feedback.synthesis import SPENT, synthesize, total
from accordance.lab.assistants import LabJudge, LabWriter
from accordance.lab.assistants.base import heard
from accordance.lab.assistants.writer import WISH
from accordance.lab.attributes import attributes
from accordance.lab.questions import GREETINGS, questions

QUESTIONS = [f"What is {a} plus {b}?" for a, b in ((7, 5), (2, 3), (4, 9), (6, 6), (8, 1), (3, 3))]


def records(prompts: Sequence[str] = QUESTIONS) -> Records:
    return Records.of(Record(user(prompt), id=prompt) for prompt in prompts)


def method(
    cache: Any = None, budget: Any = None, judge: Any = None, writer: Any = None, **options: Any
) -> RewardExpansion:
    """A writer whose answers are right half of the time, and who is polite only where it is asked to be."""
    writer = writer or LabWriter(obedience=0.5, manner={"politeness": 0.5}, skill={"relevance": 1.0})
    assistant = Asked(judge or LabJudge(), cache=cache, budget=budget)
    how = {"aspects": ["truthfulness", "politeness: towards the user"], "samples": 10} | options
    return RewardExpansion(Asked(writer, cache=cache, budget=budget), PolicyJudge(assistant), assistant, **how)


def test_prompts_are_rewritten_until_they_earn_both_and_the_best_answer_is_best_by_both() -> None:
    account = Account()
    way = method()
    drafts = way.drafts(records(), account)
    way.make(drafts, account)
    assert account.notes["prompts that could earn one kind of reward at most"] == len(QUESTIONS)
    kept = [draft for draft in drafts if draft.dropped is None]
    assert account.notes["prompts that were rewritten"] == len(kept) >= 4
    for draft in kept:
        assert draft.prompt[0].content == f"{draft.extras['rewritten_from']} More politeness please."
        assert draft.extras["active"] == ["truthfulness", "politeness"] and draft.extras["gained"] == [
            "politeness"
        ]
        best, worst = (attributes(draft.prompt, text) for text in draft.texts)
        assert sum(best[a] - worst[a] for a in ("correctness", "politeness")) > 0.5
        assert 0 < draft.judgments[0].strength < 20  # politeness never varied before: its scale is its own
        assert draft.judgments[0].values == (1.0, 0.0) and "rewritten by" in draft.provenance["prompt"]


def test_where_nothing_can_be_gained_prompts_stay_and_are_dropped_with_the_reason() -> None:
    found = synthesize(method(writer=LabWriter(manner={"politeness": 0.5}, obedience=0.0)), records())
    assert len(found) == 0 and found.account.dropped == {SINGLE: len(QUESTIONS)}
    assert found.account.notes["prompts whose last rewrite was refused: no further dimension became active"]


def test_it_costs_no_more_than_it_says_and_nothing_of_a_resumed_run_is_paid_twice(tmp_path: Path) -> None:
    whole = Budget()
    made = synthesize(way := method(AnswerCache(), whole), records(), block=2)
    assert 0 < whole.spent <= total(way.cost(way.drafts(records(), Account())))
    cache, first, second = AnswerCache(tmp_path / "a.db"), Budget(150), Budget()
    stopped = synthesize(method(cache, first), records(), block=2)
    assert (
        len(stopped) == 0 and stopped.account.dropped == {SPENT: len(QUESTIONS)} and not stopped.account.notes
    )
    again = synthesize(method(cache, second), records(), block=2)
    assert again.fingerprint() == made.fingerprint() and again.account.notes == made.account.notes
    assert first.spent + second.spent == whole.spent


def test_several_turns_are_dropped_and_ratings_that_can_not_be_read_are_counted() -> None:
    account, turns = Account(), (Message("system", "Be brief."), Message("user", QUESTIONS[0]))
    assert method().drafts(Records.of([Record(turns)]), account) == [] and account.dropped == {TURNS: 1}
    judge = PolicyJudge(LabJudge(unreadable=0.5))
    texts = [f"7 plus 5 is {number}." for number in range(20)]
    scores = RatedAspect(judge, "truthfulness", account).score([QUESTIONS[0]] * 20, texts)
    assert 0 < account.notes[UNREAD] < 20 and None not in scores
    unread = PolicyJudge(LabJudge(unreadable=1.0))
    assert RatedAspect(unread, "truthfulness", account).score(QUESTIONS[:1], texts[:1]) == [None]


def test_a_rewrite_is_read_to_its_end_and_is_empty_where_there_is_none() -> None:
    class Says(LabJudge):
        def tasks(self) -> dict[str, Any]:
            return {"expand": lambda request, rng: request.parts["prompt"]}

    texts = ["Well.\nPROMPT: One\ntwo?", "no such line", "PROMPT: one\nPROMPT: two"]
    assert AskedRewriter(Says()).rewrite(texts, [["care"]] * 3, 1) == ["One\ntwo?", "", ""]


@pytest.mark.parametrize(
    "options",
    [{"aspects": ["care"]}, {"aspects": ["care", "care: of people"]}, {"aspects": ["care", ""]}, {"samples": 1},
     {"tries": 0}, {"similar": 1.5}, {"temperature": 0.0}],
)  # fmt: skip
def test_what_can_not_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        method(**options)


def test_the_lab_rates_one_aspect_alone_and_knows_what_it_is_called() -> None:
    rated = {
        name: RatedAspect(PolicyJudge(LabJudge()), name, Account()) for name in ("truthfulness", "politeness")
    }
    texts = ["You are welcome to ask. 7 plus 5 is 13.", "Stop wasting my time. 7 plus 5 is 12."]
    one, two = (scorer.score([QUESTIONS[0]] * 2, texts) for scorer in rated.values())
    assert one[0] < one[1] and two[0] >= two[1]
    asked = Request("expand", "", {"prompt": QUESTIONS[0], "missing": "harmlessness, charm"})
    assert LabJudge().generate([asked.messages()])[0][0].text == f"PROMPT: {QUESTIONS[0]} Less harm please."


def test_the_lab_writer_hears_a_wish_in_a_prompt_and_no_question_of_its_world_is_one() -> None:
    prompt = f"{QUESTIONS[0]} More politeness and less hedging please."
    for row in LabWriter().generate([prompt], n=8)[0]:
        found = attributes(prompt, row.text)
        assert (found["politeness"] == 1.0 and found["hedging"] == 0.0) or found["fluency"] < 0.5
    assert heard(" ".join(WISH.findall(prompt))) == {"politeness": 1.0, "hedging": 0.0}
    said = [q.text for group in questions().values() for q in group] + list(GREETINGS)
    assert not any(WISH.findall(text) for text in said)
