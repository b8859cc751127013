"""Trajectories: a policy and an environment take turns; one response, of which only what the policy wrote is learned.

A reward that also answers the policy's turns is an environment: named as the run's `reward`, any online objective
learns from what is played in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from accordance.core.errors import ModelError
from accordance.core.policy import Completion
from accordance.core.record import Message, Record, Response
from accordance.models import LocalPolicy

#: Begins the line of a transcript, as judges and rewards read it, that holds what was observed after a turn. An
#: observation can't be more than a line, and a turn can't write such a line itself.
OBSERVED = "\n[observed] "


@runtime_checkable
class Environment(Protocol):
    """Answers the turns of a policy. It is a `Scorer` or `PairScorer` of transcripts, too."""

    name: str

    def begin(self, record: Record) -> Any:
        """A new episode of a record's task: its state."""
        ...

    def step(self, state: Any, text: str) -> str | None:
        """What the policy sees after a turn of it, or None where the episode is over. May change the state."""
        ...


@dataclass
class _Episode:
    record: Record
    state: Any
    context: list[int]
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    finished: bool = False
    over: bool = False

    def left(self, most: int) -> int:
        return most - len(self.tokens)


def play(
    policy: LocalPolicy,
    environment: Environment,
    asked: Sequence[tuple[Record, Sequence[int]]],
    *,
    n: int,
    max_new_tokens: int,
    seed: int,
    role: str = "tool",
    **sampling: Any,
) -> list[list[Completion]]:
    """`n` trajectories for each prompt.

    Args:
        policy: writes the turns.
        environment: answers them.
        asked: the record and the token ids of each prompt.
        n: trajectories of each.
        max_new_tokens: of a trajectory, observations included; an episode that reaches it is cut.
        seed: of everything sampled.
        role: of the messages in which observations come.
        **sampling: temperature and nucleus.

    Returns:
        For each prompt `n` completions: the text is the transcript, observations after `OBSERVED`; the
        log-probability of tokens that the policy did not write is NaN.
    """
    episodes = [
        _Episode(record, environment.begin(record), list(prompt)) for record, prompt in asked for _ in range(n)
    ]
    turn = 0
    while live := [episode for episode in episodes if not episode.over]:
        drawn = policy.sample_ids(
            [episode.context + episode.tokens for episode in live],
            max_new_tokens=max(episode.left(max_new_tokens) for episode in live),
            seed=seed + 7919 * turn,
            **sampling,
        )
        for episode, (written,) in zip(live, drawn):
            _take(policy, environment, episode, written, max_new_tokens, role)
        turn += 1
    made = [Completion(e.text, e.finished, tuple(e.tokens), tuple(e.logps)) for e in episodes]
    return [made[start : start + n] for start in range(0, len(made), n)]


def _take(
    policy: LocalPolicy, environment: Environment, episode: _Episode, written: Completion, most: int, role: str
) -> None:
    """One turn: what was written, and what is seen after it."""
    left = episode.left(most)
    cut = len(written.token_ids) > left or not written.finished
    text = written.text
    if len(written.token_ids) > left:
        text = policy.tokenizer.decode(written.token_ids[:left], skip_special_tokens=True)
    episode.tokens += written.token_ids[:left]
    episode.logps += written.logprobs[:left]
    episode.text += text.replace(OBSERVED.strip(), "[ observed ]")
    seen = None if cut else environment.step(episode.state, text)
    episode.finished, episode.over = not cut, cut or seen is None
    if seen is None:
        return
    ids = observation_ids(policy, episode.record, seen, role)
    if len(ids) >= episode.left(most):  # no room for another turn
        episode.finished, episode.over = False, True
        return
    episode.tokens += ids
    episode.logps += [math.nan] * len(ids)
    episode.text += f"{OBSERVED}{' '.join(seen.split())}\n"


def observation_ids(policy: LocalPolicy, record: Record, text: str, role: str = "tool") -> list[int]:
    """The tokens between the end of a policy's turn and the beginning of its next one.

    Raises:
        ModelError: the chat template changes what stood before when a turn is added.
    """
    said = Response.of(".")
    before = policy.encode(record.prompt, (said,), record.extras)
    longer = (*record.prompt, *said.messages, Message(role, text))
    whole = policy.encode(longer, (), record.extras).prompt_ids
    first = before.prompt_ids + before.response_ids[0]
    if whole[: len(first)] != first:
        raise ModelError(
            "the chat template changes earlier turns when one is added, so that trajectories can't be one response",
            where=policy.name,
            remedy="a template under which a conversation begins as it did a turn before: chat_template='chatml'",
        )
    return whole[len(first) :]
