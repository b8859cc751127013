"""Scripted assistants behind inspect_ai: the provider ``lab``, so that code written for real models meets them.

Importing this module registers the provider; where the package is installed, inspect_ai finds it by itself.
Models are ``lab/`` and a role (``lab/judge``, ``lab/critic``, ``lab/writer``, ``lab/user``, ``lab/attacker``); model
arguments are the settings of the assistant (`noise=0.5`).
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from accordance.core.errors import unknown
from accordance.core.record import Message
from accordance.lab.assistants import ROLES

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
    from inspect_ai.tool import ToolChoice, ToolInfo


def lab_provider() -> type[ModelAPI]:
    """The class that inspect_ai makes models of.

    Raises:
        ImportError: inspect_ai is not installed.
    """
    from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, ModelUsage

    class LabProvider(ModelAPI):
        """A scripted assistant as one of inspect_ai's models.

        Args:
            model_name: one of `ROLES`.
            base_url, api_key: not used; part of inspect_ai's signature.
            config: defaults of generation.
            **settings: of the assistant.

        Raises:
            ConfigError: there is no such assistant, or a setting is out of range.
        """

        def __init__(
            self,
            model_name: str,
            base_url: str | None = None,
            api_key: str | None = None,
            config: GenerateConfig | None = None,
            **settings: Any,
        ) -> None:
            super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
            if model_name not in ROLES:
                raise unknown("assistant of the lab", model_name, ROLES)
            self.assistant = ROLES[model_name](**settings)

        async def generate(
            self,
            input: list[ChatMessage],
            tools: list[ToolInfo],
            tool_choice: ToolChoice,
            config: GenerateConfig,
        ) -> ModelOutput:
            """The assistant's answer; options of sampling that it does not know are refused by inspect_ai's caller."""
            messages = [Message(turn.role, turn.text) for turn in input]
            temperature = 1.0 if config.temperature is None else config.temperature
            completion = self.assistant.generate(
                [messages],
                max_new_tokens=config.max_tokens or 2048,
                temperature=temperature,
                seed=config.seed or 0,
            )[0][0]
            reason = "stop" if completion.finished else "max_tokens"
            output = ModelOutput.from_content(f"lab/{self.model_name}", completion.text, stop_reason=reason)
            read = sum(len(message.content.split()) for message in messages)
            wrote = len(completion.text.split())
            output.usage = ModelUsage(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote)
            return output

    return LabProvider


if importlib.util.find_spec("inspect_ai") is not None:
    from inspect_ai.model import modelapi

    modelapi(name="lab")(lab_provider)
