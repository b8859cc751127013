"""Policies: whatever writes responses. Local weights, a server, an API, a table of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from accordance.core.errors import ConfigError
from accordance.core.record import Message

Prompt = str | Sequence[Message]


@dataclass(frozen=True)
class Completion:
    """One response that a policy wrote.

    Attributes:
        text: what it says, special tokens left out.
        finished: whether it ended by itself (False: it was cut at `max_new_tokens`).
        token_ids: its tokens, the end-of-turn token included; empty where the provider tells none.
        logprobs: natural-log probability of each token under the policy at temperature 1, before any
            nucleus cut; one per token; empty where the provider tells none.
    """

    text: str
    finished: bool = True
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


@runtime_checkable
class Policy(Protocol):
    """Anything that writes responses to prompts."""

    name: str

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
        """Write `n` responses to each prompt; the same seed gives the same responses.

        Args:
            prompts: each a string (one user turn) or messages.
            n: how many responses per prompt.
            max_new_tokens: length at which a response is cut.
            temperature: 0 takes the likeliest token every time.
            top_p: nucleus of the distribution to sample from.
            seed: the only source of randomness.

        Returns:
            For each prompt, `n` completions.
        """
        ...


def check_sampling(n: int, max_new_tokens: int, temperature: float = 1.0, top_p: float = 1.0) -> None:
    """Refuse options of `Policy.generate` that are out of range.

    Raises:
        ConfigError: fewer than one response or token, a temperature below 0, a nucleus outside (0, 1].
    """
    if n < 1 or max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ConfigError(
            "sampling options are out of range",
            found=f"n={n}, max_new_tokens={max_new_tokens}, temperature={temperature}, top_p={top_p}",
            expected="n >= 1, max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1",
        )
