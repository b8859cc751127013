"""Dialogues of several turns: a user with hidden wishes reacts to answers, and what comes next should heed it."""

from __future__ import annotations

import random
from typing import Any

from accordance.core.policy import Prompt
from accordance.core.record import Message, as_prompt, chat
from accordance.lab import world
from accordance.lab.assistants.people import COMPLAINTS, PRAISE, LabUser
from accordance.lab.scenes.base import Conversation, Heeding, asked_plainly

#: What users of these dialogues may wish: all of manner.
WISHES = tuple(wish for wish in COMPLAINTS if wish[0] != "correctness")
_MEANS = {words: wish for wish, wordings in COMPLAINTS.items() for words in wordings}


class Dialogues(Heeding):
    """A question, an answer that displeases, a complaint; perhaps a better answer, and another wish or question.

    The answer that is asked for last should heed every wish voiced so far. Users never repeat themselves.
    """

    label = "dialogues"
    about = "conversations of several turns in which users react to what they were answered"

    def ask(self, rng: random.Random) -> Conversation:
        question = asked_plainly(rng)
        first, second = self._two_wishes(rng)
        turns = [Message("user", question), *self._displeased(question, {}, first, rng)]
        voiced = dict([first])
        form = rng.choice(("complaint", "two complaints", "another question"))
        if form == "two complaints":
            turns += self._displeased(question, voiced, second, rng)
        elif form == "another question":
            turns.append(Message("assistant", world.best(question, rng, **voiced)))  # type: ignore[arg-type]
            turns.append(Message("user", f"{rng.choice(PRAISE)} {asked_plainly(rng)}"))
        return tuple(turns)

    def wishes(self, prompt: Prompt) -> dict[str, float]:
        said = [m.content for m in as_prompt(prompt) if m.role == "user"]
        return dict(wish for text in said for words, wish in _MEANS.items() if words in text)

    def facts(self, prompt: Conversation) -> dict[str, Any]:
        return {"wishes": self.wishes(prompt), "turns": len(prompt)}

    def _two_wishes(self, rng: random.Random) -> tuple[tuple[str, float], tuple[str, float]]:
        first = rng.choice(WISHES)
        return first, rng.choice([wish for wish in WISHES if wish[0] != first[0]])

    def _displeased(
        self, question: str, heeded: dict[str, float], wish: tuple[str, float], rng: random.Random
    ) -> list[Message]:
        """An answer that heeds some wishes and not a new one, and what the user says of it."""
        name, value = wish
        wanted = {**heeded, name: 1 - value}
        text = world.best(question, rng, **wanted)
        reaction, _ = LabUser(wishes={name: value}).reacts(question, text, rng)
        return list(chat(("assistant", text), ("user", reaction)))
