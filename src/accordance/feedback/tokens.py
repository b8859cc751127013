"""What Records become as tokens: how long the parts are, what `max_length` cuts, how the first one looks."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from accordance.core.errors import AccordanceError, ConfigError
from accordance.core.record import Message, Record, Records, Response


class EncodedGroup(Protocol):
    """Token ids of a prompt and of each of its responses."""

    prompt_ids: list[int]
    response_ids: list[list[int]]


@runtime_checkable
class Encodes(Protocol):
    """What preflight needs of a policy: a tokenizer, its way to encode, and its size."""

    tokenizer: Any

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        ...

    def encode(
        self, prompt: Sequence[Message], responses: Sequence[Response], extras: Mapping[str, Any]
    ) -> EncodedGroup:
        """Token ids of a prompt and of its responses."""
        ...


class Lengths:
    """Token counts of every prompt and response of some records.

    Args:
        records: a table.
        policy: encodes them.

    Attributes:
        prompts: tokens of each prompt, shape [records].
        responses: tokens of each response, shape [responses].
        owner: for each response the index in `prompts`, shape [responses].
        unencoded: records that the policy refused, by the problem.

    Raises:
        AccordanceError: already the first record can't be encoded.
    """

    def __init__(self, records: Records, policy: Encodes) -> None:
        prompts, responses, owner = array("l"), array("l"), array("l")
        self.unencoded: Counter[str] = Counter()
        self.first: tuple[Record, EncodedGroup] | None = None
        for record in records:
            try:
                group = policy.encode(record.prompt, record.responses, record.extras)
            except AccordanceError as error:
                if self.first is None:
                    raise
                self.unencoded[error.problem] += 1
                continue
            if self.first is None:
                self.first = (record, group)
            for ids in group.response_ids:
                responses.append(len(ids))
                owner.append(len(prompts))
            prompts.append(len(group.prompt_ids))
        self.prompts = np.array(prompts, dtype=np.int64)
        self.responses = np.array(responses, dtype=np.int64)
        self.owner = np.array(owner, dtype=np.int64)

    @property
    def totals(self) -> np.ndarray:
        """Tokens of prompt and response together, for each response."""
        return self.prompts[self.owner] + self.responses

    @property
    def groups(self) -> np.ndarray:
        """Tokens of each record with its prompt counted once, shape [records]."""
        sums = np.bincount(self.owner, weights=self.responses, minlength=len(self.prompts))
        return self.prompts + sums.astype(np.int64)

    def cut(self, max_length: int) -> dict[str, int]:
        """What a limit on prompt and response together does, a response being cut at its end.

        Returns:
            ``prompts_too_long``: records whose prompt leaves no room for a response; ``responses_cut``:
            responses of other records that lose tokens; ``tokens_cut``: how many those lose.

        Raises:
            ConfigError: the limit is below 1.
        """
        if max_length < 1:
            raise ConfigError("max_length is too small", found=max_length, expected="1 or more tokens")
        long = self.prompts >= max_length
        over = np.where(long[self.owner], 0, np.maximum(self.totals - max_length, 0))
        return {
            "prompts_too_long": int(long.sum()),
            "responses_cut": int((over > 0).sum()),
            "tokens_cut": int(over.sum()),
        }


def rendered(policy: Encodes, group: EncodedGroup) -> str:
    """A group as the model sees it, decoded, with the boundary between prompt and response in view."""
    decode = policy.tokenizer.decode
    parts = [f"──── prompt, {len(group.prompt_ids)} tokens ────", decode(group.prompt_ids)]
    for number, ids in enumerate(group.response_ids):
        parts += [f"──── response {number}, {len(ids)} tokens ────", decode(ids)]
    if group.response_ids:
        before = " ".join(repr(decode([token])) for token in group.prompt_ids[-3:])
        after = " ".join(repr(decode([token])) for token in group.response_ids[0][:3])
        end = " ".join(repr(decode([token])) for token in group.response_ids[0][-2:])
        parts += ["──── tokens at the boundary ────", f"{before} │ {after} … {end} ■"]
    return "\n".join(parts)


def unended(policy: Encodes, group: EncodedGroup) -> bool:
    """Whether a response ends in an ordinary token: a model trained on it never learns to stop."""
    special = {*policy.tokenizer.all_special_ids, policy.tokenizer.eos_token_id}
    # Some chat templates put a line end after the token that ends the turn.
    return any(not special & set(ids[-2:]) for ids in group.response_ids)
