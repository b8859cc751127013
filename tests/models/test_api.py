"""Models behind an API, through inspect_ai's own mock provider."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is an extra")

from inspect_ai.model import ModelOutput, ModelUsage, get_model

from accordance.core.errors import ModelError
from accordance.core.policy import Policy
from accordance.core.record import chat
from accordance.models import InspectPolicy


def test_what_is_asked_arrives_and_what_is_answered_comes_back_in_order() -> None:
    asked: list[tuple[list[tuple[str, str]], Any]] = []

    def answer(messages: list[Any], tools: Any, choice: Any, config: Any) -> ModelOutput:
        asked.append(([(m.role, m.text) for m in messages], config))
        reason = "max_tokens" if "long" in messages[-1].text else "stop"
        out = ModelOutput.from_content("mock", f"re: {messages[-1].text}", stop_reason=reason)
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # it would count with tiktoken
        return out

    policy = InspectPolicy(get_model("mockllm/model", custom_outputs=answer, memoize=False), name="mock")
    assert isinstance(policy, Policy)
    dialogue = chat(("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    out = policy.generate([dialogue, "long"], n=2, max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3)
    assert [[c.text for c in row] for row in out] == [["re: c"] * 2, ["re: long"] * 2]
    assert [[c.finished for c in row] for row in out] == [[True] * 2, [False] * 2]
    turns, config = asked[0]
    assert turns == [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    assert (config.max_tokens, config.temperature, config.top_p) == (7, 0.5, 0.9)
    assert {config.seed for _, config in asked} == {3, 4}


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(ModelError, match="nobody/model"):
        InspectPolicy("nobody/model")
