"""Asking for what one does not know: intents, beliefs about them, and questions worth the bits they bring (S160).

An intent is a filled-in form. A belief says of every field how likely each value is, the fields taken as
independent; a question is worth the entropy that its answer removes, which telescopes over a dialogue.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Prompt
from accordance.core.record import Message, as_prompt

Intent = Mapping[str, str]
#: What an answer says: the values that each field may still have.
Update = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class IntentSchema:
    """A form: fields, each with finitely many values, all equally likely before anything is said.

    Attributes:
        fields: values by the field's name.

    Raises:
        ConfigError: no fields, or one with values twice or none.
    """

    fields: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        made = {name: tuple(map(str, values)) for name, values in self.fields.items()}
        for name, values in made.items():
            if not values or len(set(values)) < len(values):
                raise ConfigError("a field needs different values", where=f"field {name}", found=values)
        if not made:
            raise ConfigError("a form without fields leaves nothing to ask", where="fields")
        object.__setattr__(self, "fields", made)

    def sample(self, draw: np.random.Generator) -> dict[str, str]:
        """A random intent."""
        return {name: values[int(draw.integers(len(values)))] for name, values in self.fields.items()}

    def belief(self) -> Belief:
        """The belief before anything is said."""
        return Belief({name: dict.fromkeys(v, 1 / len(v)) for name, v in self.fields.items()})

    def after(self, prompt: Prompt) -> Belief:
        """The belief after a dialogue: what the user's turns say in the form ``field: value or value``."""
        belief = self.belief()
        for message in as_prompt(prompt):
            if message.role == "user":
                belief = belief.updated(self.read(message.content))
        return belief

    def read(self, text: str) -> dict[str, tuple[str, ...]]:
        """What a text says in the form ``field: value or value``, one field to a line or between semicolons."""
        said = {}
        for part in re.split(r"[;\n]", text):
            name, colon, values = part.partition(":")
            name = name.strip()
            if colon and name in self.fields:
                found = tuple(v.strip().rstrip(".") for v in re.split(r"\bor\b|,", values))
                known = tuple(v for v in found if v in self.fields[name])
                if known:
                    said[name] = known
        return said

    def asked(self, question: str) -> tuple[str, ...]:
        """The fields that a question names, as whole words."""
        return tuple(
            name
            for name in self.fields
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", question, flags=re.IGNORECASE)
        )


@dataclass(frozen=True)
class Belief:
    """How likely each value of each field is; fields are independent.

    Attributes:
        probs: probabilities by field and value.
    """

    probs: Mapping[str, Mapping[str, float]]

    @property
    def entropy(self) -> float:
        """Bits that are not known yet."""
        return sum(_entropy(values.values()) for values in self.probs.values())

    def updated(self, said: Update) -> Belief:
        """The belief once these fields are known to have one of these values.

        Raises:
            DataError: a field is not known, or what is said has no probability left.
        """
        probs = dict(self.probs)
        for name, allowed in said.items():
            if name not in probs:
                raise DataError("an answer is about a field that is not in the form", found=name)
            kept = {value: p for value, p in probs[name].items() if value in allowed}
            total = sum(kept.values())
            if total <= 0:
                raise DataError(
                    "an answer contradicts what was said before",
                    where=f"field {name}",
                    found=allowed,
                    expected=f"one of {[v for v, p in probs[name].items() if p > 0]}",
                )
            probs[name] = {value: kept.get(value, 0.0) / total for value in probs[name]}
        return Belief(probs)

    def gain(self, said: Update) -> float:
        """Bits that an answer removes: entropy before less entropy after; below 0 only where it misleads."""
        after = self.updated(said)
        return sum(_entropy(self.probs[n].values()) - _entropy(after.probs[n].values()) for n in said)


class User(Protocol):
    """Answers questions about an intent."""

    def answer(self, intent: Intent, asked: Sequence[str], draw: np.random.Generator) -> Update:
        """What they say of the fields they were asked for; fields they can't tell are left out."""
        ...


@dataclass(frozen=True)
class UserSimulator:
    """A user who knows the form as well as their expertise goes.

    Attributes:
        schema: the form.
        vague: share of fields of which they name the right value among others (half of the field's values).
        unsure: share of fields of which they don't know.
    """

    schema: IntentSchema
    vague: float = 0.0
    unsure: float = 0.0

    def __post_init__(self) -> None:
        if min(self.vague, self.unsure) < 0 or self.vague + self.unsure > 1:
            raise ConfigError("shares of answers", where="UserSimulator", found=(self.vague, self.unsure))

    def answer(self, intent: Intent, asked: Sequence[str], draw: np.random.Generator) -> Update:
        """See `User.answer`."""
        said: dict[str, tuple[str, ...]] = {}
        for name in asked:
            luck, values = draw.random(), self.schema.fields[name]
            if luck < self.unsure:
                continue
            if luck < self.unsure + self.vague:
                others = [value for value in values if value != intent[name]]
                more = draw.permutation(len(others))[: max(math.ceil(len(values) / 2) - 1, 1)]
                said[name] = tuple(sorted({intent[name], *(others[i] for i in more)}))
            else:
                said[name] = (intent[name],)
        return said


def said_text(said: Update) -> str:
    """An answer as a text that `IntentSchema.read` reads."""
    return "; ".join(f"{name}: {' or '.join(v)}" for name, v in said.items()) or "I don't know."


@system("S160", "Nous", paper="arXiv:2510.27410")
@dataclass(frozen=True)
class Inquiry:
    """A reward for questions, and the environment that answers them.

    The reward of a question is the bits that the user's answer removes from the belief, less a cost per turn and per
    further field asked for at once. It is computed from what the dialogue says, never from what the policy claims;
    asking again for what is known is worth nothing. As a Scorer it reads the dialogue so far from the prompt and the
    user's intent from a column; the same question in the same dialogue gets the same answer. Simulator, vagueness
    and the wording of answers are our reading; fields that hang together would need a joint belief.

    Attributes:
        schema: the form.
        user: answers; a `UserSimulator` who knows everything by default.
        turn_cost: bits that a question costs.
        extra_cost: bits that each field after the first costs, in one question.
        column: the column that holds intents.
        seed: of the answers.
        name: what reports call it.
    """

    schema: IntentSchema
    user: User | None = None
    turn_cost: float = 0.0
    extra_cost: float = 0.0
    column: str = "intent"
    seed: int = 0
    name: str = "inquiry"

    #: Prompts that are alike differ by the intents behind them.
    columns: tuple[str, ...] = field(default=("intent",), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", (self.column,))

    def reply(self, prompt: Prompt, question: str, intent: Intent) -> Update:
        """What the user says to a question in a dialogue."""
        turns = as_prompt(prompt)
        key = repr((self.seed, [(m.role, m.content) for m in turns], question, sorted(intent.items()))).encode()
        draw = np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big"))
        return (self.user or UserSimulator(self.schema)).answer(intent, self.schema.asked(question), draw)

    def gain(self, prompt: Prompt, question: str, intent: Intent) -> float:
        """Bits that a question brings, costs aside."""
        return self.schema.after(prompt).gain(self.reply(prompt, question, intent))

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`; None where no intent is known."""
        intents = columns.get(self.column) or [None] * len(prompts)
        return [
            None if intent is None else self.gain(prompt, question, intent) - self._cost(question)
            for prompt, question, intent in zip(prompts, completions, intents, strict=True)
        ]

    def _cost(self, question: str) -> float:
        return self.turn_cost + self.extra_cost * max(len(self.schema.asked(question)) - 1, 0)

    def goes_on(self, prompt: Prompt, question: str, intent: Intent) -> tuple[Message, ...]:
        """The dialogue after a question and the user's answer."""
        said = self.reply(prompt, question, intent)
        return (*as_prompt(prompt), Message("assistant", question), Message("user", said_text(said)))


def _entropy(probs: Any) -> float:
    return -sum(p * math.log2(p) for p in probs if p > 0)
