"""A tiny sample of each public format, written by hand: format name to rows."""

from __future__ import annotations

from typing import Any

USER = {"role": "user", "content": "hi"}
YES, NO = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}


def _prism(turn: int, text: str, score: int, chosen: bool) -> dict[str, Any]:
    return {
        "utterance_id": f"ut{turn}{text}",
        "conversation_id": "c1",
        "user_id": "user7",
        "turn": turn,
        "user_prompt": f"question {turn}",
        "model_response": text,
        "model_name": "m",
        "score": score,
        "if_chosen": chosen,
    }


def _oasst(id: str, parent: str | None, role: str, text: str, rank: int | None = None) -> dict[str, Any]:
    tree = {"message_tree_id": "m1", "lang": "en"}
    return {"message_id": id, "parent_id": parent, "role": role, "text": text, "rank": rank, **tree}


_RATED = {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
_EXPERT = [{"evaluator": "e1", "overall_pref": "Tie", "harmless_pref": "A-is-clearly-better"}]

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "language_modelling": [{"text": "The sky is blue."}],
    "prompt_only": [{"prompt": "The sky is", "solution": "blue"}],
    "prompt_completion": [{"prompt": "The sky is", "completion": " blue."}],
    "preference": [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}],
    "unpaired": [{"prompt": "The sky is", "completion": " green.", "label": False}],
    "stepwise": [{"prompt": "Which?", "completions": ["One.", "Two."], "labels": [True, False]}],
    "alpaca": [{"instruction": "Translate", "input": "chat", "output": "cat"}],
    "sharegpt": [
        {
            "conversations": [
                {"from": "system", "value": "be brief"},
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "yes"},
            ]
        }
    ],
    "kto_tag": [{"messages": [USER, YES], "kto_tag": True}, {"messages": [USER, NO], "kto_tag": False}],
    "lmarena": [
        {"question_id": f"q{w}", "model_a": "A", "model_b": "B", "winner": w, "judge": "j1",
         "conversation_a": [USER, YES], "conversation_b": [USER, NO]}
        for w in ("model_a", "model_b", "tie", "tie (bothbad)")
    ],
    "hh_rlhf": [
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: so?\n\nAssistant: yes",
            "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: so?\n\nAssistant: no",
        }
    ],
    "ultrafeedback": [
        {
            "source": "s",
            "instruction": "hi",
            "models": ["A", "B"],
            "completions": [
                {"model": "A", "response": "yes", "critique": "fine", "overall_score": 8.5,
                 "annotations": {"helpfulness": {"Rating": "4"}, "honesty": {"Rating": "N/A"}}},
                {"model": "B", "response": "no", "critique": "bad", "overall_score": 3.0,
                 "annotations": {"helpfulness": {"Rating": "2"}, "honesty": {"Rating": "5"}}},
            ],
        }
    ],
    "helpsteer2": [
        {"prompt": "hi", "response": "yes", **_RATED},
        {"prompt": "hi", "response": "no", **_RATED, "helpfulness": 1},
        {"prompt": "other", "response": "one", **_RATED},
    ],
    "helpsteer2_preference": [
        {"prompt": "hi", "response_1": "yes", "response_2": "no", "preference_strength": -2,
         "preference_elaboration": "the first is kind"}
    ],
    "helpsteer3": [
        {"domain": "general", "context": [USER], "response1": "yes", "response2": "no", "overall_preference": s,
         "individual_preference": [{"score": s, "reasoning": "r", "feedback1": "f1", "feedback2": None}]}
        for s in (-3, 0, 1)
    ],
    "pku_saferlhf": [
        {"prompt": "hi", "response_0": "yes", "response_1": "no", "is_response_0_safe": False,
         "is_response_1_safe": True, "better_response_id": 0, "safer_response_id": 1}
    ],
    "prism": [
        _prism(0, "yes", 90, True), _prism(0, "no", 20, False), _prism(1, "one", 50, True),
    ],
    "prism_conversations": [
        {
            "conversation_id": "c1",
            "user_id": "user7",
            "conversation_history": [
                {"turn": 0, "role": "user", "content": "question 0"},
                {"turn": 0, "role": "model", "content": "yes", "score": 90, "if_chosen": True, "model_name": "m"},
                {"turn": 0, "role": "model", "content": "no", "score": 20, "if_chosen": False, "model_name": "n"},
            ],
        }
    ],
    "multipref": [
        {"comparison_id": "k1", "text": "hi", "model_a": "A", "model_b": "B", "completion_a": "yes",
         "completion_b": "no", "expert_worker_annotations": _EXPERT,
         "normal_worker_annotations": [{"evaluator": "n1", "overall_pref": "B-is-slightly-better"}]}
    ],
    "community_alignment": [
        {
            "conversation_id": "c9", "annotator_id": "a3", "annotator_country": "India", "assigned_lang": "hi",
            "first_turn_prompt": "hi", "first_turn_response_a": "w", "first_turn_response_b": "x",
            "first_turn_response_c": "y", "first_turn_response_d": "z",
            "first_turn_preferred_response": "response_c", "first_turn_feedback": "kind",
            "second_turn_prompt": "more", "second_turn_response_a": "p", "second_turn_response_b": "q",
            "second_turn_preferred_response": "response_a", "annotator_age": "30-40",
        }
    ],
    "oasst": [
        _oasst("m1", None, "prompter", "hi"),
        _oasst("m2", "m1", "assistant", "no", 1),
        _oasst("m3", "m1", "assistant", "yes", 0),
        _oasst("m4", "m3", "prompter", "so?"),
        _oasst("m5", "m4", "assistant", "indeed"),
    ],
    "oasst_trees": [
        {
            "message_tree_id": "m1",
            "tree_state": "ready_for_export",
            "prompt": {
                "message_id": "m1", "text": "hi", "role": "prompter",
                "replies": [
                    {"message_id": "m2", "text": "no", "role": "assistant", "rank": 1, "replies": []},
                    {"message_id": "m3", "text": "yes", "role": "assistant", "rank": 0, "replies": [
                        {"message_id": "m4", "text": "so?", "role": "prompter", "replies": [
                            {"message_id": "m5", "text": "indeed", "role": "assistant", "replies": []}]}]},
                ],
            },
        }
    ],
    "icai": [{"text_a": "Instruction: hi\n\nOutput: no", "text_b": "Instruction: hi\n\nOutput: yes",
              "preferred_text": "text_b"}],
    "annotated_pairs": [
        {
            "metadata": {"version": "1"},
            "annotators": {"h": {"name": "human"}, "l": {"name": "judge"}},
            "comparisons": [
                {"id": "p1", "prompt": "hi", "response_a": {"text": "yes", "model": "A"},
                 "response_b": {"text": "no", "model": "B"},
                 "annotations": {"h": {"pref": "a"}, "l": {"pref": "tie"}}},
            ],
        }
    ],
}  # fmt: skip
