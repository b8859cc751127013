"""Preflight says what is in the feedback and what training would make of it, in numbers that are counted here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accordance.core.errors import ConfigError, ModelError
from accordance.core.record import Judgment, Message, Record, Records, Response, user
from accordance.core.stats import wilson
from accordance.feedback import load_records, preflight
from accordance.feedback.estimate import estimate
from accordance.feedback.tokens import Lengths


@dataclass
class Group:
    prompt_ids: list[int]
    response_ids: list[list[int]]


class Letters:
    """A tokenizer of one token per character, with an end token."""

    eos_token_id, all_special_ids = 0, [0]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join("<end>" if i == 0 else chr(i) for i in ids)


class Policy:
    """The least that preflight needs: a token per character, and an end token (or not)."""

    tokenizer = Letters()
    num_parameters = 12 * 128**2 * 8  # depth 2, width 256

    def __init__(self, end: bool = True) -> None:
        self.end = [0] if end else []

    def encode(
        self, prompt: Sequence[Message], responses: Sequence[Response], extras: Mapping[str, Any]
    ) -> Group:
        if extras.get("broken"):
            raise ModelError("the template refuses this")
        text = "".join(turn.content for turn in prompt)
        return Group([ord(c) for c in text], [[ord(c) for c in r.text] + self.end for r in responses])


def pair(
    prompt: str,
    first: str,
    second: str,
    *,
    winner: int | None = 0,
    by: str | None = None,
    group: str | None = None,
) -> Record:
    values = (0.0, 0.0) if winner is None else (float(winner == 0), float(winner == 1))
    judgment = Judgment("comparison", (0, 1), values, annotator=by, group=group)
    return Record(
        user(prompt), (Response.of(first), Response.of(second)), (judgment,), origin=f"{prompt}:{first}"
    )


def values(*records: Record, **options: Any) -> dict[str, Any]:
    return preflight(Records.of(records), **options).values


def test_people_groups_and_kinds_are_counted() -> None:
    found = values(
        pair("a", "x", "yy", by="ann", group="north"),
        pair("b", "x", "yy", by="bob", group="south"),
        pair("c", "x", "yy", by="ann", group="north"),
        Record(user("d"), (Response.of("x"),), (Judgment("thumb", (0,), (1.0,)),)),
    )
    assert found["judgments"] == {"comparison": 3, "thumb": 1}
    assert (found["annotators"], found["groups"], found["pairs"]) == (2, 2, 3)


def test_duplicates_identical_and_empty_responses_and_ties_are_counted_and_warned_of() -> None:
    report = preflight(
        Records.of(
            [
                pair("a", "x", "y"),
                pair("a", "x", "y"),
                pair("a", "y", "x", winner=1),  # the same responses, shown the other way round
                pair("b", "z", "z"),
                pair("c", "", "z", winner=1),
                pair("d", "x", "y", winner=None),
            ]
        )
    )
    found = report.values
    assert found["duplicates"] == 2
    assert found["identical_responses"] == found["empty_responses"] == found["ties"] == 1
    assert any("a:x" in warning for warning in report.warnings) and any("b:z" in w for w in report.warnings)


def test_only_ties_is_a_warning_of_its_own() -> None:
    report = preflight(Records.of([pair("a", "x", "y", winner=None)]), objective_kind="pair")
    assert report.values["usable"] == 0
    assert any("every comparison is a tie" in warning for warning in report.warnings)
    assert any("nothing a pair objective can learn from" in warning for warning in report.warnings)


def test_contradictions_of_one_person_and_between_people_are_told_apart() -> None:
    found = values(
        pair("a", "x", "y", by="ann"), pair("a", "y", "x", by="ann"),
        pair("b", "x", "y", by="ann"), pair("b", "x", "y", winner=1, by="bob"),
        pair("c", "x", "y"), pair("c", "y", "x"),
        pair("d", "x", "y", by="ann"), pair("d", "y", "x", winner=1, by="bob"),  # they agree
    )  # fmt: skip
    assert found["contradictions_same"] == 1
    assert found["contradictions_between"] == 2


def test_a_planted_length_and_position_bias_is_found_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    records = []
    for n in range(400):
        longer_first = bool(rng.random() < 0.5)
        longer_wins, first_wins = rng.random() < 0.8, rng.random() < 0.5
        first, second = ("long " * 4, "short") if longer_first else ("short", "long " * 4)
        winner = int(longer_first != longer_wins)
        if n % 2:  # half the judges only look at the position
            winner = int(not first_wins)
        records.append(pair(str(n), first, second, winner=winner))
    report = preflight(Records.of(records))
    wins = [r.judgments[0].values[0] > r.judgments[0].values[1] for r in records]
    longer = sum((len(r.responses[0].text) > 5) == win for r, win in zip(records, wins))
    assert report.values["longer_preferred_ci95"] == pytest.approx(list(wilson(longer, 400).bounds))
    assert report.values["longer_preferred_ci95"][0] > 0.5
    assert report.values["first_preferred"] == pytest.approx(sum(wins) / 400)
    assert any("length bias: the longer" in warning for warning in report.warnings)


def test_a_position_bias_is_warned_of_but_not_made_up_where_the_order_is_unknown() -> None:
    shown = [pair(str(n), "x", "y", winner=int(n % 10 == 0)) for n in range(60)]
    report = preflight(Records.of(shown))
    assert report.values["first_preferred"] == pytest.approx(0.9)
    assert any("position bias" in warning for warning in report.warnings)
    unknown = preflight(load_records([{"prompt": "a", "chosen": "x", "rejected": "y"}] * 40))
    assert unknown.values["first_preferred"] is None
    assert not any("position bias" in warning for warning in unknown.warnings)


def test_what_was_dropped_is_in_the_report() -> None:
    rows = [{"prompt": "a", "chosen": "x", "rejected": "y"}, {"prompt": "a", "chosen": "", "rejected": "y"}]
    report = preflight(load_records(rows))
    assert (report.values["records_read"], report.values["records_kept"], report.values["records_dropped"]) == (
        2,
        1,
        1,
    )
    assert report.values["records"]["dropped"] == {"empty 'chosen'": 1}
    assert any(
        "1 of 2 rows could not be used (empty 'chosen': memory:2)" in warning for warning in report.warnings
    )


def test_tokens_are_counted_and_what_max_length_cuts_is_said_before() -> None:
    records = [pair("p" * 10, "r" * 4, "r" * 9), pair("p" * 20, "r" * 4, "s" * 4), pair("p" * 14, "r", "s")]
    report = preflight(Records.of(records), Policy(), max_length=18)
    found = report.values
    # With the end token: 15 and 20 of the first, the second's prompt has no room, 16 and 16 of the third.
    assert (found["prompts_too_long"], found["responses_cut"], found["tokens_cut"]) == (1, 1, 2)
    assert (found["prompt_tokens_max"], found["response_tokens_max"], found["prompt_tokens_p50"]) == (
        20,
        10,
        14,
    )
    assert any("25 would cut none" in warning for warning in report.warnings)
    whole = preflight(Records.of(records), Policy(), max_length=25)
    assert (whole.values["prompts_too_long"], whole.values["responses_cut"]) == (0, 0)
    assert not any("max_length" in warning for warning in whole.warnings)


def test_prompts_alone_can_be_too_long_too() -> None:
    found = values(Record(user("p" * 9)), policy=Policy(), max_length=9)
    assert found["prompts_too_long"] == 1 and found["responses_cut"] == 0


def test_the_first_record_is_shown_with_its_boundary_and_its_end() -> None:
    report = preflight(Records.of([pair("ask", "yes", "no")]), Policy())
    code = next(block for block in report.blocks if block["kind"] == "code")
    assert "prompt, 3 tokens" in code["body"] and "response 0, 4 tokens" in code["body"]
    assert "'a' 's' 'k' │ 'y' 'e' 's' … 's' '<end>' ■" in code["body"]
    assert report.values["first_record_ends"] is True


def test_responses_without_an_end_token_are_warned_of() -> None:
    report = preflight(Records.of([pair("ask", "yes", "no")]), Policy(end=False))
    assert report.values["first_record_ends"] is False
    assert any("would not learn to stop" in warning for warning in report.warnings)


def test_records_that_cannot_be_encoded_are_counted_unless_it_is_the_first() -> None:
    broken = Record(user("a"), (Response.of("b"),), extras={"broken": True})
    report = preflight(Records.of([pair("ask", "yes", "no"), broken]), Policy())
    assert report.values["unencoded"] == 1
    assert any("1 records can't be encoded: the template refuses this" in w for w in report.warnings)
    with pytest.raises(ModelError):
        preflight(Records.of([broken]), Policy())


def test_lengths_count_a_prompt_once_per_group() -> None:
    lengths = Lengths(Records.of([pair("pp", "r", "rrr"), Record(user("ppp"))]), Policy())
    assert lengths.groups.tolist() == [2 + 2 + 4, 3]
    assert lengths.totals.tolist() == [4, 6]


def test_the_forecast_follows_its_formula() -> None:
    guess = estimate(Policy.num_parameters, longest=10, tokens=1000)
    assert guess.weights == 16 * Policy.num_parameters
    assert guess.activations == pytest.approx(17 * 4 * 256 * 2 * 10)
    assert guess.seconds == pytest.approx(8 * Policy.num_parameters * 1000 / (0.5 * guess.speed))
    assert guess.speed > 1e8


def test_a_stream_is_looked_at_in_part_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # The name of the module is also that of its function, which the package shows.
    monkeypatch.setattr(sys.modules["accordance.feedback.preflight"], "STREAM", 3)
    rows = [{"prompt": str(n), "chosen": "x", "rejected": "y"} for n in range(9)]
    report = preflight(load_records(rows, streaming=True))
    assert report.values["pairs"] == 3
    assert any("only the first 3" in warning for warning in report.warnings)


def test_options_without_effect_and_unknown_kinds_are_refused() -> None:
    records = Records.of([pair("a", "x", "y")])
    with pytest.raises(ConfigError, match="no effect without a policy"):
        preflight(records, max_length=5)
    with pytest.raises(ConfigError, match="did you mean 'pair'"):
        preflight(records, objective_kind="pairs")
    with pytest.raises(ConfigError, match="too small"):
        preflight(records, Policy(), max_length=0)


def test_the_report_prints_and_saves_with_emoji_and_right_to_left_text(tmp_path: Path) -> None:
    records = load_records([{"prompt": "مرحبا 👩‍🔬", "chosen": "نعم", "rejected": "לא 🙂"}] * 2)
    report = preflight(records, Policy(), max_length=100, objective_kind="pair")
    report.print()
    _, page = report.save(tmp_path)
    assert "مرحبا 👩‍🔬" in page.read_text(encoding="utf-8")


def test_no_records_at_all_is_a_report_not_a_crash() -> None:
    records = load_records([{"prompt": "a", "chosen": "", "rejected": "y"}])
    report = preflight(records, Policy(), max_length=5, objective_kind="pair")
    assert any("every row was dropped" in warning for warning in report.warnings)
