"""Answers to held-out prompts before and after: what the policies write, how long, how repetitive, how far apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accordance.core.policy import Completion
from accordance.core.record import Message, Record, Records, Response
from accordance.evaluation.likelihood import Logps, _logps, prompt_key, scores_likelihood
from accordance.models.packing import Group

#: What separates the reference's seed from the policy's.
_REFERENCE_SEED = 1 << 20


@dataclass(frozen=True)
class Answers:
    """Sampled answers, one row per (prompt, sample).

    Attributes:
        prompts: the prompt of each row.
        keys: a key of the prompt of each row; rows of one prompt hang together.
        origins: the id or origin of the record that the prompt came from.
        after: what the policy wrote.
        before: what the reference wrote; None without one.
        logp, ref_logp: log-probability of `after` under policy and reference, summed over its tokens, shape
            [rows]; NaN where it can't be had; None where no reference or no likelihoods are there.
        tokens: tokens that these sums run over, shape [rows], or None.
    """

    prompts: list[tuple[Message, ...]]
    keys: list[str]
    origins: list[str]
    after: list[Completion]
    before: list[Completion] | None = None
    logp: np.ndarray | None = None
    ref_logp: np.ndarray | None = None
    tokens: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.after)

    @property
    def unit(self) -> str:
        """What lengths count: tokens, or words where a provider tells no tokens."""
        return "tokens" if all(c.token_ids for c in [*self.after, *(self.before or [])]) else "words"

    @property
    def log_ratio(self) -> np.ndarray | None:
        """log pi - log ref of each answer, shape [rows]; not finite where one of them rules it out or is unknown."""
        if self.logp is None or self.ref_logp is None:
            return None
        with np.errstate(invalid="ignore"):
            return self.logp - self.ref_logp

    def length(self, completions: Sequence[Completion]) -> np.ndarray:
        """Lengths in `unit`, shape [rows]."""
        return np.array([len(self._pieces(c)) for c in completions], dtype=np.float64)

    def repetition(self, completions: Sequence[Completion], size: int = 4) -> np.ndarray:
        """Share of n-grams of `size` that stood earlier in the same answer, shape [rows]; 0 for short answers."""
        return np.array([repeated(self._pieces(c), size) for c in completions])

    def distinct(self, completions: Sequence[Completion], size: int = 2) -> float:
        """Distinct n-grams over all n-grams of all answers together (Li et al. 2016); NaN without any."""
        grams = [gram for c in completions for gram in _grams(self._pieces(c), size)]
        return len(set(grams)) / len(grams) if grams else float("nan")

    def _pieces(self, completion: Completion) -> Sequence[Any]:
        return completion.token_ids if self.unit == "tokens" else completion.text.split()


def repeated(pieces: Sequence[Any], size: int = 4) -> float:
    """Share of the n-grams of `size` in a sequence that are repeats of an earlier one; 0 where there are none."""
    grams = _grams(pieces, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def draw(
    policy: Any,
    records: Records,
    reference: Any = None,
    *,
    samples: int,
    per_prompt: int = 1,
    seed: int = 0,
    **options: Any,
) -> Answers:
    """Let policy and reference answer the same held-out prompts, and score the policy's answers under both.

    Args:
        policy, reference: see `accordance.core.policy.Policy`.
        records: where the prompts come from; each different prompt once, records without a prompt left out.
        samples: at most so many prompts, drawn by the seed.
        per_prompt: answers to each.
        seed: of the choice of prompts and of the sampling. The reference samples from a seed of its own: from the
            same one both would often write the same answer, and such ties pull a win rate towards one half.
        **options: `max_new_tokens`, `temperature`, `top_p`.
    """
    unique: dict[str, Record] = {}
    for record in records:
        if record.prompt:
            unique.setdefault(prompt_key(record.prompt), record)
    keys = list(unique)
    if len(keys) > samples:
        keys = [keys[i] for i in sorted(np.random.default_rng(seed).permutation(len(keys))[:samples])]
    prompts = [unique[key].prompt for key in keys]

    def write(who: Any, seed: int) -> list[Completion]:
        if not prompts:
            return []
        return [c for made in who.generate(prompts, n=per_prompt, seed=seed, **options) for c in made]

    rows = [i for i in range(len(keys)) for _ in range(per_prompt)]
    answers = Answers(
        prompts=[prompts[i] for i in rows],
        keys=[keys[i] for i in rows],
        origins=[unique[keys[i]].id or unique[keys[i]].origin for i in rows],
        after=write(policy, seed),
        before=None if reference is None else write(reference, seed + _REFERENCE_SEED),
    )
    if (
        not len(answers)
        or reference is None
        or not (scores_likelihood(policy) and scores_likelihood(reference))
    ):
        return answers
    own, ref, tokens = _score(policy, reference, answers)
    return Answers(**{**answers.__dict__, "logp": own, "ref_logp": ref, "tokens": tokens})


def _score(policy: Any, reference: Any, answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of the policy's answers under both policies, by one path.

    Where both share a tokenisation the very tokens that were sampled are scored, so that an answer cut at the
    limit gets no end token that it never had. Elsewhere the text is scored, and cut answers are NaN.
    """
    if _same_tokens(policy, reference) and all(c.token_ids for c in answers.after):
        own, lengths = policy.score_groups(_token_groups(policy, answers))
        ref, _ = reference.score_groups(_token_groups(reference, answers))
        return np.array(own), np.array(ref), np.array(lengths, dtype=np.float64)
    records = [Record(prompt, (Response.of(c.text),)) for prompt, c in zip(answers.prompts, answers.after)]
    tables: list[Logps] = [_logps(policy, records), _logps(reference, records)]
    cut = np.array([not c.finished for c in answers.after])
    sums = [np.array([table[i, 0][0] for i in range(len(records))]) for table in tables]
    for column in sums:
        column[cut] = np.nan
    return sums[0], sums[1], np.array([tables[0][i, 0][1] for i in range(len(records))], dtype=np.float64)


def _token_groups(policy: Any, answers: Answers) -> list[Group]:
    """One group per prompt with the sampled tokens of its answers, in the order of the rows."""
    starts = [i for i, key in enumerate(answers.keys) if i == 0 or key != answers.keys[i - 1]]
    heads = policy.encoder.encode_many([(answers.prompts[i], (), {}) for i in starts])
    sampled = [list(c.token_ids) for c in answers.after]
    return [
        Group(head.prompt_ids, sampled[start:end])
        for head, start, end in zip(heads, starts, [*starts[1:], len(answers)])
    ]


def _same_tokens(policy: Any, reference: Any) -> bool:
    both = (policy, reference)
    if not all(hasattr(p, "score_groups") and hasattr(p, "encoder") and hasattr(p, "tokenizer") for p in both):
        return False
    mine, theirs = policy.tokenizer, reference.tokenizer
    return mine is theirs or (
        mine.get_vocab() == theirs.get_vocab() and mine.chat_template == theirs.chat_template
    )


def _grams(pieces: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    return [tuple(pieces[i : i + size]) for i in range(len(pieces) - size + 1)]
