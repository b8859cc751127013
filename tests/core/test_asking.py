"""What is asked once is paid for once: the cache, the budget, and failures in the middle."""

from __future__ import annotations

import pytest

from accordance.core.asking import AnswerCache, Asked, Budget, BudgetSpent, PartlyAnswered
from accordance.core.errors import DataError, ModelError
from accordance.core.judge import OptionPolicy
from accordance.core.policy import Completion, Policy


class Counting:
    """Answers with the prompt and how often it was asked; fails once it has seen `fail` prompts."""

    def __init__(self, fail: int | None = None, partly: bool = False, identity: str = "counting") -> None:
        self.name, self.identity, self.asked, self.fail, self.partly = "counting", identity, 0, fail, partly

    def generate(self, prompts, *, n=1, max_new_tokens=256, temperature=1.0, top_p=1.0, seed=0):
        made = {}
        for i, prompt in enumerate(prompts):
            if self.fail is not None and self.asked >= self.fail:
                if self.partly:
                    raise PartlyAnswered("the line went dead", made, where=self.name)
                raise ModelError("the line went dead", where=self.name)
            self.asked += 1
            made[i] = [Completion(f"{prompt} {seed} {k} #{self.asked}", logprobs=(-0.5,)) for k in range(n)]
        return list(made.values())

    def option_logps(self, prompts, options):
        self.asked += len(prompts)
        return [[-float(len(o)) for o in row] for row in options]


PROMPTS = [f"p{i}" for i in range(10)]


def test_what_was_answered_is_remembered_in_another_run_and_costs_nothing(tmp_path):
    first, second = Counting(), Counting()
    one = Asked(first, cache=tmp_path / "answers.db", block=3)
    assert isinstance(one, Policy) and isinstance(one, OptionPolicy)
    answers = one.generate(PROMPTS, n=2, temperature=0.5)
    two = Asked(second, cache=tmp_path / "answers.db")
    assert two.generate(PROMPTS, n=2, temperature=0.5) == answers
    assert (first.asked, second.asked) == (10, 0)
    assert (one.budget.spent, two.budget.spent, two.budget.saved) == (20, 0, 20)


@pytest.mark.parametrize(
    "change", [{"n": 1}, {"seed": 1}, {"temperature": 0.0}, {"max_new_tokens": 9}, {"top_p": 0.9}]
)
def test_any_other_option_is_another_request(change):
    policy = Counting()
    asked = Asked(policy)
    asked.generate(PROMPTS[:1], n=2)
    asked.generate(PROMPTS[:1], **{"n": 2, **change})
    assert policy.asked == 2


def test_another_policy_and_another_prompt_are_other_requests_and_a_prompt_twice_is_two():
    cache, one, two = AnswerCache(), Counting(), Counting(identity="other")
    same = Asked(one, cache=cache).generate(["p", "p"])
    assert one.asked == 2 and same[0] != same[1]
    assert Asked(one, cache=cache).generate(["p", "p"]) == same and one.asked == 2
    Asked(two, cache=cache).generate(["p"])
    assert two.asked == 1


@pytest.mark.parametrize("partly", [False, True])
def test_a_failure_in_mid_run_is_resumed_without_paying_twice(tmp_path, partly):
    broken = Counting(fail=7, partly=partly)
    with pytest.raises(ModelError, match="went dead"):
        Asked(broken, cache=tmp_path / "answers.db", block=4).generate(PROMPTS)
    whole = Counting()
    resumed = Asked(whole, cache=tmp_path / "answers.db", block=4)
    answers = resumed.generate(PROMPTS)
    kept = 7 if partly else 4  # a failed block without partial answers has none to keep
    assert whole.asked == 10 - kept and len(answers) == 10
    assert [c[0].text.split()[0] for c in answers] == PROMPTS


def test_a_budget_is_never_overspent_and_what_was_affordable_is_kept():
    policy, cache, budget = Counting(), AnswerCache(), Budget(7)
    with pytest.raises(BudgetSpent, match="7 calls|6 calls"):
        Asked(policy, cache=cache, budget=budget, block=2).generate(PROMPTS, n=2)
    assert budget.spent == 6 and len(cache) == 3
    Asked(policy, cache=cache, budget=Budget(14)).generate(PROMPTS, n=2)
    assert policy.asked == 10


def test_probabilities_of_options_are_kept_too(tmp_path):
    policy = Counting()
    asked = Asked(policy, cache=tmp_path / "a.db")
    assert asked.option_logps(["p", "q"], [["a", "bb"], ["a", "bb"]]) == [[-1.0, -2.0]] * 2
    assert Asked(policy, cache=tmp_path / "a.db").option_logps(["p"], [["a", "bb"]]) == [[-1.0, -2.0]]
    assert policy.asked == 2


def test_a_policy_that_loses_answers_and_a_file_that_is_no_cache_are_named(tmp_path):
    class Short(Counting):
        def generate(self, prompts, **options):
            return super().generate(prompts, **options)[1:]

    with pytest.raises(ModelError, match="another number"):
        Asked(Short()).generate(PROMPTS)
    (tmp_path / "x.db").write_text("this is no data base, but a text that is long enough to be looked at" * 20)
    with pytest.raises(DataError, match=r"x\.db"):
        AnswerCache(tmp_path / "x.db")
