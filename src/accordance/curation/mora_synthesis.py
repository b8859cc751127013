"""MORA as a way of making feedback: prompts in, those that can earn several kinds of reward out, with a pair each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from accordance.core.errors import ConfigError
from accordance.core.judge import Judge
from accordance.core.policy import Policy, Prompt
from accordance.core.policy_judge import asker
from accordance.core.record import Account, Message, Records, Response
from accordance.core.requests import Request
from accordance.curation.mora import Expansion, Rewrite, expand
from accordance.feedback.synthesis import Cost, Draft, Synthesis, best_and_worst, note

TURNS = "it is more than one user turn, of which a rewrite would keep the last alone"
SINGLE = "it can earn one kind of reward at most, and no rewrite was good enough"
UNREAD = "ratings that could not be read, taken for the mean of the aspect"


class RatedAspect:
    """A Scorer: how a judge rates one aspect of responses.

    Args:
        judge: on a scale.
        aspect: its name; perhaps, after a colon, what it means.
        account: where ratings that can't be read are counted.
    """

    def __init__(self, judge: Judge, aspect: str, account: Account) -> None:
        self.judge, self.account = judge, account
        self.name, _, meaning = (part.strip() for part in aspect.partition(":"))
        self.rubric = f"Only the {self.name} of the response, nothing else about it. {meaning}".strip()

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`; a rating that could not be read is the mean of the others."""
        found = [r.value for r in self.judge.rate(prompts, completions, rubric=self.rubric)]
        read = [value for value in found if value is not None]
        note(self.account, UNREAD, len(found) - len(read))
        mean = float(np.mean(read)) if read else None
        return [mean if value is None else value for value in found]


class AskedRewriter:
    """A Rewriter that is a model: it is told what answers to a prompt can't show yet.

    Args:
        policy: is asked for rewrites.
        max_new_tokens, seed: of its answers.
    """

    def __init__(self, policy: Policy, *, max_new_tokens: int = 256, seed: int = 0) -> None:
        self.policy, self.max_new_tokens, self.seed = policy, max_new_tokens, seed

    def rewrite(self, prompts: Sequence[str], missing: Sequence[Sequence[str]], attempt: int) -> list[str]:
        """See `accordance.curation.mora.Rewriter.rewrite`; empty where no rewrite could be read."""
        how = (
            "Rewrite a prompt so that good answers to it also have to show what is missing, and can be better or worse "
            "at it. Keep its core need, and as many of its words as you can; do not answer it. A prompt that asks how "
            "to do something risky may ask how to be safe from it. End with a line PROMPT: and the new prompt."
        )
        asked = [
            Request("expand", how, {"prompt": prompt, "missing": ", ".join(names)})
            for prompt, names in zip(prompts, missing, strict=True)
        ]
        ask = asker(self.policy, max_new_tokens=self.max_new_tokens, temperature=1.0, seed=self.seed + attempt)
        return [_read(answer.text) for answer in ask(asked)]


class RewardExpansion(Synthesis):
    """Prompts that can earn several kinds of reward, some of them rewritten so that they can, by MORA (S144).

    Rewards are a judge's ratings of named aspects; each record is the best and the worst answer to a prompt by the mean
    of its normalised rewards, and says in its extras which aspects are ``active``, the ``conflict`` and ``diversity``
    of its rewards, and what it was ``rewritten_from``. Ratings are normalised over the answers to all prompts, so
    that nothing is whole before all of it is; what was answered costs nothing when a run is resumed.

    Args:
        policy: writes the answers.
        judge: rates them.
        rewriter: rewrites prompts.
        aspects: two or more, each a name and perhaps, after a colon, what it means.
        samples, reach, top, similar, loss, tries: see `expand`.
        max_new_tokens, temperature, seed: of the answers.

    Raises:
        ConfigError: fewer than two aspects, one that is there twice or has no name, or see `expand`.
    """

    name = "mora"

    def __init__(
        self,
        policy: Policy,
        judge: Judge,
        rewriter: Policy,
        *,
        aspects: Sequence[str],
        samples: int = 16,
        reach: float = 0.5,
        top: float = 0.0,
        similar: float = 0.6,
        loss: float = 0.2,
        tries: int = 3,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        names = [aspect.partition(":")[0].strip() for aspect in aspects]
        if len(names) < 2 or len(set(names)) < len(names) or not all(names):
            raise ConfigError("two or more different aspects are rewarded", where="aspects", found=names)
        if samples < 2 or tries < 1 or not 0 <= similar <= 1:
            raise ConfigError(
                "two samples, one try, and a similarity from 0 to 1", found=f"{samples=}, {tries=}, {similar=}"
            )
        if temperature == 0:
            raise ConfigError("answers that are all the same earn nothing", where="temperature", found=0)
        self.policy, self.judge, self.rewriter, self.aspects = policy, judge, rewriter, tuple(aspects)
        self.how = {
            "samples": samples,
            "reach": reach,
            "top": top,
            "similar": similar,
            "loss": loss,
            "tries": tries,
        }
        self.how |= {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        self.samples, self.tries, self.seed = samples, tries, seed
        self._pool: list[Draft] = []
        self._found: Expansion | None = None

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """One for each prompt that is a single user turn; others are dropped."""
        made = []
        for draft in super().drafts(records, account):
            if len(draft.prompt) == 1 and draft.prompt[0].role in ("user", "text"):
                made.append(draft)
            else:
                account.drop(TURNS, draft.origin)
        self._pool, self._found = made, None
        return made

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """Answers and their ratings, for each prompt once and once more for each rewrite; and the rewrites."""
        answers = len(drafts) * self.samples * (1 + self.tries)
        ratings = answers * len(self.aspects) * getattr(self.judge, "votes", 1)
        return [
            Cost("responses", self.policy.name, answers),
            Cost("ratings", self.judge.name, ratings),
            Cost("rewrites", self.rewriter.name, len(drafts) * self.tries),
        ]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Expand the whole pool when its first drafts are asked for, and fill these."""
        places = {id(draft): place for place, draft in enumerate(self._pool)}
        if not all(id(draft) in places for draft in drafts):
            self._pool, self._found = list(drafts), None
            places = {id(draft): place for place, draft in enumerate(drafts)}
        if self._found is None:
            self._found = self._expand(account)
        rewrites = {rewrite.index: rewrite for rewrite in self._found.rewrites}
        for draft in drafts:
            place = places[id(draft)]
            self._fill(draft, place, self._found, rewrites.get(place), account)

    def _expand(self, account: Account) -> Expansion:
        scorers = [RatedAspect(self.judge, aspect, account) for aspect in self.aspects]
        found = expand(
            [draft.prompt[0].content for draft in self._pool],
            self.policy,
            {scorer.name: scorer for scorer in scorers},
            AskedRewriter(self.rewriter, max_new_tokens=self.how["max_new_tokens"], seed=self.seed),
            **self.how,
        )
        note(account, "prompts that could earn one kind of reward at most", int(found.before.single.sum()))
        note(account, "prompts that were rewritten", sum(rewrite.kept for rewrite in found.rewrites))
        why = Counter(rewrite.reason for rewrite in found.rewrites if not rewrite.kept)
        for reason, many in why.items():
            note(account, f"prompts whose last rewrite was refused: {reason}", many)
        return found

    def _fill(
        self, draft: Draft, place: int, found: Expansion, rewrite: Rewrite | None, account: Account
    ) -> None:
        if found.after.single[place]:
            draft.dropped = SINGLE
            return
        conflict = float(found.after.conflict[place])
        draft.extras |= {
            "active": [name for name, on in zip(found.dimensions, found.after.active[place]) if on],
            "conflict": None if np.isnan(conflict) else round(conflict, 4),
            "diversity": round(float(found.after.diversity[place]), 4),
        }
        if rewrite is not None and rewrite.kept:
            draft.extras |= {"rewritten_from": draft.prompt[0].content, "gained": list(rewrite.gained)}
            draft.provenance["prompt"] = f"{draft.origin}, rewritten by {self.rewriter.name}"
            draft.prompt = (Message(draft.prompt[0].role, rewrite.prompt),)
        draft.responses = [Response.of(text, source=self.policy.name) for text in found.answers[place]]
        best_and_worst(draft, found.rewards[place].mean(1).tolist(), self.judge.name, account)


def _read(answer: str) -> str:
    """What stands behind ``PROMPT:``, to the end; empty where that is not there exactly once."""
    parts = re.split(r"^[ \t*]*PROMPT[ \t*]*:[ \t*]*", answer, flags=re.MULTILINE)
    return parts[1].strip() if len(parts) == 2 else ""
