"""Partial orders from judgments by criterion, norms and agreement: the command, the router, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.feedback import save_records
from accordance.feedback.criteria_report import criteria_report
from accordance.feedback.norms import Norm, Role, RoutedPolicy, agree
from accordance.feedback.partial_orders import PartialOrder, fit_attention, fit_partial_order
from tests.app.conftest import Accord


def judged(n: int = 80) -> Records:
    """Two groups that weigh two criteria oppositely; the first shown is not always response 0."""
    g, made = np.random.default_rng(0), []
    for i in range(n):
        marks, group = g.choice([-1, 1], 2), "ab"[i % 2]
        overall = marks[0] if group == "a" else marks[1]
        shown = (0, 1) if g.random() < 0.5 else (1, 0)
        way = 1 if shown == (0, 1) else -1

        def said(
            gap: int, name: str | None, shown: tuple = shown, way: int = way, group: str = group
        ) -> Judgment:
            gap = gap * way
            return Judgment(
                "comparison", shown, (float(gap > 0), float(gap < 0)), None, f"p{group}", group, name
            )

        many = [said(overall, None), said(marks[0], "clear"), said(marks[1], "kind")]
        if i < 8:
            many[0] = Judgment("incomparable", shown, (), None, f"p{group}", group)
        made.append(Record(user(f"q{i}"), (Response.of("x"), Response.of("y")), tuple(many), str(i)))
    return Records.of(made)


def test_the_report_finds_each_groups_weights_whatever_the_order_shown() -> None:
    values = criteria_report(judged()).values
    assert values["cannot_compare"] == pytest.approx(0.1) and values["pairs"] == 80
    assert values["weights"]["a"]["clear"] > 0.8 and values["weights"]["b"]["kind"] > 0.8
    assert 0.3 < values["groups_disagree"] < 0.7, "where the criteria point apart"
    with pytest.raises(DataError, match="comparisons enough"):
        criteria_report(judged(), least=50)
    with pytest.raises(DataError, match="both overall and by a criterion"):
        criteria_report(Records.of([Record(user("q"), (Response.of("x"), Response.of("y")))]))


def test_the_commands(accord: Accord, tmp_path: Path) -> None:
    file = str(save_records(judged(), tmp_path / "said.jsonl"))
    found = accord.json("ask", "criteria", "--records", file, "--output-dir", str(tmp_path / "out"))
    assert set(found["weights"]) == {"a", "b"} and (tmp_path / "out" / "criteria.html").exists()
    norms = tmp_path / "norms.json"
    norms.write_text(json.dumps({"acceptance": {"x": {"a": 0.9, "b": 0.3}, "y": {"a": 0.6, "b": 0.5}},
                                 "disagreement": {"a": 0.2, "b": 0.2}, "sizes": {"a": 7, "b": 3}}))  # fmt: skip
    made = accord.json("ask", "agree", str(norms))
    assert (made["chosen"], made["by_mean"], made["by_worst"]) == ("y", "x", "y")
    assert accord("ask", "agree", str(norms)).exit_code == 0
    norms.write_text('{"acceptance": {}}')
    assert "missing" in accord.error("ask", "agree", str(norms))["problem"]


def test_agreements_that_can_not_be() -> None:
    with pytest.raises(DataError, match="better for everybody"):
        agree({"x": {"a": 0.1, "b": 0.9}}, {"a": 0.5, "b": 0.5})
    with pytest.raises(DataError, match="some degree"):
        agree({"x": {"a": 0.1}}, {"a": 0.5, "b": 0.5})
    with pytest.raises(DataError, match="nothing to agree"):
        agree({}, {"a": 0.5})


def test_roles_defer_where_everything_is_prohibited() -> None:
    role = Role((Norm("never", "prohibition", lambda s, o: False, when=lambda s: s == "here"),))
    assert role.decide("here", ["x"], [1.0]).chosen is None
    assert role.decide("there", ["x", "y"], [1.0, 2.0]).chosen == 1, "a norm that does not apply binds nobody"
    with pytest.raises(ConfigError, match="one name"):
        Role((*role.norms, *role.norms))
    with pytest.raises(ConfigError, match="requirement with a priority"):
        Norm("x", "prohibition", lambda s, o: True, priority=1)
    with pytest.raises(DataError, match="quality each"):
        role.decide("here", [], [])


class Says:
    def __init__(self, word: str) -> None:
        self.name, self.calls = word, 0

    def generate(self, prompts: Sequence[Any], *, n: int = 1, **options: Any) -> list[list[Completion]]:
        self.calls += 1
        return [[Completion(f"{self.name}: {prompt}")] * n for prompt in prompts]


def test_each_prompt_goes_to_its_own_policy_and_comes_back_in_place() -> None:
    both = {"a": Says("A"), "b": Says("B")}
    policy = RoutedPolicy(both, lambda prompt: str(prompt)[0])
    made = policy.generate(["b1", "a1", "b2"], n=2)
    assert [row[0].text for row in made] == ["B: b1", "A: a1", "B: b2"] and len(made[0]) == 2
    assert both["b"].calls == 1
    with pytest.raises(ConfigError, match="no such policy"):
        policy.generate(["c"])


def test_orders_refuse_what_they_can_not_use() -> None:
    with pytest.raises(DataError, match="finite"):
        PartialOrder(np.array([[np.nan]]))
    with pytest.raises(DataError, match="too few"):
        fit_partial_order(np.ones((3, 2)), np.ones(3), ["a", "a", "b"])
    with pytest.raises(ConfigError, match="10 criteria"):
        fit_attention(np.ones((3, 11)), np.ones(3))


@pytest.fixture
def accord() -> Accord:
    return Accord()
