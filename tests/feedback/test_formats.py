"""Each public format becomes the Records it means, found by its columns, and read the same when named."""

from __future__ import annotations

from typing import Any

import pytest

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import TEXT, Judgment, Message, Record, chat, user
from accordance.core.views import pairs, steps, thumbs
from accordance.feedback import FORMATS, load_records
from accordance.feedback.formats import detect
from accordance.feedback.row import Place

from .samples import NO, SAMPLES, USER, YES


def load(name: str, **options: Any) -> list[Record]:
    return list(load_records(SAMPLES[name], **options))


def one(*rows: dict[str, Any], **options: Any) -> Record:
    return next(iter(load_records(rows, **options)))


def test_every_registered_format_has_a_sample() -> None:
    assert set(FORMATS) == {*SAMPLES, "accordance"}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_found_by_its_columns_and_reads_the_same_when_named(name: str) -> None:
    assert detect(SAMPLES[name], Place("sample", "sample", 1)).name == name
    records = load(name)
    assert records
    assert records == load(name, format=name) == load(name, format=name.replace("_", "-").upper())
    assert len({record.id for record in records}) == len(records)
    for record in records:
        for judgment in record.judgments:
            assert all(0 <= index < len(record.responses) for index in judgment.responses)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_stream_gives_the_same_records_and_account_each_time_it_is_read(name: str) -> None:
    table, stream = load_records(SAMPLES[name]), load_records(SAMPLES[name], streaming=True)
    assert list(stream) == list(table)
    assert list(stream) == list(table)
    assert stream.account == table.account


def test_strings_of_trl_are_plain_text_and_conversations_keep_their_roles() -> None:
    text = one({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."})
    assert text.prompt == (Message(TEXT, "The sky is"),)
    assert [response.messages for response in text.responses] == [
        (Message(TEXT, " blue."),),
        (Message(TEXT, " green."),),
    ]
    assert not text.chat
    talk = one({"prompt": [USER], "chosen": [YES], "rejected": [NO]})
    assert talk.prompt == user("hi") and talk.chat
    assert talk.responses[0].messages == (Message("assistant", "yes"),)
    assert talk.judgments == (Judgment("comparison", (0, 1), (1.0, 0.0)),)


def test_an_implicit_prompt_is_the_longest_common_beginning_of_the_messages() -> None:
    record = one({"chosen": [USER, YES, USER, YES], "rejected": [USER, YES, USER, NO]})
    assert record.prompt == chat(("user", "hi"), ("assistant", "yes"), ("user", "hi"))
    assert [r.text for r in record.responses] == ["yes", "no"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("天空是蓝色的", "天空是绿色的", "天空是"),
        ("قال: نعم", "قال: لا", "قال:"),
    ],
)
def test_an_implicit_prompt_of_strings_ends_between_words(chosen: str, rejected: str, prompt: str) -> None:
    record = one({"chosen": chosen, "rejected": rejected})
    assert record.prompt[0].content == prompt
    assert [prompt + r.text for r in record.responses] == [chosen, rejected]


def test_a_joined_emoji_is_not_cut_apart() -> None:
    record = one({"chosen": "ok👩‍🔬", "rejected": "ok👩‍🚀"})
    assert [r.text for r in record.responses] == ["👩‍🔬", "👩‍🚀"]


def test_identical_conversations_are_kept_and_noted() -> None:
    records = load_records([{"chosen": [USER, YES], "rejected": [USER, YES]}])
    assert records[0].prompt == user("hi") and len(records[0].responses) == 2
    assert records.account.notes == {"chosen and rejected are the same": 1}


def test_responses_that_repeat_the_prompt_are_freed_of_it_with_a_note() -> None:
    records = load_records([{"prompt": "hi", "chosen": [USER, YES], "rejected": [USER, NO]}])
    assert records[0].prompt == user("hi")
    assert [r.text for r in records[0].responses] == ["yes", "no"]
    assert sum(records.account.notes.values()) == 1


def test_extras_are_kept_and_a_left_out_message_field_is_noted() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    turn = {**YES, "tool_calls": [{"name": "f"}]}
    records = load_records(
        [
            {
                "prompt": [USER],
                "completion": [turn],
                "tools": tools,
                "chat_template_kwargs": {"think": False},
                "n": None,
            }
        ]
    )
    assert records[0].extras == {"tools": tools, "chat_template_kwargs": {"think": False}}
    assert records.account.notes == {"message field 'tool_calls' left out": 1}


def test_language_modelling_is_one_demonstration_without_a_prompt() -> None:
    whole = one({"messages": [USER, YES]})
    assert whole.prompt == () and whole.responses[0].messages == chat(("user", "hi"), ("assistant", "yes"))
    assert whole.judgments == (Judgment("demonstration", (0,)),)
    assert load("language_modelling")[0].responses[0].messages == (Message(TEXT, "The sky is blue."),)


def test_prompts_alone_have_no_responses_and_keep_their_columns() -> None:
    record = load("prompt_only")[0]
    assert record.responses == () and record.judgments == () and record.extras == {"solution": "blue"}


def test_labels_become_thumbs() -> None:
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False, 1, "false")]
    assert [item.value for item in thumbs(load_records(rows))] == [1, 0, 1, 0]
    assert [item.value for item in thumbs(load_records(SAMPLES["kto_tag"]))] == [1, 0]
    alpaca = one({"instruction": "hi", "output": "yes", "kto_tag": False})
    assert alpaca.judgments == (Judgment("thumb", (0,), (0.0,)),)


def test_steps_carry_one_value_each() -> None:
    (item,) = steps(load_records(SAMPLES["stepwise"]))
    assert item.values == (1.0, 0.0) and item.response.steps == ("One.", "Two.")
    assert item.response.text == "One.\nTwo."


def test_alpaca_joins_instruction_and_input_and_keeps_history() -> None:
    row = {"instruction": "Translate", "input": "chat", "chosen": "cat", "rejected": "dog", "system": "s",
           "history": [["q", "a"]]}  # fmt: skip
    record = one(row)
    assert record.prompt == chat(
        ("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "Translate\n\nchat")
    )
    assert [r.text for r in record.responses] == ["cat", "dog"]


def test_sharegpt_speakers_become_roles_in_all_its_variants() -> None:
    record = load("sharegpt")[0]
    assert record.prompt == chat(("system", "be brief"), ("user", "hi"))
    assert record.responses[0].messages == (Message("assistant", "yes"),)
    human, gpt, other = (
        {"from": who, "value": what} for who, what in (("human", "hi"), ("gpt", "yes"), ("gpt", "no"))
    )
    ranked = one({"conversations": [human], "chosen": gpt, "rejected": other})
    whole = one({"chosen": [human, gpt], "rejected": [human, other]})
    for record in (ranked, whole):
        assert record.prompt == user("hi") and [r.text for r in record.responses] == ["yes", "no"]


def test_lmarena_keeps_models_judge_order_and_ties() -> None:
    records = load("lmarena")
    assert [record.judgments[0].values for record in records] == [(1, 0), (0, 1), (0, 0), (0, 0)]
    assert [record.judgments[0].tie for record in records] == [False, False, True, True]
    assert records[0].judgments[0].annotator == "j1"
    assert [r.source for r in records[0].responses] == ["A", "B"]
    flat = {"model_a": "A", "model_b": "B", "prompt": '["hi"]', "response_a": '["yes"]', "response_b": '["no"]'}
    flags = {"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}
    for row in ({**flat, "winner": "model_b"}, {**flat, **flags}):
        record = one(row)
        assert record.prompt == user("hi") and record.judgments[0].values == (0, 1)
        assert [r.text for r in record.responses] == ["yes", "no"]


def test_hh_transcripts_become_turns_and_differing_prompts_are_dropped() -> None:
    record = load("hh_rlhf")[0]
    assert record.prompt == chat(("user", "hi"), ("assistant", "hello"), ("user", "so?"))
    rows = [
        *SAMPLES["hh_rlhf"],
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"},
    ]
    account = load_records(rows).account
    assert (account.read, account.kept) == (2, 1) and account.rows == {"no common prompt": ["memory:2"]}


def test_ultrafeedback_rates_by_aspect_and_leaves_out_what_was_not_rated() -> None:
    judged = {j.attribute: j for j in load("ultrafeedback")[0].judgments if j.kind == "rating"}
    assert judged["helpfulness"].values == (4.0, 2.0)
    assert judged["honesty"].responses == (1,) and judged["overall_score"].values == (8.5, 3.0)


def test_helpsteer_joins_neighbours_and_strength_has_a_direction() -> None:
    first, second = load("helpsteer2")
    assert len(first.responses) == 2 and len(second.responses) == 1
    assert next(j for j in first.judgments if j.attribute == "helpfulness").values == (4.0, 1.0)
    compared = [record.judgments[0] for record in load("helpsteer3")]
    assert [(j.values, j.strength) for j in compared] == [((1, 0), 3), ((0, 0), None), ((0, 1), 1)]
    assert load("helpsteer2_preference")[0].judgments[0].strength == 2


def test_helpsteer2_cuts_the_marked_turns_of_a_prompt() -> None:
    row = {**SAMPLES["helpsteer2"][0], "prompt": "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nso?"}
    assert one(row).prompt == chat(("user", "hi"), ("assistant", "hello"), ("user", "so?"))


def test_pku_keeps_better_and_safer_apart() -> None:
    records = load_records(SAMPLES["pku_saferlhf"])
    assert [p.chosen.text for p in pairs(records, attribute="helpfulness")] == ["yes"]
    assert [p.chosen.text for p in pairs(records, attribute="harmlessness")] == ["no"]


@pytest.mark.parametrize("name", ["prism", "prism_conversations"])
def test_prism_gives_a_record_per_turn_with_the_chosen_answer_in_the_next_prompt(name: str) -> None:
    records = load(name)
    assert records[0].judgments == (Judgment("rating", (0, 1), (90.0, 20.0), annotator="user7"),)
    if len(records) > 1:
        assert records[1].prompt == chat(("user", "question 0"), ("assistant", "yes"), ("user", "question 1"))


def test_multipref_keeps_who_judged_what_how_strongly() -> None:
    assert load("multipref")[0].judgments == (
        Judgment("comparison", (0, 1), (0.0, 1.0), annotator="n1", group="normal", strength=1.0),
        Judgment("comparison", (0, 1), (0.0, 0.0), annotator="e1", group="expert"),
        Judgment(
            "comparison",
            (0, 1),
            (1.0, 0.0),
            annotator="e1",
            group="expert",
            attribute="harmlessness",
            strength=2.0,
        ),
    )


def test_community_alignment_goes_on_with_the_preferred_response() -> None:
    first, second = load("community_alignment")
    assert first.judgments[0].values == (0, 0, 1, 0)
    assert (first.judgments[0].annotator, first.judgments[0].group) == ("a3", "India")
    assert second.prompt == chat(("user", "hi"), ("assistant", "y"), ("user", "more"))


@pytest.mark.parametrize("name", ["oasst", "oasst_trees"])
def test_oasst_replies_are_ranked_with_rank_zero_best(name: str) -> None:
    first, second = load(name)
    assert [p.chosen.text for p in pairs(load_records(SAMPLES[name]))] == ["yes"]
    assert first.prompt == user("hi")
    assert second.prompt == chat(("user", "hi"), ("assistant", "yes"), ("user", "so?"))
    assert second.judgments == (Judgment("demonstration", (0,)),)


def test_oasst_rows_of_one_tree_must_stand_together() -> None:
    rows = SAMPLES["oasst"]
    apart = [rows[0], {**rows[0], "message_tree_id": "m2", "message_id": "x"}, *rows[1:]]
    with pytest.raises(DataError, match="rows that belong together are apart"):
        load_records(apart)


def test_icai_takes_the_instruction_out_of_the_texts() -> None:
    record = load("icai")[0]
    assert record.prompt == user("hi") and [r.text for r in record.responses] == ["no", "yes"]
    assert record.judgments[0].values == (0, 1)
    bare = load_records([{"text_a": "x", "text_b": "y", "preferred_text": "text_a"}])
    assert bare[0].prompt == () and sum(bare.account.notes.values()) == 1


def test_annotated_pairs_keep_each_annotator() -> None:
    judged = load("annotated_pairs")[0].judgments
    assert [(j.annotator, j.tie) for j in judged] == [("human", False), ("judge", True)]


def test_an_unknown_format_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'alpaca'"):
        load_records(SAMPLES["alpaca"], format="alpacca")


def test_half_a_surrogate_pair_is_replaced_and_noted() -> None:
    records = load_records([{"prompt": "a\ud83d", "completion": "b\ud83d\ude00"}])
    assert records[0].prompt[0].content == "a�" and records[0].responses[0].text == "b😀"
    assert records.account.notes["half of a surrogate pair replaced by U+FFFD"] >= 1
