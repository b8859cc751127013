"""Prompt augmentation (PAS): a small policy writes a text that goes behind the prompt; the prompt itself stays.

The augmenter imitates complements that were found worth it: the answer to prompt and complement is better, in a judge's
eyes, than the answer to the prompt alone (arXiv:2410.14940, arXiv:2407.06027).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Completion, Policy, Prompt
from accordance.core.record import Account, Message, Records, as_prompt
from accordance.core.views import demonstrations


def complemented(prompt: Prompt, complement: str, separator: str = "\n") -> tuple[Message, ...]:
    """The prompt with a text behind its last user turn; an empty text leaves it as it is.

    Raises:
        DataError: it has no user turn.
    """
    turns = list(as_prompt(prompt))
    if not complement.strip():
        return tuple(turns)
    for place in range(len(turns) - 1, -1, -1):
        if turns[place].role == "user":
            turns[place] = Message("user", turns[place].content + separator + complement)
            return tuple(turns)
    raise DataError("there is no user turn to put a complement behind", found=[turn.role for turn in turns])


@dataclass
class AugmentedPolicy:
    """A policy that answers every prompt with what an augmenter writes behind it. Both stay as they are.

    Attributes:
        policy: who answers.
        augmenter: who writes the complement to a prompt, as its answer to it.
        max_new_tokens: where a complement is cut; one that was cut is not used, and counted.
        temperature: of the augmenter.
        separator: between prompt and complement.
        name: what reports call it.
        account: prompts seen, and those left alone by reason.
    """

    policy: Policy
    augmenter: Policy
    max_new_tokens: int = 128
    temperature: float = 0.0
    separator: str = "\n"
    name: str = ""
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        self.name = self.name or f"{self.policy.name} with {self.augmenter.name}"

    def augmented(self, prompts: Sequence[Prompt], *, seed: int = 0) -> list[tuple[Message, ...]]:
        """The prompts with their complements."""
        sampling = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": seed}
        written = [row[0] for row in self.augmenter.generate(prompts, n=1, **sampling)]
        self.account.read += len(prompts)
        self.account.notes["complement cut at max_new_tokens: not used"] += sum(not w.finished for w in written)
        texts = [completion.text if completion.finished else "" for completion in written]
        return [complemented(prompt, text, self.separator) for prompt, text in zip(prompts, texts)]

    def generate(self, prompts: Sequence[Prompt], *, seed: int = 0, **options: Any) -> list[list[Completion]]:
        """See `accordance.core.policy.Policy.generate`."""
        return self.policy.generate(self.augmented(prompts, seed=seed), seed=seed, **options)

    def records(self, records: Records) -> Records:
        """The records with their prompts augmented; responses and judgments stay."""
        prompts = [record.prompt for record in records]
        made = [replace(r, prompt=p) for r, p in zip(records, self.augmented(prompts), strict=True)]
        return Records.of(made, account=records.account.copy(), source=records.source)


def worth_it(
    pairs: Records,
    answerer: Policy,
    judge: Any,
    *,
    answers: int = 1,
    least: float = 0.0,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    separator: str = "\n",
    seed: int = 0,
) -> Records:
    """Of prompts and complements those whose complement helps: the answer with it is judged better than without.

    Args:
        pairs: demonstrations of a complement to a prompt.
        answerer: who answers; not trained.
        judge: a `Scorer`, or a `PairScorer`, which is asked in both orders. It sees the prompt without complement.
        answers: so many are sampled each way; their mean counts.
        least: by how much the score must be higher, or the probability to win be above one half.
        max_new_tokens, temperature, seed: of the answers.
        separator: between prompt and complement.

    Returns:
        The demonstrations that are left; the others are in the account. ``extras["gain"]`` says how much each helped.

    Raises:
        ConfigError: the judge can neither score nor compare.
        DataError: none is left.
    """
    shown = list(demonstrations(pairs))
    with_it = [complemented(one.prompt, one.response.text, separator) for one in shown]
    sampling = {"n": answers, "max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    plain = answerer.generate([one.prompt for one in shown], **sampling)
    better = answerer.generate(with_it, **sampling)
    asked = [one.prompt for one in shown for _ in range(answers)]
    texts = [[completion.text for row in rows for completion in row] for rows in (better, plain)]
    each = _gains(judge, asked, *texts)
    account, kept = pairs.account.copy(), []
    for place, one in enumerate(shown):
        gain = sum(each[place * answers : (place + 1) * answers]) / answers
        if gain > least:
            kept.append(replace(one.record, extras={**one.record.extras, "gain": gain}))
        else:
            account.drop("the answer is no better with its complement", one.record.origin)
    if not kept:
        raise DataError("no complement makes an answer better", where=pairs.source, found=dict(account.dropped))
    return Records.of(kept, account=account, source=pairs.source)


def _gains(judge: Any, prompts: Sequence[Prompt], better: Sequence[str], plain: Sequence[str]) -> list[float]:
    if hasattr(judge, "score"):
        scores = [judge.score(prompts, texts) for texts in (better, plain)]
        if any(value is None for row in scores for value in row):
            raise DataError("the judge gives no number", where=str(getattr(judge, "name", "")), found=None)
        return [a - b for a, b in zip(*scores, strict=True)]
    if not hasattr(judge, "prob"):
        raise ConfigError("this can neither score nor compare", where="judge", found=type(judge).__name__)
    there, back = judge.prob(prompts, better, plain), judge.prob(prompts, plain, better)
    return [(a + 1 - b) / 2 - 0.5 for a, b in zip(there, back, strict=True)]


@dataclass(frozen=True)
class OfOriginal:
    """A scorer that is shown the prompts as they were before they were augmented.

    Attributes:
        scorer: who scores.
        originals: what each augmented prompt was.
    """

    scorer: Any
    originals: Mapping[tuple[Message, ...], tuple[Message, ...]]

    @property
    def name(self) -> str:
        """The scorer's."""
        return str(getattr(self.scorer, "name", type(self.scorer).__name__))

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any) -> Any:
        """See `accordance.core.scorer.Scorer.score`."""
        asked = [self.originals.get(as_prompt(prompt), prompt) for prompt in prompts]
        return self.scorer.score(asked, completions, **columns)
