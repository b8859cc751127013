"""Multifaceted Collection (Janus): every instruction under several system messages, with an answer fit for each."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.policy import Policy
from accordance.core.record import Account, Judgment, Records, Response
from accordance.feedback.synthesis import EMPTY, Cost, Draft, Synthesis, alive, generator, instructed, note

#: dimension -> preference -> wordings of it. Of each dimension a system message expresses one preference.
Hierarchy = Mapping[str, Mapping[str, Sequence[str]]]

HIERARCHY: Hierarchy = {
    "style": {
        "formal": ("Be formal.", "Please be formal in every sentence."),
        "playful": ("Be playful.", "I like it light, so be playful."),
    },
    "informativeness": {
        "brief": ("Be brief.", "I have little time: be brief."),
        "detailed": ("Explain it in detail.", "Tell me more than I ask, in detail."),
    },
    "manner": {
        "polite": ("Be polite.", "I care about courtesy, be polite."),
        "blunt": ("Use less politeness.", "I prefer plain words and less politeness."),
    },
    "caution": {
        "careful": ("Say how sure you are.", "Always tell me how sure you can be."),
        "decided": ("Show less hedging.", "Take a stand, with less hedging."),
    },
}


@system("S030", "Janus", paper="arXiv:2405.17977")
class Multifaceted(Synthesis):
    """Preference data without a judge: the answer to one system message against the answer to another.

    For each instruction `sets` different sets of preferences are drawn, one preference of every dimension, and put
    into words as a system message; `writer` answers the instruction under each. A record holds one system message and
    the instruction as its prompt, the answer written for it as chosen, and the answer that was written for another
    system message of the same instruction as rejected: fluent, but fit for somebody else. A share of instructions
    also comes without a system message, as a demonstration, lest plain prompts are unlearnt. Supervised training uses
    the chosen answers, a reward model ``r(system, prompt, response)`` and DPO the pairs. Split by
    ``extras["instruction"]``.

    Departures: a system message is put together from given wordings, not written by a model; preferences are drawn
    without looking at the instruction; the rubric benchmark is not here (`PolicyJudge.rate` takes a rubric).

    Args:
        writer: a strong model that heeds system messages.
        hierarchy: what preferences there are.
        sets: system messages per instruction.
        plain: share of instructions that also come without one.
        allowed: which sets of preferences may be drawn, as mappings from dimension to preference; all by default.
        max_new_tokens, temperature, seed: of the answers.

    Raises:
        ConfigError: fewer than two sets, more than can be drawn, or a share outside [0, 1].
    """

    name = "janus"

    def __init__(
        self,
        writer: Policy,
        *,
        hierarchy: Hierarchy = HIERARCHY,
        sets: int = 3,
        plain: float = 0.1,
        allowed: Sequence[Mapping[str, str]] | None = None,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.allowed = [dict(some) for some in allowed] if allowed is not None else combinations(hierarchy)
        if not 2 <= sets <= len(self.allowed) or not 0 <= plain <= 1:
            raise ConfigError(
                "every instruction needs two system messages or more",
                found=f"{sets=}, {plain=}",
                expected=f"2 to {len(self.allowed)} sets",
            )
        self.writer, self.hierarchy, self.sets, self.plain, self.seed = writer, hierarchy, sets, plain, seed
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """For each prompt one draft per system message, and for some one without."""
        made: list[Draft] = []
        for base in super().drafts(records, account):
            rng = generator(self.seed, base, "preferences")
            drawn = rng.sample(self.allowed, self.sets)
            told = [self.message(chosen, generator(self.seed, base, str(chosen))) for chosen in drawn]
            for k, (chosen, message) in enumerate(zip(drawn, told)):
                extras = {**base.extras, "instruction": base.id, "preferences": chosen, "system": message}
                extras["other"] = told[(k + 1) % self.sets]
                made.append(
                    Draft(base.prompt, f"{base.id}-{k}", base.origin, [], [], extras, dict(base.provenance))
                )
            if rng.random() < self.plain:
                extras = {**base.extras, "instruction": base.id, "preferences": {}, "system": "", "other": ""}
                made.append(
                    Draft(base.prompt, f"{base.id}-plain", base.origin, [], [], extras, dict(base.provenance))
                )
        account.read = len(made) + sum(account.dropped.values())  # what is counted from here on is drafts
        return made

    def message(self, chosen: Mapping[str, str], rng: random.Random) -> str:
        """A set of preferences as a system message, in some order and wording."""
        words = [rng.choice(self.hierarchy[d][p]) for d, p in chosen.items()]
        rng.shuffle(words)
        return " ".join(words)

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """One answer for each system message (with a cache: a block that ends between them asks one again)."""
        return [Cost("responses", self.writer.name, len(drafts))]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Answer under every system message, and pair each answer with another one's."""
        asked = {}
        for draft in drafts:
            for told in (draft.extras["system"], draft.extras["other"]):
                asked.setdefault((draft.extras["instruction"], told), instructed(draft.prompt, told))
        written = self.writer.generate(list(asked.values()), **self.options) if asked else []
        texts = {key: group[0].text for key, group in zip(asked, written, strict=True)}
        for draft in drafts:
            mine, other = (texts[draft.extras["instruction"], draft.extras[k]] for k in ("system", "other"))
            self._fill(draft, mine, other)
        note(account, "rows without a system message", sum(not d.extras["preferences"] for d in alive(drafts)))

    def _fill(self, draft: Draft, mine: str, other: str) -> None:
        told = draft.extras.pop("system")
        elsewhere, name = draft.extras.pop("other"), self.writer.name
        draft.prompt = instructed(draft.prompt, told)
        if not mine.strip() or not other.strip():
            draft.dropped = EMPTY
        elif not told:
            draft.responses = [Response.of(mine, source=name)]
            draft.judgments = [Judgment("demonstration", (0,), annotator=name)]
        elif mine == other:
            draft.dropped = "two system messages got the same answer"
        else:
            draft.responses = [
                Response.of(mine, source=name),
                Response.of(other, source=f"{name} told otherwise"),
            ]
            draft.judgments = [Judgment("comparison", (0, 1), (1.0, 0.0), annotator="matched system message")]
            draft.extras["rejected_system"] = elsewhere
        draft.provenance |= {
            "responses": [r.source for r in draft.responses],
            "labels": "matched system message",
        }


def combinations(hierarchy: Hierarchy) -> list[dict[str, str]]:
    """Every set with one preference of each dimension."""
    found: list[dict[str, str]] = [{}]
    for dimension, preferences in hierarchy.items():
        found = [{**some, dimension: preference} for some in found for preference in preferences]
    return found
