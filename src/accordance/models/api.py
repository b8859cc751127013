"""Models behind an API, or behind vLLM, as a Policy: any provider that inspect_ai reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from accordance.core.asking import PartlyAnswered
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
        told = {key: value for key, value in sorted(options.items()) if key != "api_key"}
        #: What tells the model from others, for caches of answers: its full name and how it is reached.
        self.identity = f"{self.model} {told}" if told else str(self.model)

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
            PartlyAnswered: the provider failed; the error holds the answers to the prompts that got theirs.
        """

        async def everything() -> list[Completion | BaseException]:
            gate = asyncio.Semaphore(self.connections)
            jobs = [
                self._one(gate, prompt, max_new_tokens, temperature, top_p, seed + number)
                for prompt in prompts
                for number in range(n)
            ]
            return await asyncio.gather(*jobs, return_exceptions=True)

        flat = asyncio.run(everything())
        groups = [flat[start : start + n] for start in range(0, len(flat), n)]
        whole = {
            i: [c for c in group if isinstance(c, Completion)]
            for i, group in enumerate(groups)
            if all(isinstance(c, Completion) for c in group)
        }
        if len(whole) < len(groups):
            failure = next(c for c in flat if isinstance(c, BaseException))
            if not isinstance(failure, Exception):
                raise failure
            raise PartlyAnswered(
                f"the provider answered with an error: {failure}",
                whole,
                where=self.name,
                found=f"{len(groups) - len(whole)} of {len(groups)} prompts without an answer",
            ) from failure
        return list(whole.values())

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
            raise ModelError(str(out.error))
        return Completion(out.completion, out.stop_reason != "max_tokens")
