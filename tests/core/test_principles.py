"""Principles: read, written, negated, found for a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.principles import Principle, PrincipleSet

HONEST = Principle(
    "honest", "Say what is true.", "People rely on it.", "Say what pleases.", "true fact really", 2.0
)
KIND = Principle("kind", "Be kind.")
SAFE = Principle("safe", "Refuse to harm.", trigger="weapon poison")
ALL = PrincipleSet([HONEST, KIND, SAFE], "ours")


@pytest.mark.parametrize("name", ["spec.yaml", "spec.json"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    ALL.save(tmp_path / name)
    assert list(PrincipleSet.read(tmp_path / name)) == list(ALL)


def test_reasons_can_be_left_out_of_the_text() -> None:
    assert ALL.text().startswith("1. Say what is true. People rely on it.\n2. Be kind.")
    assert ALL.text(reasons=False).startswith("1. Say what is true.\n")
    assert ALL.rules().text() == ALL.text(reasons=False)


def test_a_set_is_negated_only_where_all_have_an_opposite() -> None:
    opposite = PrincipleSet([HONEST]).negated()[0]
    assert (opposite.text, opposite.negated, opposite.reason) == (HONEST.negated, HONEST.text, "")
    assert PrincipleSet([HONEST]).negated().negated()[0].text == HONEST.text
    with pytest.raises(DataError, match="no negated form"):
        ALL.negated()


def test_those_that_apply_come_with_the_most_relevant_first() -> None:
    assert [one.name for one in ALL.relevant("Is it really TRUE, that fact?")] == ["honest", "kind"]
    assert [one.name for one in ALL.relevant("poison or weapon")] == ["safe", "kind"]
    assert [one.name for one in ALL.relevant("hello")] == ["kind"]
    assert [one.name for one in ALL.relevant("hello poison", 1)] == ["kind"], (
        "half a trigger ties, order decides"
    )


def test_bare_texts_are_rules_named_by_number(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- Be kind.\n- Be brief.\n")
    assert PrincipleSet.read(tmp_path / "a.yaml")["2"].text == "Be brief."
    assert PrincipleSet.of(["Be kind."])[0] == Principle("1", "Be kind.")


def test_what_is_no_principle_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, says in (
        ("- text: a\n  reson: b\n", "did you mean 'reason'"),
        ("- name: a\n", "entry 1"),
        ("a: b\n", "these are no principles"),
        ("- {name: a, text: x}\n- {name: a, text: y}\n", "one name"),
        ("- {text: x, weight: 0}\n", "weight above 0"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            PrincipleSet.read(path)
    with pytest.raises(ConfigError, match="can't be read"):
        PrincipleSet.read(tmp_path / "none.yaml")
    with pytest.raises(KeyError, match="honest"):
        ALL["honset"]
