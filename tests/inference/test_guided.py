"""Guided decoding: where steps end, that the best candidate is kept and continued, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Policy
from accordance.core.scorer import FunctionScorer
from accordance.inference import Boundary, GuidedPolicy
from accordance.models import Group
from tests.tiny import policy

SHORT = Boundary(separators=tuple(ascii_letters), sentences=False, min_tokens=3)


def count(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float | None]:
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("It is so.", True),
        ('He said: "yes!" ', True),
        ("First part\n\n", True),
        ("It is so", False),
        ("Do this:\n1.", False),
        ("2)", False),
        ("Well.\n- ", False),
        ("It costs 3.", False),
        ("It costs 3. ", True),
        ("\n\n", False),
    ],
)
def test_a_step_ends_with_a_sentence_or_a_paragraph_but_not_behind_a_list_marker(text: str, ends: bool) -> None:
    assert Boundary()(text, 8) is ends
    assert Boundary()(text, 7) is False
    assert Boundary(sentences=False)(text, 8) is (text == "First part\n\n")


def test_one_candidate_is_the_policy_itself() -> None:
    made = policy()
    plain = made.generate(["sun", "moon"], max_new_tokens=20, temperature=0)
    guided = GuidedPolicy(made, FunctionScorer(count), candidates=1, boundary=SHORT)
    assert isinstance(guided, Policy)
    found = guided.generate(["sun", "moon"], max_new_tokens=20, temperature=0)
    assert [c[0].token_ids for c in found] == [c[0].token_ids for c in plain]
    assert found[0][0].text == plain[0][0].text and len(found[0]) == 1


def test_tokens_and_their_log_probabilities_are_the_policys_across_steps() -> None:
    made = policy()
    guided = GuidedPolicy(made, FunctionScorer(count), candidates=3, boundary=SHORT)
    found = guided.generate(["sun", "moon"], n=2, max_new_tokens=16, seed=1)
    assert [len(row) for row in found] == [2, 2] and found[0][0].token_ids != found[0][1].token_ids
    for name, row in zip(("sun", "moon"), found):
        prompt = made.encoder.encode_many([(_user(name), (), {})])[0].prompt_ids
        for answer in row:
            assert 1 <= len(answer.token_ids) <= 16 and (answer.finished or len(answer.token_ids) == 16)
            whole = made.engine([Group(prompt, [list(answer.token_ids)])]).tokens.tolist()
            assert list(answer.logprobs) == pytest.approx(whole, abs=1e-3)
    assert guided.generate(["sun", "moon"], n=2, max_new_tokens=16, seed=1) == found


def _user(text: str) -> Any:
    from accordance.core.record import user

    return user(text)


def test_the_best_candidate_of_each_step_is_kept_and_written_on() -> None:
    seen: list[list[str]] = []

    def least(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float | None]:
        seen.append(list(completions))
        return [-float(sum(map(ord, text))) for text in completions]

    guided = GuidedPolicy(policy(), FunctionScorer(least), candidates=4, boundary=SHORT)
    (answer,) = guided.generate(["sun"], max_new_tokens=24, seed=2)[0]
    assert len(seen) > 1
    kept = [min(texts, key=lambda text: sum(map(ord, text))) for texts in seen]
    for before, after in zip(kept, seen[1:]):
        assert all(text.startswith(before) for text in after)
    assert answer.text == kept[-1]


def test_of_a_step_scorer_the_newest_step_counts_and_steps_make_up_the_text() -> None:
    class Steps:
        name = "steps"

        def __init__(self) -> None:
            self.calls: list[list[list[str]]] = []

        def score_steps(self, prompts: Any, solutions: Any, **_: Any) -> list[list[float]]:
            self.calls.append([list(steps) for steps in solutions])
            return [[0.9] * (len(steps) - 1) + [1 / (1 + len(steps[-1]))] for steps in solutions]

    judge = Steps()
    (answer,) = GuidedPolicy(policy(), judge, 4, SHORT).generate(["sun"], max_new_tokens=24, seed=2)[0]
    assert [len(call[0]) for call in judge.calls] == list(range(1, len(judge.calls) + 1))
    assert answer.text == "".join(min(judge.calls[-1], key=lambda steps: len(steps[-1])))


@pytest.mark.parametrize("shared", [True, False])
def test_steps_end_at_the_boundary_in_both_ways_of_writing(shared: bool) -> None:
    from accordance.models import LocalPolicy
    from tests.tiny import llama, tokenizer

    made = LocalPolicy(llama(), tokenizer(), shared=shared)
    found = made.sample_ids([[5, 6]], n=8, max_new_tokens=30, stop=lambda ids: ids[-1] % 7 == 0)[0]
    for answer in found:
        first = next((i for i, token in enumerate(answer.token_ids) if token % 7 == 0), None)
        assert first is None or first == len(answer.token_ids) - 1
        assert len(answer.logprobs) == len(answer.token_ids)
    assert any(answer.token_ids[-1] % 7 == 0 and not answer.finished for answer in found)


def test_what_has_no_effect_or_makes_no_sense_is_refused() -> None:
    guided = GuidedPolicy(policy(), FunctionScorer(count))
    with pytest.raises(ConfigError, match="all candidates are the same"):
        guided.generate(["sun"], temperature=0)
    with pytest.raises(ConfigError, match="out of range"):
        guided.generate(["sun"], n=0)
    with pytest.raises(ConfigError, match="one candidate or more"):
        GuidedPolicy(policy(), FunctionScorer(count), candidates=0)
    with pytest.raises(ConfigError, match="end somewhere"):
        Boundary(separators=(), sentences=False)
    one = FunctionScorer(lambda prompts, completions, **_: [0.0], name="one")
    with pytest.raises(DataError, match="one score for each"):
        GuidedPolicy(policy(), one, boundary=SHORT).generate(["sun"], max_new_tokens=8)
    nothing = FunctionScorer(lambda prompts, completions, **_: [None] * len(completions), name="nothing")
    assert GuidedPolicy(policy(), nothing, 2, SHORT).generate(["sun"], max_new_tokens=8)[0][0].token_ids
