"""Reactions in conversations: where users show that they are content or not, and which answer they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from accordance.core import requests
from accordance.core.policy import Policy
from accordance.core.policy_judge import asker, conversation
from accordance.core.record import Message, Record
from accordance.core.requests import Request

#: Kinds of content and of discontent (the rubric of WildFeedback, arXiv:2408.15549).
SATISFIED = (
    "gratitude",
    "learning",
    "compliance",
    "praise",
    "personal details",
    "humour",
    "acknowledgement",
    "positive closure",
    "getting closer",
)
DISSATISFIED = (
    "negative feedback",
    "revision request",
    "factual error",
    "unrealistic expectation",
    "no engagement",
    "ignored",
    "low quality",
    "insufficient detail",
    "style",
)

_RULES: Mapping[str, str] = {
    "gratitude": r"\b(?:thanks?|thank you|thx|cheers|much appreciated|grateful)\b(?! (?:for nothing|but))",
    "learning": (
        r"\b(?:now i (?:understand|see|get it)|i (?:just )?learn(?:ed|t)|makes sense|i see now|"
        r"that clears)\b"
    ),
    "praise": (
        r"\b(?:perfect|great|excellent|awesome|wonderful|brilliant|fantastic|amazing|good job|well done|nice|"
        r"(?:very|so|really|most) helpful|love (?:it|this|that)|just what i|exactly what i|spot on|impressive)\b"
    ),
    "humour": r"\b(?:haha+|lol|lmao|you crack me up)\b",
    "acknowledgement": (
        r"^(?:ok(?:ay)?|alright|got it|right|yes,? that works|that works|correct)[.!, ]*(?:$|\b)"
    ),
    "positive closure": (
        r"\b(?:that(?:'s| is) all (?:i|for now)|have a (?:nice|good|great|lovely) (?:day|one|evening))\b"
    ),
    "getting closer": (
        r"\b(?:(?:much )?better now|getting (?:closer|there)|(?:almost|nearly) (?:there|right|perfect))\b"
    ),
    "negative feedback": (
        r"\b(?:(?:that|this|it)(?:'s| is| was) (?:\w+ )?(?:bad|terrible|awful|rude|unfriendly|useless|horrible|"
        r"disappointing|not (?:what|helpful|good|useful|ok))|(?:so|too|that) rude|don'?t like|hate (?:it|this|that)|"
        r"not helpful|no good|be (?:nicer|polite|kinder)|your tone|politely|disappointed|terrible|useless)\b"
    ),
    "revision request": (
        r"\b(?:try again|rewrite|redo|rephrase|(?:say|do|write|put) (?:it|that|this) (?:again|differently|in |as |more|"
        r"politely|playfully|shorter)|instead\b.*\bplease|make it (?!up)\w+|once more|shorten|shorter|"
        r"keep it (?:short|brief|serious|simple)|be (?:brief|concise|more|less)|simplify|"
        r"i (?:want|wanted|need) (?:a|the|something) )\b"
    ),
    "factual error": (
        r"\b(?:wrong|incorrect|not (?:correct|right|true|accurate)|mistaken?|error|false|inaccurate|isn'?t (?:right|"
        r"true|correct)|check (?:it|that|your))\b"
    ),
    "ignored": (
        r"\b(?:you (?:ignored|forgot|missed|skipped|didn'?t (?:answer|do|read|listen))|i (?:asked|said|"
        r"told you))\b"
    ),
    "low quality": (
        r"\b(?:makes? no sense|gibberish|confus(?:ing|ed)|unclear|too (?:many|vague|long|silly|generic|"
        r"wordy))\b"
    ),
    "insufficient detail": (
        r"\b(?:more (?:detail|details|depth|information|than that)|tell me more|elaborate|explain (?:further|more)|"
        r"too short|lacks? detail|expected more|go deeper)\b"
    ),
    "style": (
        r"\b(?:too (?:formal|stiff|casual|informal|dry)|so stiff|more (?:formal|casual|playful|fun)|"
        r"(?:the|this) style|loosen up|(?:less|un)formal|don'?t joke)\b"
    ),
}
_PATTERNS = {label: re.compile(pattern, re.IGNORECASE) for label, pattern in _RULES.items()}


@dataclass(frozen=True)
class Moment:
    """A user's turn after an answer.

    Attributes:
        context: the conversation up to the answer, which it leaves out.
        answer: what was answered.
        reaction: what the user said next.
        turn: the place of the answer in the conversation, counted in messages from 0.
    """

    context: tuple[Message, ...]
    answer: Message
    reaction: str
    turn: int


class Detector(Protocol):
    """Says which kinds of content or discontent reactions show."""

    name: str

    def labels(self, moments: Sequence[Moment]) -> list[tuple[str, ...] | None]:
        """For each reaction its kinds, () for neither, None where the detector could not be read."""
        ...

    def calls(self, moments: int) -> int:
        """How many calls that takes."""
        ...


class RuleDetector:
    """Finds reactions by their words. Free, in English, and blind to what is not said outright.

    It can't tell compliance, personal details, unrealistic expectation and lack of engagement.
    """

    name = "rules"

    def labels(self, moments: Sequence[Moment]) -> list[tuple[str, ...] | None]:
        """See `Detector.labels`; where words of both sides stand there, the discontent counts."""
        found: list[tuple[str, ...] | None] = []
        for moment in moments:
            labels = tuple(label for label, pattern in _PATTERNS.items() if pattern.search(moment.reaction))
            against = tuple(label for label in labels if label in DISSATISFIED)
            found.append(against or labels)
        return found

    def calls(self, moments: int) -> int:
        """None."""
        return 0


class AskedDetector:
    """Asks a text model about each reaction.

    Args:
        policy: who is asked.
        max_new_tokens: where an answer is cut.
    """

    def __init__(self, policy: Policy, *, max_new_tokens: int = 128) -> None:
        self.policy, self.name, self.max_new_tokens = policy, policy.name, max_new_tokens

    def labels(self, moments: Sequence[Moment]) -> list[tuple[str, ...] | None]:
        """See `Detector.labels`."""
        how = (
            "A user reacts to an answer. Say whether the reaction shows that the user is satisfied or dissatisfied "
            "with this answer, or neither. Answer with a line SIGNAL: satisfied, dissatisfied or none; unless it is "
            f"none, add a line LABELS: with kinds from this list, parted by commas. Satisfied: "
            f"{', '.join(SATISFIED)}. Dissatisfied: {', '.join(DISSATISFIED)}."
        )
        asked = [
            Request(
                "label",
                how,
                {"prompt": conversation(m.context), "response": m.answer.content, "reaction": m.reaction},
            )
            for m in moments
        ]
        answers = asker(self.policy, max_new_tokens=self.max_new_tokens)(asked)
        return [_read(answer.text) for answer in answers]

    def calls(self, moments: int) -> int:
        """One for each."""
        return moments


def satisfaction(labels: Sequence[str]) -> int:
    """1 content, -1 not, 0 neither."""
    return -1 if set(labels) & set(DISSATISFIED) else int(bool(set(labels) & set(SATISFIED)))


def moments(record: Record) -> list[Moment]:
    """Every user turn of a conversation that follows an answer; the answer before it is what it speaks of.

    The conversation is the prompt of the record and its first response.
    """
    turns = [*record.prompt, *(record.responses[0].messages if record.responses else ())]
    return [
        Moment(tuple(turns[: i - 1]), turns[i - 1], turn.content, i - 1)
        for i, turn in enumerate(turns)
        if i > 1 and turn.role == "user" and turns[i - 1].role == "assistant"
    ]


def _read(answer: str) -> tuple[str, ...] | None:
    signal = requests.choice(answer, "SIGNAL", ("satisfied", "dissatisfied", "none"))
    if signal is None:
        return None
    if signal == "none":
        return ()
    allowed = SATISFIED if signal == "satisfied" else DISSATISFIED
    named = [label.strip().casefold() for label in (requests.one(answer, "LABELS") or "").split(",")]
    return tuple(label for label in named if label in allowed) or None
