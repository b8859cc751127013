"""Candidates to choose among: independent ones, several models', jointly written ones that differ, diverse subsets.

What a candidate set never contains, preferences over it can't teach (Community Alignment, arXiv:2507.09650).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Policy
from accordance.core.policy_judge import asker, conversation
from accordance.core.record import Account, Records, Response
from accordance.core.report import Report
from accordance.core.requests import Request
from accordance.core.stats import bootstrap
from accordance.feedback.synthesis import EMPTY, Cost, Draft, alive, answers, generator, note

#: Similarity of two texts in [0, 1].
Similarity = Callable[[str, str], float]
MARKER = "=====NEXT====="


@runtime_checkable
class CandidateSampler(Protocol):
    """Writes candidate responses to the prompts of drafts."""

    name: str

    def fill(self, drafts: Sequence[Draft], account: Account) -> None:
        """Set `responses` of each draft, or `dropped`."""
        ...

    def cost(self, prompts: int) -> list[Cost]:
        """Calls at most."""
        ...


class IndependentSampler:
    """Candidates that don't know of each other: `n` from each policy.

    Args:
        policies: who writes; several make a mixture of models.
        n: candidates of each.
        max_new_tokens, temperature, seed: see `accordance.core.policy.Policy.generate`.

    Raises:
        ConfigError: fewer than two candidates in all.
    """

    name = "independent"

    def __init__(
        self,
        policies: Policy | Sequence[Policy],
        n: int = 4,
        *,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.policies = list(policies) if isinstance(policies, Sequence) else [policies]
        self.n, self.seed = n, seed
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        if n * len(self.policies) < 2:
            raise ConfigError("a choice needs two candidates", found=f"{len(self.policies)} policies x {n}")

    def cost(self, prompts: int) -> list[Cost]:
        """One call for each candidate."""
        return [Cost("responses", policy.name, prompts * self.n) for policy in self.policies]

    def fill(self, drafts: Sequence[Draft], account: Account) -> None:
        """Sample; a draft with an empty response is dropped, equal ones are counted."""
        some = alive(drafts)
        for policy in self.policies:
            found = answers(
                policy,
                some,
                n=self.n,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                seed=self.seed,
            )
            for draft, group in zip(some, found, strict=True):
                draft.responses += [Response.of(c.text, source=policy.name) for c in group]
                note(account, "responses cut at max_new_tokens", sum(not c.finished for c in group))
        for draft in some:
            _check(draft)


class JointSampler:
    """Candidates written in one go, so that they differ: negatively correlated sampling.

    One generation is asked for several responses that stand for different values, parted by a marker; the values
    are not named. The rest of the set are ordinary answers. The order is shuffled, so that their kind can't be
    told from their place.

    Args:
        policy: who writes.
        joint: responses written together.
        ordinary: ordinary answers besides (as in the data set: 3 joint ones and 1 ordinary one).
        max_new_tokens: of one response; the joint generation gets as many for each.
        temperature, seed: see `accordance.core.policy.Policy.generate`.
    """

    name = "joint"

    def __init__(
        self,
        policy: Policy,
        joint: int = 3,
        ordinary: int = 1,
        *,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if joint < 2 or ordinary < 0:
            raise ConfigError("two responses at least are written together", found=f"{joint=}, {ordinary=}")
        self.policy, self.joint, self.ordinary, self.seed = policy, joint, ordinary, seed
        self.max_new_tokens, self.temperature = max_new_tokens, temperature

    def cost(self, prompts: int) -> list[Cost]:
        """One call for the joint ones, one for each ordinary one."""
        calls = [Cost("joint responses", self.policy.name, prompts)]
        return (
            [*calls, Cost("responses", self.policy.name, prompts * self.ordinary)] if self.ordinary else calls
        )

    def fill(self, drafts: Sequence[Draft], account: Account) -> None:
        """Sample; a draft whose joint generation is not exactly `joint` texts is dropped."""
        some = alive(drafts)
        how = (
            f"Do not answer once: write {self.joint} responses to the prompt, such that people who hold different "
            "values would each find one that speaks for them. Each response stands for itself and does not mention "
            f"the others. Part them by a line that says {MARKER} and write nothing else."
        )
        ask = asker(
            self.policy,
            max_new_tokens=self.max_new_tokens * self.joint,
            temperature=self.temperature,
            seed=self.seed,
        )
        written = ask([Request("several", how, {"prompt": conversation(d.prompt)}) for d in some])
        for draft, completion in zip(some, written, strict=True):
            texts = [
                text.strip() for text in re.split(rf"^\s*{MARKER}\s*$", completion.text, flags=re.MULTILINE)
            ]
            if len(texts) != self.joint:
                draft.dropped = f"{len(texts)} joint responses instead of {self.joint}"
                continue
            draft.responses += [Response.of(text, source=f"{self.policy.name} (joint)") for text in texts]
        rest = alive(some)
        options = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "seed": self.seed}
        plain = answers(self.policy, rest, n=self.ordinary, **options) if self.ordinary else [[]] * len(rest)
        for draft, group in zip(rest, plain, strict=True):
            draft.responses += [Response.of(c.text, source=self.policy.name) for c in group]
            generator(self.seed, draft, "order").shuffle(draft.responses)
            _check(draft)


class DiverseSampler:
    """The most diverse of many candidates: greedy choice by log det of their similarities, and their quality.

    Args:
        pool: writes the candidates to choose from.
        n: how many to keep.
        weight: of diversity against quality. 0 keeps those of the highest quality (the first ones, without one).
        similarity: of two texts, in [0, 1]; by default the share of words that they share.
        quality: of (prompt, text), in nats, such as a log-likelihood; 0 by default.
    """

    name = "diverse"

    def __init__(
        self,
        pool: CandidateSampler,
        n: int = 4,
        *,
        weight: float = 1.0,
        similarity: Similarity | None = None,
        quality: Callable[[str, str], float] | None = None,
    ) -> None:
        if n < 2 or weight < 0:
            raise ConfigError(
                "a choice needs two candidates, and a weight of 0 or more", found=f"{n=}, {weight=}"
            )
        self.pool, self.n, self.weight, self.quality = pool, n, weight, quality
        self.similarity = similarity or shared_words

    def cost(self, prompts: int) -> list[Cost]:
        """What the pool costs."""
        return self.pool.cost(prompts)

    def fill(self, drafts: Sequence[Draft], account: Account) -> None:
        """Sample the pool and choose; a draft with too small a pool is dropped."""
        self.pool.fill(drafts, account)
        for draft in alive(drafts):
            if len(draft.responses) < self.n:
                draft.dropped = "fewer candidates than were to be kept"
                continue
            texts, prompt = draft.texts, conversation(draft.prompt)
            kernel = np.array(
                [
                    [1.0 if i == j else self.similarity(a, b) for j, b in enumerate(texts)]
                    for i, a in enumerate(texts)
                ]
            )
            quality = np.array([self.quality(prompt, t) if self.quality else 0.0 for t in texts])
            kept = diverse_subset(kernel, quality, self.n, self.weight)
            note(account, "candidates left out as too similar", len(texts) - len(kept))
            draft.responses = [draft.responses[i] for i in kept]


def diverse_subset(kernel: np.ndarray, quality: np.ndarray, n: int, weight: float) -> list[int]:
    """Greedy maximiser of sum of quality + weight * log det of the kernel of the chosen.

    Args:
        kernel: similarities, shape [m, m], ones on the diagonal.
        quality: shape [m].
        n: how many to choose.
        weight: of diversity.

    Returns:
        Indices in the order chosen.
    """
    jitter = kernel + 1e-6 * np.eye(len(kernel))
    chosen: list[int] = []
    for _ in range(n):
        left = [i for i in range(len(kernel)) if i not in chosen]

        def gain(i: int) -> float:
            rows = [*chosen, i]
            sign, log_det = np.linalg.slogdet(jitter[np.ix_(rows, rows)])
            return (
                float(quality[i] + weight * (log_det if sign > 0 else -math.inf))
                if weight
                else float(quality[i])
            )

        chosen.append(max(left, key=gain))
    return chosen


def shared_words(one: str, other: str) -> float:
    """Share of words that two texts have in common (Jaccard), in [0, 1]."""
    a, b = set(one.casefold().split()), set(other.casefold().split())
    return len(a & b) / len(a | b) if a | b else 1.0


def independent_coverage(p: float, k: int) -> float:
    """Probability that at least one of `k` independent candidates is of a kind that comes with probability `p`."""
    return 1 - (1 - p) ** k


@system("S069", "Community Alignment", paper="arXiv:2507.09650")
def coverage(records: Records, position: Callable[[str, str], Mapping[str, float]], *, seed: int = 0) -> Report:
    """What candidate sets contain: for each value and each side of it, how many sets hold a response on that side.

    The samplers beside it make the sets: `IndependentSampler`, `JointSampler` (negatively correlated) and
    `DiverseSampler`.

    Args:
        records: prompts, each with its candidates.
        position: of (prompt, response): value axis -> position, 0.5 the middle, towards 0 and 1 the sides (a judge
            or a known function).
        seed: of the intervals.

    Returns:
        A report with `coverage_<axis>_low` and `coverage_<axis>_high`, what independent draws from the same pool of
        responses would give (`independent_...`), and the mean similarity of two candidates of a set.

    Raises:
        DataError: a record with fewer than two responses, or no records.
    """
    if len(records) == 0 or any(len(record.responses) < 2 for record in records):
        raise DataError("every prompt needs two candidates to choose among", where=records.source)
    places: list[list[Mapping[str, float]]] = []
    alike: list[float] = []
    for record in records:
        texts = [response.text for response in record.responses]
        places.append([position(conversation(record.prompt), text) for text in texts])
        alike.append(float(np.mean([shared_words(a, b) for i, a in enumerate(texts) for b in texts[:i]])))
    report = Report("What candidate sets contain", meta={"records": len(records), "source": records.source})
    rows = []
    for axis in sorted({axis for group in places for place in group for axis in place}):
        for side, on in (("low", lambda v: v < 0.5), ("high", lambda v: v > 0.5)):
            groups = [[place[axis] for place in group if axis in place] for group in places]
            groups = [group for group in groups if group]
            held = bootstrap([float(any(on(v) for v in group)) for group in groups], seed=seed)
            share = float(np.mean([on(v) for group in groups for v in group]))
            alone = float(np.mean([independent_coverage(share, len(group)) for group in groups]))
            name = f"{axis}_{side}"
            report.add(f"coverage_{name}", held, label=f"{axis}: sets with a {side} response", unit="share")
            report.data(f"independent_{name}", alone)
            rows.append([axis, side, share, held, alone])
    columns = ["value", "side", "share of responses", "sets that hold one", "if drawn independently"]
    report.table(
        "Coverage", columns, rows, "A side that few sets hold can't be learnt from choices among them."
    )
    report.add("similarity", bootstrap(alike, seed=seed), label="Words that two candidates share", good="low")
    return report


def _check(draft: Draft) -> None:
    texts = draft.texts
    if any(not text.strip() for text in texts):
        draft.dropped = EMPTY
    elif len(set(texts)) == 1:
        draft.dropped = "all candidates are the same text"
    draft.provenance["responses"] = [response.source for response in draft.responses]
