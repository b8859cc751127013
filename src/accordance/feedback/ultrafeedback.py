"""UltraFeedback: several models answer under sampled principles, a judge rates every answer on four aspects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.judge import Judge
from accordance.core.policy import Policy
from accordance.core.record import Account, Judgment, Records, Response
from accordance.core.views import ratings
from accordance.feedback.synthesis import (
    EMPTY,
    Cost,
    Draft,
    Synthesis,
    alive,
    answers,
    count_flags,
    generator,
    note,
    pairs_of,
)

#: aspect -> what its five grades mean.
ASPECTS: Mapping[str, str] = {
    "instruction_following": (
        "Aspect: instruction following. 1: does something else; 2: touches what was asked; 3: does part of it; "
        "4: does it with small slips; 5: does exactly what was asked."
    ),
    "honesty": (
        "Aspect: honesty about what is known. 1: sure and wrong, or makes things up; 2: sure beyond reason; "
        "3: says too little of its doubts, or too much; 4: nearly as sure as it should be; 5: as sure as it is right."
    ),
    "truthfulness": (
        "Aspect: truthfulness. 1: nearly all of it is false or contradicts itself; 2: mostly false; 3: half of it; "
        "4: small errors; 5: nothing false."
    ),
    "helpfulness": (
        "Aspect: helpfulness. 1: of no use, or harmful; 2: hardly of use; 3: of use in parts; 4: useful; "
        "5: all that one could wish for, clearly put."
    ),
}

#: principle -> what a model is told that shall show it.
PRINCIPLES: Mapping[str, str] = {
    "helpfulness": "Be helpful: answer what was asked, fully and to the point.",
    "truthfulness": "Be truthful: say only what is so, and be correct in every detail.",
    "honesty": "Be honest: say what you do not know, and do not make anything up.",
    "calibration": "Say in words how sure you are of what you claim.",
}

#: Which principles the prompts of a source get, as probabilities; of the paper's mixture.
MIXTURES: Mapping[str, Mapping[str, float]] = {
    "": {"helpfulness": 0.6, "truthfulness": 0.2, "honesty": 0.18, "calibration": 0.02},
    "flan": {"helpfulness": 0.6, "truthfulness": 0.2, "calibration": 0.2},
    "truthful_qa": {"truthfulness": 1.0},
    "false_qa": {"truthfulness": 1.0},
    "evol_instruct": {"helpfulness": 1.0},
}


@dataclass(frozen=True)
class _Draw:
    models: tuple[int, ...]
    principles: tuple[str, ...]


@system("S073", "UltraFeedback", paper="arXiv:2310.01377")
class UltraFeedback(Synthesis):
    """Ratings of several models' answers on four aspects, each aspect in a call of its own.

    For each prompt `per_prompt` distinct models are drawn, and for each of them a principle that a system message
    tells it. All answers to a prompt are shown together, once per aspect, with reference answers where the prompt has
    any (``extras["correct_answers"]``); the reason comes before the rating. The score of an answer is the mean over
    aspects, stored as a rating without an attribute: ``views.pairs(records, attribute=None)`` gives every pair of
    answers with unequal scores, its `gap` the margin; `binarise` the common choice of one. With `critique`, each
    answer also gets a critique and an overall score from 1 to 10, guarded by `guarded_overall`.

    Departures: the pool of prompts is whatever records are given (quotas by source are the caller's); the wording of
    principles and rubrics is ours.

    Args:
        models: at least `per_prompt` of them, with different names.
        judge: on a scale of 1 to 5 (``PolicyJudge(policy, scale=(1, 5))``).
        per_prompt: answers to each prompt.
        aspects: name -> rubric.
        mixtures: source (``extras["source"]``, ``""`` for others) -> principle -> probability.
        critique: also ask for a critique and an overall score of each answer.
        overall_judge: who gives the overall scores, on a scale of 1 to 10; needed with `critique`.
        max_new_tokens, temperature, seed: of the answers.

    Raises:
        ConfigError: too few models, two of one name, an unknown principle, or `critique` without its judge.
    """

    name = "ultrafeedback"

    def __init__(
        self,
        models: Sequence[Policy],
        judge: Judge,
        *,
        per_prompt: int = 4,
        aspects: Mapping[str, str] = ASPECTS,
        mixtures: Mapping[str, Mapping[str, float]] = MIXTURES,
        critique: bool = False,
        overall_judge: Judge | None = None,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not 2 <= per_prompt <= len(models) or len({m.name for m in models}) < len(models):
            raise ConfigError(
                "every answer to a prompt comes from another model",
                where="models",
                found=[m.name for m in models],
                expected=f"at least {max(per_prompt, 2)} models with different names",
            )
        unknown = {p for mixture in mixtures.values() for p in mixture} - set(PRINCIPLES)
        if unknown or "" not in mixtures:
            raise ConfigError("mixtures are of known principles, one of them for ''", found=sorted(unknown))
        if critique != (overall_judge is not None):
            raise ConfigError("overall scores need critique=True and overall_judge, both or neither")
        self.models, self.judge, self.per_prompt = list(models), judge, per_prompt
        self.aspects, self.mixtures, self.overall_judge = dict(aspects), mixtures, overall_judge
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        self.seed = seed

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """Answers, a rating call per aspect and vote, and two calls per answer for critique and overall score."""
        n, votes = len(drafts), getattr(self.judge, "votes", 1)
        costs = [Cost("responses", m.name, 0) for m in self.models]
        drawn = [self._draw(draft).models for draft in drafts]
        for i, model in enumerate(self.models):
            costs[i] = Cost("responses", model.name, sum(i in models for models in drawn))
        costs.append(Cost("aspect ratings", self.judge.name, n * len(self.aspects) * votes))
        if self.overall_judge is not None:
            costs.append(Cost("critiques", self.judge.name, n * self.per_prompt))
            each = getattr(self.overall_judge, "votes", 1)
            costs.append(Cost("overall scores", self.overall_judge.name, n * self.per_prompt * each))
        return costs

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Answer and rate."""
        self._answer(drafts)
        ready = alive(drafts)
        scores: dict[str, list[tuple[float, ...] | None]] = {}
        for aspect, rubric in self.aspects.items():
            notes = [_references(draft) for draft in ready]
            found = self.judge.rank(
                [d.prompt for d in ready], [d.texts for d in ready], rubric=rubric, notes=notes
            )
            scores[aspect] = [ranked.values for ranked in found]
            if aspect == next(iter(self.aspects)):  # the same texts each time
                count_flags(account, [kinds for ranked in found for kinds in ranked.flags])
            for draft, ranked in zip(ready, found, strict=True):
                if ranked.values is not None:
                    shown = tuple(range(len(draft.responses)))
                    draft.judgments.append(
                        Judgment(
                            "rating", shown, ranked.values, ranked.reason, self.judge.name, attribute=aspect
                        )
                    )
                elif draft.dropped is None:
                    draft.dropped = f"ratings of {aspect} could not be read"
        for i, draft in enumerate(ready):
            if draft.dropped is None:
                mean = np.mean([found for aspect in self.aspects if (found := scores[aspect][i])], axis=0)
                self._score(draft, [float(v) for v in mean], account)
        if self.overall_judge is not None:
            self._overall(alive(ready), account)

    def _draw(self, draft: Draft) -> _Draw:
        rng = generator(self.seed, draft, "models")
        models = rng.sample(range(len(self.models)), self.per_prompt)
        mixture = self.mixtures.get(str(draft.extras.get("source", "")), self.mixtures[""])
        principles = rng.choices(list(mixture), list(mixture.values()), k=self.per_prompt)
        return _Draw(tuple(models), tuple(principles))

    def _answer(self, drafts: Sequence[Draft]) -> None:
        draws = [self._draw(draft) for draft in drafts]
        texts: dict[tuple[int, int], str] = {}
        for m, model in enumerate(self.models):
            for principle, told in PRINCIPLES.items():
                rows = [
                    i
                    for i, d in enumerate(draws)
                    if m in d.models and d.principles[d.models.index(m)] == principle
                ]
                for i, group in zip(
                    rows, answers(model, [drafts[i] for i in rows], told, **self.options), strict=True
                ):
                    texts[i, m] = group[0].text
        for i, (draft, draw) in enumerate(zip(drafts, draws)):
            draft.responses = [Response.of(texts[i, m], source=self.models[m].name) for m in draw.models]
            draft.extras["principles"] = list(draw.principles)
            sources = [f"{self.models[m].name} told {p}" for m, p in zip(draw.models, draw.principles)]
            draft.provenance |= {"responses": sources, "labels": self.judge.name}
            if any(not text.strip() for text in draft.texts):
                draft.dropped = EMPTY

    def _score(self, draft: Draft, mean: list[float], account: Account) -> None:
        shown = tuple(range(len(draft.responses)))
        draft.judgments.append(Judgment("rating", shown, tuple(mean), annotator=self.judge.name))
        many = len(mean) * (len(mean) - 1) // 2
        note(account, "pairs with a margin", sum(1 for _ in pairs_of(mean)))
        note(account, "pairs that tie", many - sum(1 for _ in pairs_of(mean)))

    def _overall(self, drafts: Sequence[Draft], account: Account) -> None:
        assert self.overall_judge is not None
        prompts = [draft.prompt for draft in drafts for _ in draft.responses]
        texts = [text for draft in drafts for text in draft.texts]
        said = iter(self.judge.critique(prompts, texts))
        rated = iter(self.overall_judge.rate(prompts, texts))
        for draft in drafts:
            mean = draft.judgments[-1].values
            overall: list[float | None] = []
            for k in range(len(draft.responses)):
                critique, rating = next(said), next(rated)
                if critique is not None:
                    draft.judgments.append(Judgment("critique", (k,), text=critique, annotator=self.judge.name))
                aspects = [j.values[k] for j in draft.judgments if j.attribute in self.aspects]
                value = None if rating.value is None else guarded_overall(rating.value, aspects)
                note(
                    account,
                    "overall scores that contradicted every aspect, replaced",
                    int(value != rating.value),
                )
                note(account, "overall scores that could not be read", int(value is None))
                overall.append(value)
            draft.extras["overall"] = {"scores": overall, "aspect_means": list(mean)}


def guarded_overall(overall: float, aspects: Sequence[float]) -> float:
    """An overall score (1 to 10), or what the aspects (1 to 5) say where it contradicts every one of them.

    The published data hold 10 where 1.0 was meant. A score contradicts an aspect where it lies more than half the
    scale from it; where it does so from all of them, on one side, their mean on the scale of 1 to 10 is taken.
    """
    meant = [1 + (value - 1) * 9 / 4 for value in aspects]
    above, below = all(overall - m > 4.5 for m in meant), all(m - overall > 4.5 for m in meant)
    return sum(meant) / len(meant) if meant and (above or below) else overall


def binarise(records: Records, seed: int = 0) -> Records:
    """The common choice of one pair per prompt: the best answer against a random one of a lower score.

    Args:
        records: as `UltraFeedback` makes them (or its data set, read with ``load_records``).
        seed: of the choice.

    Returns:
        Records of two responses, best first, and one comparison whose strength is the margin. Prompts whose answers
        all tie, or have no score, are dropped in the account.
    """
    account, made = records.account.copy(), []
    for record in records:
        scored = next((j for j in record.judgments if j.kind == "rating" and j.attribute is None), None)
        if scored is None:
            account.drop("no overall rating", record.origin)
            continue
        lower = [k for k, value in enumerate(scored.values) if value < max(scored.values)]
        if not lower:
            account.drop("all answers tie", record.origin)
            continue
        best = scored.values.index(max(scored.values))
        other = generator(seed, Draft(record.prompt, record.id)).choice(lower)
        judged = Judgment(
            "comparison",
            (0, 1),
            (1.0, 0.0),
            annotator=scored.annotator,
            strength=scored.values[best] - scored.values[other],
        )
        pair = tuple(record.responses[scored.responses[k]] for k in (best, other))
        made.append(type(record)(record.prompt, pair, (judged,), record.id, record.origin, record.extras))
    found = Records.of(made, source=records.source)
    return Records(found.dataset, account, records.source)


def length_correlation(records: Records) -> float:
    """Correlation between an answer's words and its mean rating: judges favour long answers. NaN without spread."""
    points = [(len(r.response.text.split()), r.value) for r in ratings(records, attribute=None)]
    words, values = np.array(points, dtype=float).reshape(-1, 2).T
    if len(points) < 2 or not words.std() or not values.std():
        return float("nan")
    return float(np.corrcoef(words, values)[0, 1])


def _references(draft: Draft) -> str | None:
    found = draft.extras.get("correct_answers")
    return f"Correct answers: {'; '.join(map(str, found))}" if found else None


__all__ = [
    "ASPECTS",
    "MIXTURES",
    "PRINCIPLES",
    "UltraFeedback",
    "binarise",
    "guarded_overall",
    "length_correlation",
]
