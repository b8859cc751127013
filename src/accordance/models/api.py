"""Models behind an API, or behind vLLM, as a Policy: any provider that inspect_ai reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from accordance.core.errors import MissingExtra, ModelError
from accordance.core.policy import Completion, Prompt
from accordance.core.record import as_prompt


class InspectPolicy:
    """A model that inspect_ai reaches: ``openai/...``, ``anthropic/...``, ``vllm/...``, ``mockllm/model``.

    It writes responses; it can't be trained, and says nothing of log-probabilities.

    Args:
        model: inspect_ai's name of the model, or one of its model objects.
        name: what reports call the policy.
        connections: how many requests may be under way at once.
        **options: passed to the provider (`base_url`, `api_key`, `tensor_parallel_size`, ...).

    Raises:
        MissingExtra: inspect_ai, or the client that the provider needs, is not installed.
        ModelError: there is no such provider.
    """

    def __init__(
        self, model: str | Any, *, name: str | None = None, connections: int = 10, **options: Any
    ) -> None:
        try:
            from inspect_ai.model import get_model
        except ImportError as error:
            raise MissingExtra("inspect-ai", "inspect", "reaching a model behind an API") from error
        from inspect_ai._util.error import PrerequisiteError

        if isinstance(model, str):
            try:
                self.model = get_model(model, memoize=False, **options)
            except (PrerequisiteError, ValueError) as error:
                raise ModelError(
                    f"the provider can't be used: {error}",
                    where=model,
                    expected="provider/model as inspect_ai names them, its client installed and its key set",
                ) from error
        else:
            self.model = model
        self.name = name or str(self.model)
        self.connections = connections

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[list[Completion]]:
        """Write `n` responses to each prompt; see `accordance.core.policy.Policy.generate`.

        The seed is passed on (one per response); whether it is honoured is the provider's affair.

        Raises:
            ModelError: the provider answered with an error.
        """

        async def everything() -> list[Completion]:
            gate = asyncio.Semaphore(self.connections)
            jobs = [
                self._one(gate, prompt, max_new_tokens, temperature, top_p, seed + number)
                for prompt in prompts
                for number in range(n)
            ]
            return await asyncio.gather(*jobs)

        flat = asyncio.run(everything())
        return [flat[start : start + n] for start in range(0, len(flat), n)]

    async def _one(
        self,
        gate: asyncio.Semaphore,
        prompt: Prompt,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> Completion:
        from inspect_ai.model import (
            ChatMessageAssistant,
            ChatMessageSystem,
            ChatMessageUser,
            GenerateConfig,
        )

        kinds = {"system": ChatMessageSystem, "assistant": ChatMessageAssistant}
        turns = [kinds.get(m.role, ChatMessageUser)(content=m.content) for m in as_prompt(prompt)]
        config = GenerateConfig(max_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        async with gate:
            out = await self.model.generate(turns, config=config)
        if out.error:
            raise ModelError(f"the provider answered with an error: {out.error}", where=self.name)
        return Completion(out.completion, out.stop_reason != "max_tokens")
