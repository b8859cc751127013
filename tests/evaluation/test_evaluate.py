"""`evaluate` on policies whose every number is known: the report must give those numbers, and say what it can't."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_fakes import Prefers, Speechless, Table, Wordcount, conversation, pair, tie

from accordance.core.errors import ConfigError, DataError, ModelError, TrainingError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.report import Report
from accordance.core.scorer import FunctionScorer
from accordance.core.stats import proportion, wilson
from accordance.evaluation import evaluate

BEFORE = Table("base", {"good answer": 0.25, "bad answer": 0.25, "a long and winding answer": 0.5})
AFTER = Table("aligned", {"good answer": 0.7, "bad answer": 0.1, "a long and winding answer": 0.2})
PAIRS = Records.of(
    [pair(f"question {i}", "good answer", "bad answer", group="kind", attribute="help") for i in range(30)]
    + [pair(f"query {i}", "bad answer", "good answer", group="cruel", attribute="harm") for i in range(10)]
    + [tie("tied", "good answer", "bad answer")]
)
KEYS = (
    "win_rate",
    "win_rate_ci95",
    "preference_accuracy",
    "preference_accuracy_ci95",
    "kl",
    "chosen_logp_change",
    "rejected_logp_change",
    "length_before",
    "length_after",
    "by_group",
    "records",
)


def test_a_full_evaluation_writes_every_key_that_others_rely_on(tmp_path: Path) -> None:
    evaluate(AFTER, PAIRS, reference=BEFORE, scorer=Wordcount(), output_dir=tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert all(saved[key] is not None for key in KEYS)
    assert saved["records"]["read"] == 41 and saved["records"]["dropped"] == {}
    assert (tmp_path / "report.html").stat().st_size > 10_000
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    assert len(frame) == 41
    assert {"prompt", "before", "after", "score_before", "score_after", "win"} <= set(frame)
    assert {"length_before", "length_after", "logp_after", "ref_logp_after"} <= set(frame)
    assert set(Report.load(tmp_path).values) == set(saved) - {
        "title",
        "summary",
        "warnings",
        "meta",
        "sections",
    }


def test_preference_accuracy_is_the_share_of_pairs_the_implicit_reward_orders_rightly() -> None:
    report = evaluate(AFTER, PAIRS, reference=BEFORE, samples=0)
    assert report.values["preference_accuracy"] == 30 / 40
    assert report.values["preference_accuracy_ci95"] == pytest.approx(wilson(30, 40).bounds)
    by_group = report.values["by_group"]
    assert by_group["kind"]["preference_accuracy"] == 1 and by_group["cruel"]["preference_accuracy"] == 0
    assert by_group["kind"]["preference_accuracy_ci95"] == pytest.approx(wilson(30, 30).bounds)
    assert report.values["by_attribute"]["harm"]["preference_accuracy"] == 0
    assert "1 ties left out" in json.dumps(report.blocks)


def test_changes_of_log_probability_are_those_of_the_tables() -> None:
    kind = PAIRS.select(range(30))
    values = evaluate(AFTER, kind, reference=BEFORE, samples=0).values
    assert values["chosen_logp_change"] == pytest.approx(math.log(0.7 / 0.25))
    assert values["rejected_logp_change"] == pytest.approx(math.log(0.1 / 0.25))
    assert values["margin"] == pytest.approx(math.log(7))
    assert values["chosen_fell"] == 0


def test_a_reward_of_the_policy_alone_is_not_taken_for_the_implicit_reward() -> None:
    # By log pi alone the policy prefers the short answer; against its reference it moved towards the long one.
    policy = Table("p", {"a long and winding answer": 0.3, "short": 0.7})
    reference = Table("r", {"a long and winding answer": 0.1, "short": 0.9})
    records = Records.of([pair(f"q{i}", "a long and winding answer", "short") for i in range(5)])
    values = evaluate(policy, records, reference=reference, samples=0).values
    assert values["preference_accuracy"] == 1 and values["likelihood_accuracy"] == 0
    alone = evaluate(policy, records, samples=0)
    assert alone.values["preference_accuracy"] == 0 and alone.values["preference_accuracy_per_token"] == 1
    assert any("Without a reference" in warning for warning in alone.warnings)
    assert alone.values["chosen_logp_change"] is None


def test_kl_is_that_of_the_tables_within_its_interval_and_has_a_direction() -> None:
    sure = Table("sure", {"good answer": 0.9, "bad answer": 0.05, "a long and winding answer": 0.05})
    records = Records.of([pair(f"q{i}", "good answer", "bad answer") for i in range(50)])
    forwards = evaluate(sure, records, reference=BEFORE, per_prompt=20).values
    backwards = evaluate(BEFORE, records, reference=sure, per_prompt=20).values
    for values, p, q in ((forwards, sure.probs, BEFORE.probs), (backwards, BEFORE.probs, sure.probs)):
        truth = sum(p[text] * math.log(p[text] / q[text]) for text in p)
        assert values["kl_ci95"][0] < truth < values["kl_ci95"][1]
        assert values["kl_ci95"][1] - values["kl_ci95"][0] < 0.25
    assert forwards["kl_ci95"][1] < backwards["kl_ci95"][0]


def test_kl_leaves_out_answers_that_it_can_not_score_and_says_so() -> None:
    after = Table("aligned", AFTER.probs, cut=["bad answer"])
    report = evaluate(after, PAIRS, reference=BEFORE, per_prompt=5)
    assert any("not in the KL" in warning for warning in report.warnings)
    assert report.values["kl"] is not None
    # Tokens sum over the scored answers only.
    assert report.values["kl_per_token"] > 0


def test_win_rate_counts_higher_scores_as_wins_and_equal_ones_as_halves() -> None:
    long = Table("long", {"one two three": 1.0})
    mixed = Table("mixed", {"one": 0.5, "one two three": 0.5})
    records = Records.of([pair(f"q{i}", "one", "one two three") for i in range(60)])
    report = evaluate(long, records, reference=mixed, scorer=Wordcount(), show=60)
    before = pd.DataFrame(next(b for b in report.blocks if b["kind"] == "samples")["rows"])["before"]
    outcomes = [1.0 if text == "one" else 0.5 for text in before]
    assert set(outcomes) == {0.5, 1.0} and report.values["win_rate"] == np.mean(outcomes)
    assert report.values["win_rate_ci95"] == pytest.approx(proportion(outcomes).bounds)
    assert 0.2 < evaluate(mixed, records, reference=long, scorer=Wordcount()).values["win_rate"] < 0.3


def test_a_policy_against_itself_wins_half_and_learned_nothing() -> None:
    report = evaluate(BEFORE, PAIRS, reference=BEFORE, scorer=Wordcount(), per_prompt=10)
    assert report.values["preference_accuracy"] == 0.5 and report.values["kl"] == 0
    low, high = report.values["win_rate_ci95"]
    assert low < 0.5 < high
    assert any("nothing was learned" in warning for warning in report.warnings)
    assert any("includes 50%" in warning for warning in report.warnings)


def test_the_two_sides_are_sampled_independently(tmp_path: Path) -> None:
    evaluate(BEFORE, PAIRS, reference=BEFORE, per_prompt=25, output_dir=tmp_path)
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    # Two independent draws agree with probability 1/16 + 1/16 + 1/4 = 0.375; from one seed they always would.
    assert (frame.before == frame.after).mean() == pytest.approx(0.375, abs=0.06)


def test_a_group_that_loses_while_the_rest_wins_is_a_warning() -> None:
    good, bad = Table("good", {"good answer": 1.0}), Table("bad", {"bad answer": 1.0})
    crowd = {"a": Prefers("good"), "b": Prefers("good"), "c": Prefers("good"), "few": Prefers("bad")}
    report = evaluate(good, PAIRS, reference=bad, scorer=crowd)
    assert any(warning.startswith("few prefer the answers before") for warning in report.warnings)


def test_rows_dropped_on_the_way_are_in_the_report() -> None:
    records = PAIRS.where(lambda record: record.prompt_text != "question 3", "looks odd")
    report = evaluate(AFTER, records, reference=BEFORE, samples=0)
    assert report.values["records"]["dropped"] == {"looks odd": 1} and report.values["records"]["kept"] == 40
    assert "looks odd" in report.to_html()


def test_a_judge_is_shown_both_orders_and_its_bias_is_found_and_cancelled() -> None:
    good, bad = Table("good", {"good answer": 1.0}), Table("bad", {"bad answer": 1.0})
    fair = evaluate(good, PAIRS, reference=bad, scorer=Prefers("good")).values
    biased = evaluate(good, PAIRS, reference=bad, scorer=Prefers("good", first=0.1)).values
    assert fair["win_rate"] == pytest.approx(0.9) and fair["order_inconsistency"] == 0
    assert biased["win_rate"] == pytest.approx(0.9) and biased["first_advantage"] == pytest.approx(0.2)
    blind = evaluate(good, PAIRS, reference=bad, scorer=Prefers("neither", first=0.3))
    assert blind.values["win_rate"] == pytest.approx(0.5) and blind.values["order_inconsistency"] == 1
    assert any("change places" in warning for warning in blind.warnings)


def test_groups_judge_every_answer_and_count_the_same() -> None:
    good, bad = Table("good", {"good answer": 1.0}), Table("bad", {"bad answer": 1.0})
    crowd = {"kind": Prefers("good"), "cruel": Prefers("bad"), "odd": Wordcount()}
    report = evaluate(good, PAIRS, reference=bad, scorer=crowd)
    wins = {name: numbers.get("win_rate") for name, numbers in report.values["by_group"].items()}
    assert wins == pytest.approx({"kind": 0.9, "cruel": 0.1, "odd": 0.5})
    assert report.values["win_rate"] == pytest.approx(0.5)
    assert "order_inconsistency" not in report.values  # one of them is no pair judge


def test_an_overall_scorer_can_stand_beside_its_groups_and_be_scorer_and_judge_at_once() -> None:
    class Both(Prefers, Wordcount):
        name = "both"

    good, bad = Table("good", {"good answer": 1.0}), Table("bad", {"bad long answer": 1.0})
    report = evaluate(good, PAIRS, reference=bad, scorer=Both("good"), by_group={"cruel": Prefers("bad")})
    assert report.values["win_rate"] == pytest.approx(0.9) and report.values["win_rate_by_score"] == 0
    assert report.values["by_group"]["cruel"]["win_rate"] == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="by_group"):
        evaluate(good, PAIRS, reference=bad, by_group={"cruel": Prefers("bad")})


def test_pairs_of_one_prompt_are_not_counted_as_independent() -> None:
    right, wrong = ("good answer", "bad answer"), ("bad answer", "good answer")
    alone = Records.of([pair(f"q{i}", *(right if i % 2 else wrong)) for i in range(40)])
    same = Records.of([pair(f"q{i % 4}", *(right if i % 2 else wrong)) for i in range(40)])
    width = lambda r: np.ptp(evaluate(AFTER, r, reference=BEFORE, samples=0).values["preference_accuracy_ci95"])  # noqa: E731
    assert width(same) > 2 * width(alone)


def test_each_prompt_is_answered_once_and_as_many_as_asked_for() -> None:
    repeated = Records.of([pair(f"q{i % 7}", "good answer", "bad answer") for i in range(70)])
    policy = Table("p", AFTER.probs)
    evaluate(policy, repeated, samples=100)
    assert sorted(policy.asked) == [f"q{i}" for i in range(7)]
    policy.asked.clear()
    first = evaluate(policy, repeated, samples=3, seed=1).to_dict()
    assert len(set(policy.asked)) == 3
    assert evaluate(policy, repeated, samples=3, seed=1).to_dict() == first


def test_chosen_responses_that_became_less_likely_are_a_warning_that_explains() -> None:
    worse = Table("worse", {"good answer": 0.2, "bad answer": 0.01, "a long and winding answer": 0.79})
    report = evaluate(worse, PAIRS.select(range(30)), reference=BEFORE, samples=0)
    assert report.values["preference_accuracy"] == 1 and report.values["chosen_fell"] == 1
    assert any("chosen responses became less likely" in warning for warning in report.warnings)
    better = evaluate(AFTER, PAIRS.select(range(30)), reference=BEFORE, samples=0)
    assert not any("less likely" in warning for warning in better.warnings)


def test_lengths_repetition_and_endless_answers_are_measured_on_both_sides() -> None:
    loop = Table("loop", {"no no no no no no no no": 1.0}, cut=["no no no no no no no no"], ids=True)
    calm = Table("calm", {"one two three four five": 1.0}, ids=True)
    report = evaluate(loop, PAIRS, reference=calm, scorer=Wordcount())
    values = report.values
    assert (values["length_before"], values["length_after"]) == (5, 8)
    assert values["repetition_before"] == 0 and values["repetition_after"] == pytest.approx(4 / 5)
    assert values["unfinished_before"] == 0 and values["unfinished_after"] == 1
    assert any("did not end" in w for w in report.warnings) and any(
        "repeat themselves" in w for w in report.warnings
    )


def test_a_policy_without_likelihoods_is_judged_by_its_answers_alone() -> None:
    report = evaluate(Speechless("one two"), PAIRS, reference=Speechless("one"), scorer=Wordcount())
    assert report.values["win_rate"] == 1 and report.values["length_after"] == 2
    assert report.values["preference_accuracy"] is None and report.values["kl"] is None
    assert any("Preference accuracy was not measured" in warning for warning in report.warnings)


def test_no_scorer_and_no_reference_are_said_not_guessed() -> None:
    report = evaluate(AFTER, PAIRS)
    assert report.values["win_rate"] is None and report.values["win_rate_ci95"] is None
    assert "no scorer was given" in json.dumps(report.blocks)
    report = evaluate(AFTER, PAIRS, scorer=Wordcount())
    assert any("no reference to compare with" in warning for warning in report.warnings)


def test_no_data_is_not_a_pass() -> None:
    with pytest.raises(DataError, match="nothing to evaluate on"):
        evaluate(AFTER, Records.of([]), reference=BEFORE)
    only_ties = Records.of([tie(f"q{i}", "good answer", "bad answer") for i in range(4)])
    report = evaluate(AFTER, only_ties, reference=BEFORE, scorer=Wordcount())
    assert report.values["preference_accuracy"] is None and report.values["win_rate"] is not None
    assert any("4 ties" in warning for warning in report.warnings)
    whole = Records.of([Record((), (Response.of("good answer"),), (Judgment("demonstration", (0,)),))])
    report = evaluate(AFTER, whole, reference=BEFORE, scorer=Wordcount())
    assert report.values["win_rate"] is None
    assert any("no held-out record has a prompt" in warning for warning in report.warnings)


def test_a_scorer_without_an_opinion_is_counted_not_taken_for_a_tie() -> None:
    shy = FunctionScorer(
        lambda prompts, completions, **_: [None if i % 2 else 1.0 for i in range(len(completions))]
    )
    records = PAIRS.select(range(10))
    report = evaluate(AFTER, records, reference=BEFORE, scorer=shy)
    assert any("no opinion on 5 of 10" in warning for warning in report.warnings)
    mute = FunctionScorer(lambda prompts, completions, **_: [None] * len(completions), "mute")
    report = evaluate(AFTER, records, reference=BEFORE, scorer=mute)
    assert report.values["win_rate"] is None and any("no opinion on any" in w for w in report.warnings)


def test_a_response_that_the_policy_rules_out_is_counted_and_kept_out_of_the_means() -> None:
    closed = Table("closed", {"good answer": 0.5, "a long and winding answer": 0.5})
    records = Records.of(
        [pair("a", "good answer", "bad answer"), pair("b", "a long and winding answer", "good answer")]
    )
    report = evaluate(closed, records, reference=BEFORE, samples=0)
    assert report.values["preference_accuracy"] == 0.5  # rightly ordered: never beats anything else; b is not
    assert report.values["rejected_logp_change"] == pytest.approx(math.log(2))
    assert any("1 of 2 pairs hold a response" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": -1}, "out of range"),
        ({"per_prompt": 0}, "out of range"),
        ({"samples": 0, "scorer": Wordcount()}, "no effect"),
        ({"scorer": object()}, "no scorer"),
        ({"scorer": {}}, "no groups"),
    ],
)
def test_options_out_of_range_or_without_effect_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(AFTER, PAIRS, reference=BEFORE, **options)


def test_broken_scorers_and_policies_are_named() -> None:
    short = FunctionScorer(lambda prompts, completions, **_: [1.0], "short")
    with pytest.raises(DataError, match="short"):
        evaluate(AFTER, PAIRS, reference=BEFORE, scorer=short)

    class Wild(Prefers):
        def prob(self, prompts, first, second, **_):  # type: ignore[no-untyped-def]
            return [3.0] * len(first)

    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        evaluate(AFTER, PAIRS, reference=BEFORE, scorer=Wild("x"))

    class Broken(Table):
        def logprobs(self, records):  # type: ignore[no-untyped-def]
            return [{**row, "logprob": math.nan} for row in super().logprobs(records)]

    with pytest.raises(ModelError, match="NaN"):
        evaluate(Broken("broken", AFTER.probs), PAIRS, reference=BEFORE)


def test_an_unwritable_output_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="can't write"):
        evaluate(AFTER, PAIRS, reference=BEFORE, output_dir=tmp_path / "file" / "run")


def test_odd_text_reaches_the_report_and_the_parquet_file_whole(tmp_path: Path) -> None:
    text = "مرحبا 😀 </script>\x00 $x_{"
    odd = Table("</title><script>", {text: 1.0})
    records = Records.of(
        [
            Record(
                conversation(("system", "être"), ("user", text), ("assistant", "ok"), ("user", "?")),
                (Response.of(text), Response.of(text + " ")),
                (Judgment("comparison", (0, 1), (1, 0), group=text),),
            ),
            Record(user(text), (Response.of(text),)),
        ]
    )
    odd.probs[text + " "] = 1e-9
    evaluate(odd, records, reference=odd, scorer={text: Wordcount()}, output_dir=tmp_path)
    assert set(pd.read_parquet(tmp_path / "samples.parquet")["after"]) <= {text, text + " "}
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_prompts_that_are_answered_without_their_tools_are_said():
    plain, tooled = (
        Records.of(replace(pair(f"q{i}", "good answer", "bad answer"), extras=extras) for i in range(4))
        for extras in ({}, {"tools": [{"name": "search"}]})
    )
    reports = [evaluate(AFTER, some, reference=BEFORE, samples=4) for some in (plain, tooled)]
    said = [any("answered without them" in warning for warning in report.warnings) for report in reports]
    assert said == [False, True]
