"""Each step does what it says: planted ties, circles, length bias, careless people, disagreement and groups."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from accordance.analysis import logit
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.core.scorer import FunctionScorer
from accordance.core.weights import keeping, weight_of, weighted, weights_of
from accordance.curation import Agree, Novel, Pipeline, measure, mix, pairs_from_ranking, rouge_l, stages
from accordance.curation.curry import curry_pairs
from accordance.curation.pipeline import Step
from accordance.curation.steps_balance import length_buckets, surplus
from accordance.curation.steps_clean import circles
from accordance.curation.steps_people import agreed


def pair(prompt: str, better: str, worse: str, who: str | None = "x", **extras: object) -> Record:
    """A comparison that `better` won."""
    judgment = Judgment("comparison", (0, 1), (1.0, 0.0), annotator=who, group=f"group of {who}")
    return Record(user(prompt), (Response.of(better), Response.of(worse)), (judgment,), extras=extras)


def run(step: str | dict | Step, records: Records) -> Records:
    return Pipeline.of(step).run(records).records


def test_ties_go_and_records_with_other_judgments_stay():
    tie, win = Judgment("comparison", (0, 1), (1.0, 1.0)), Judgment("comparison", (0, 1), (1.0, 0.0))
    answers = Response.of("a"), Response.of("b")
    found = run(
        "drop_ties", Records.of([Record(user("p"), answers, j) for j in ((tie,), (tie, win), (win,), ())])
    )
    assert [record.judgments for record in found] == [(win,), (win,), ()]


def test_a_circle_of_one_annotator_goes_over_records_and_other_peoples_stay():
    circle = [pair("p", *ends) for ends in ("ab", "bc", "ca")]
    others = [
        pair("p", "a", "c", "y"),
        pair("p", "a", "d"),
        pair("q", "b", "a"),
        pair("p", "d", "e"),
        pair("q", "a", "b", "y"),
    ]
    found = run("drop_cycles", Records.of([*circle, *others]))
    assert list(found) == others
    contradiction = Records.of([pair("p", "a", "b"), pair("p", "b", "a"), pair("p", "b", "c")])
    assert list(run("drop_cycles", contradiction)) == [contradiction[2]]
    unnamed = Records.of([pair("p", "a", "b", None), pair("p", "b", "a", None)])
    assert len(run("drop_cycles", unnamed)) == 2 and len(run({"drop_cycles": {"unnamed": True}}, unnamed)) == 0


def test_strongly_connected_components_of_a_deep_graph():
    chain = [(str(i), str(i + 1)) for i in range(5000)]
    assert len(set(circles(chain).values())) == 5001
    assert len(set(circles([*chain, ("5000", "0")]).values())) == 1


def test_length_balance_takes_the_length_out_of_what_is_learned_and_leaves_the_quality():
    """The claim of S099's third part: weights 1.0 and 0.8 planted; six buckets take most of the latter out."""
    g = np.random.default_rng(0)
    quality, length = g.normal(size=20_000), g.normal(size=20_000)
    won = g.random(20_000) < 1 / (1 + np.exp(-(quality + 0.8 * length)))
    gap = np.where(won, length, -length) * 100
    kept = np.delete(np.arange(20_000), surplus(gap > 0, length_buckets(gap, 6), g))
    x = np.stack([quality, length], 1)
    before, after = (logit(x[rows], won[rows].astype(float)) for rows in (np.arange(20_000), kept))
    assert before == pytest.approx([1.0, 0.8], abs=0.06)
    assert after[1] < 0.3 * before[1] and abs(after[0] - before[0]) < 0.1
    whole = np.delete(np.arange(20_000), surplus(gap > 0, length_buckets(gap, 1), g))
    assert logit(x[whole], won[whole].astype(float))[1] > after[1]  # one bucket for all does less


def test_length_balance_of_records_leaves_as_many_longer_as_shorter_winners():
    g = np.random.default_rng(1)
    records = Records.of(
        pair(f"q{n}", "w " * int(g.integers(5, 20)), "w " * int(g.integers(1, 16))) for n in range(200)
    )
    found = run({"length_balance": {"buckets": 4}}, records)
    sides = Counter(np.sign(len(r.responses[0].text) - len(r.responses[1].text)) for r in found)
    assert sides[1] == sides[-1] > 20


def test_groups_come_to_count_the_same_whichever_way():
    records = Records.of([pair(f"q{n}", "a", "b", "xy"[n % 4 == 0], kind=n % 2) for n in range(40)])
    assert Counter(r.judgments[0].group for r in run("balance", records)) == {
        "group of x": 10,
        "group of y": 10,
    }
    shares: Counter[str | None] = Counter()
    for record in run({"balance": {"how": "weigh"}}, records):
        shares[record.judgments[0].group] += weights_of(record)[0]
    assert shares["group of x"] == pytest.approx(20) and shares["group of y"] == pytest.approx(20)
    lopsided = records.where(lambda r: r.extras["kind"] == 0 or r.prompt_text < "q2", "few")
    copied = run({"balance": {"by": "extras.kind", "how": "copy"}}, lopsided)
    assert len(set(Counter(r.extras["kind"] for r in copied).values())) == 1


RIGHT = {"careful": 0.97, "fair": 0.8, "also fair": 0.8, "guesses": 0.5}


def crowd(n: int = 400) -> tuple[Records, list[bool]]:
    """Four people judge each pair; the truth beside it."""
    g, made, truth = np.random.default_rng(0), [], []
    for number in range(n):
        first = bool(g.random() < 0.5)
        truth.append(first)
        judgments = tuple(
            Judgment(
                "comparison", (1, 0), (0.0, 1.0) if (g.random() < right) == first else (1.0, 0.0), annotator=who
            )
            for who, right in RIGHT.items()
        )
        made.append(
            Record(user(f"q{number}"), (Response.of(f"b {number}"), Response.of(f"a {number}")), judgments)
        )
    return Records.of(made), truth


def test_people_are_weighed_by_their_planted_reliability():
    found = run("weigh_annotators", crowd()[0])
    weights = dict(zip(RIGHT, weights_of(found[0])))
    assert weights["careful"] > 1.5 * weights["fair"] > 2 * weights["guesses"]
    assert np.mean([np.mean(weights_of(record)) for record in found]) == pytest.approx(1)


def test_a_weighted_vote_is_right_more_often_than_the_majority():
    records, truth = crowd()
    found = run("relabel", records)
    value = [{j.responses[i]: j.values[i] for i in range(2)} for (j,) in (r.judgments for r in found)]
    vote = np.mean([(v[0] > v[1]) == t for v, t in zip(value, truth)])
    counts = [sum(j.values[1] > j.values[0] for j in record.judgments) for record in records]
    majority = np.mean(
        [1.0 if (c > 2) == t and c != 2 else 0.5 if c == 2 else 0.0 for c, t in zip(counts, truth)]
    )
    assert vote > 0.93 and vote > majority + 0.03
    certain = run({"relabel": {"least": 0.95, "soft": True}}, records)
    assert 0 < len(certain) < len(records) and all(w[0] >= 0.9 for w in map(weights_of, certain))


def test_what_is_disputed_goes():
    found = run({"drop_disputed": {"least": 0.75}}, crowd()[0])
    assert 0 < len(found) < 400
    assert all(abs(sum(j.values[0] for j in r.judgments) - 2) >= 1 for r in found)
    assert len(run({"drop_disputed": {"least": 0.75, "voters": 5}}, crowd()[0])) == 400


def test_two_rankers_agree_on_the_longest_common_part():
    assert agreed((4, 3, 2, 1), (9, 8, 7, 6)) == [0, 1, 2, 3]
    assert agreed((4, 3, 2, 1), (9, 6, 7, 8)) in ([0, 3], [0, 2], [0, 1])
    assert agreed((1, 2, 3, 4), (1, 2, 4, 3)) in ([3, 1, 0], [2, 1, 0])
    assert agreed((2, 1), (1, 2)) in ([0], [1]) and len(agreed((3, 2, 1), (3, 2.9, 1), margin=0.5)) == 2


def test_disagreement_with_a_second_ranker_is_dropped_and_rankings_are_cut():
    records = Records.of([
        pair("q1", "long answer", "short"), pair("q2", "short", "long answer"),
        Record(user("q3"), tuple(map(Response.of, ("aaa", "a", "aaaa"))),
               (Judgment("comparison", (0, 1, 2), (3.0, 2.0, 1.0)),)),
    ])  # fmt: skip
    length = FunctionScorer(lambda prompts, completions: [len(c) for c in completions], "length")
    found = run(Agree(scorer=length), records)
    assert [record.prompt_text for record in found] == ["q1", "q3"]
    assert found[1].judgments[0].responses == (0, 1) and len(run(Agree(scorer=length, least=3), records)) == 0


def test_weights_stay_with_their_judgments():
    record = weighted(crowd(1)[0][0], [1.0, 2.0, 0.5, 3.0])
    assert weights_of(keeping(record, [3, 1])) == (3.0, 2.0)
    assert weight_of(record, record.judgments[1]) == 2.0
    assert "weights" not in weighted(record, [1.0] * 4).extras
    with pytest.raises(DataError, match="weights"):
        weights_of(weighted(keeping(record, [0]), [1.0, 2.0]))


def test_pairs_of_a_ranking_fall_in_gap_and_ties_make_none():
    assert pairs_from_ranking([1.0, 4.0, 2.0, 2.0]) == [(1, 0, 3.0), (1, 2, 2.0), (1, 3, 2.0)]
    assert [p[:2] for p in pairs_from_ranking([3.0, 1.0, 2.0], "adjacent")] == [(0, 2), (2, 1)]
    assert len(pairs_from_ranking([3.0, 1.0, 2.0], "all")) == 3 and pairs_from_ranking([1.0, 1.0]) == []
    with pytest.raises(ConfigError):
        pairs_from_ranking([1.0], "some")  # type: ignore[arg-type]


def rated() -> Records:
    """Four answers each, rated."""
    g = np.random.default_rng(0)
    return Records.of(
        Record(user(f"q{n}"), tuple(Response.of(f"a{i}") for i in range(4)),
               (Judgment("rating", (0, 1, 2, 3), tuple(float(v) for v in g.permutation(4) * (n + 1))),), id=str(n))
        for n in range(12)
    )  # fmt: skip


def test_stages_run_from_large_gaps_to_small_ones_per_prompt_and_over_all():
    def gaps(part: Records) -> dict[str, float]:
        return {r.prompt_text: abs(r.judgments[0].values[0] - r.judgments[0].values[1]) for r in part}

    found = stages(rated(), 3)
    assert [len(part) for part in found] == [12, 12, 12]
    assert all(gaps(found[0])[q] > gaps(found[1])[q] > gaps(found[2])[q] for q in gaps(found[0]))
    assert gaps(stages(rated(), 3, reverse=True)[0]) == gaps(found[2])
    over = stages(rated(), 3, scope="global")
    assert all(
        a.min() >= b.max()
        for a, b in zip(*[[measure(p, "gap") for p in part] for part in (over[:-1], over[1:])])
    )
    (one,) = stages(rated(), 1)  # one stage of best against rest: the single-pair baseline
    assert gaps(one) == gaps(found[0]) and "left out" in str(one.account.notes)
    with pytest.raises(DataError, match="too few pairs"):
        stages(rated(), 4)
    steps = Pipeline.of("curry_pairs", {"curriculum": {"stages": 3}}).run(rated())
    assert len(steps.records) == 36 and list(steps.undo()) == list(rated())
    assert Counter(r.extras["stage"] for r in steps.records) == {1: 12, 2: 12, 3: 12}


def test_a_pair_does_not_tell_the_chosen_one_by_its_place():
    places = {
        record.judgments[0].values[0] > record.judgments[0].values[1]
        for r in rated()
        for record in curry_pairs(r)
    }
    assert places == {True, False}


def test_likeness_is_that_of_the_longest_common_subsequence():
    assert rouge_l(["a", "b", "c", "d"], ["a", "x", "c", "d"]) == pytest.approx(0.75)
    assert rouge_l(["a", "b"], ["b", "a"]) == pytest.approx(0.5) and rouge_l([], ["a"]) == 0
    known = Novel(0.7)
    known.add("write a short poem about the sea")
    assert known.like("write a short poem about the sky") == (0, pytest.approx(6 / 7))
    assert known.like("sea the about poem short a write") is None


def test_the_best_rated_answer_becomes_the_demonstration():
    found = run("keep_best", rated())
    for record, shown in zip(rated(), found):
        best = int(np.argmax(record.judgments[0].values))
        assert shown.responses == (record.responses[best],) and shown.judgments == (
            Judgment("demonstration", (0,)),
        )
    assert len(run({"keep_best": {"least": 18}}, rated())) == 7


def test_sets_are_mixed_in_their_ratios():
    found = mix({"a": rated(), "b": crowd()[0]}, {"a": 1, "b": 3}, 40)
    assert Counter(record.extras["source_set"] for record in found) == {"a": 10, "b": 30}
    with pytest.raises(DataError, match="too few"):
        mix({"a": rated(), "b": crowd()[0]}, {"a": 1, "b": 1}, 40)
    with pytest.raises(ConfigError):
        mix({"a": rated()}, {"b": 1}, 4)
