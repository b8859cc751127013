"""`evaluate`: from a policy and held-out records to a Report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.evaluation import findings
from accordance.evaluation.headlines import headlines
from accordance.evaluation.judging import Judge, Judges, Verdicts, judge
from accordance.evaluation.likelihood import PairTable, pair_table, scores_likelihood
from accordance.evaluation.sampling import Answers, draw
from accordance.evaluation.saving import write_samples


class AdapterOff:
    """A policy without its adapter, and without users: the reference that every adapter carries with it.

    Args:
        policy: a `LocalPolicy` with an adapter.
    """

    def __init__(self, policy: Any) -> None:
        self.policy, self.name = policy.for_nobody(), f"{policy.name} without its adapter"
        self.tokenizer, self.encoder = policy.tokenizer, self.policy.encoder

    def generate(self, *args: Any, **options: Any) -> Any:
        """`Policy.generate` of the base model."""
        with self.policy.adapter_off():
            return self.policy.generate(*args, **options)

    def logprobs(self, records: Any) -> Any:
        """`LocalPolicy.logprobs` of the base model."""
        with self.policy.adapter_off():
            return self.policy.logprobs(records)

    def score_groups(self, groups: Any) -> Any:
        """`LocalPolicy.score_groups` of the base model."""
        with self.policy.adapter_off():
            return self.policy.score_groups(groups)


def evaluate(
    policy: Any,
    records: Records | str | os.PathLike[str],
    *,
    reference: Any = None,
    scorer: Judges | None = None,
    by_group: Mapping[str, Judge] | None = None,
    samples: int = 200,
    per_prompt: int = 1,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    show: int = 8,
    output_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Measure a policy on held-out records, against the reference it came from.

    Args:
        policy: a policy, or a path or hub name of one.
        records: held-out records, or a source that `load_records` reads.
        reference: the policy before alignment, or its path or name; by default the base model where the policy
            carries an adapter, else none (then there is no win rate, no KL, and accuracy is by likelihood alone).
        scorer: who compares answers after and before: a `Scorer`, a `PairScorer`, or a mapping from group to one
            of these. Without one there is no win rate.
        by_group: a scorer for each group of people beside an overall `scorer`, for the win rate by group.
        samples: at most so many held-out prompts are answered; 0 for none.
        per_prompt: answers to each prompt.
        max_new_tokens, temperature, top_p: of the sampling; KL is of the policy itself at temperature 1, top_p 1.
        show: how many answers stand side by side in the report.
        output_dir: where to write `report.json`, `report.html` and `samples.parquet`; None writes nothing.
        seed: of sampling and of the intervals.
        title: of the report.

    Returns:
        A Report with at least the keys `win_rate`, `win_rate_ci95`, `preference_accuracy`,
        `preference_accuracy_ci95`, `kl`, `chosen_logp_change`, `rejected_logp_change`, `length_before`,
        `length_after`, `by_group` and `records`; null where not measurable, with a warning that says why.

    Raises:
        DataError: there are no held-out records.
        ConfigError: an option is out of range, or would have no effect.
    """
    _check(scorer, by_group, samples, per_prompt, show)
    policy, records = _policy(policy), _records(records)
    reference = AdapterOff(policy) if reference is None and _adapted(policy) else _policy(reference)
    if len(records) == 0:
        raise DataError(
            "there is nothing to evaluate on",
            where=records.source,
            found="0 held-out records",
            expected="at least one",
            remedy="hold out a larger share, or pass records that training did not see",
        )
    pairs = _pairs(policy, records, reference)
    answers: Answers | None = None
    verdicts: Verdicts | None = None
    if samples:
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        answers = draw(policy, records, reference, samples=samples, per_prompt=per_prompt, seed=seed, **options)
        if scorer is not None and answers.before is not None and len(answers):
            verdicts = judge(answers, scorer, by_group)

    report = Report(
        title or f"Evaluation of {policy.name}",
        meta={
            "policy": policy.name,
            "reference": None if reference is None else reference.name,
            "records": {"source": records.source, "held_out": len(records)},
            "sampling": {
                "prompts": samples,
                "per_prompt": per_prompt,
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "seed": seed,
            },
        },
    )
    headlines(report, pairs, answers, verdicts, scorer=scorer, reference=reference, seed=seed)
    findings.groups(report, pairs, verdicts, seed=seed)
    if pairs is not None and len(pairs):
        findings.preferences(report, pairs, seed=seed)
    if answers is not None and len(answers):
        exact = temperature == 1 and top_p == 1
        findings.answers(report, answers, verdicts, seed=seed, exact=exact)
        findings.side_by_side(report, answers, verdicts, show=show, seed=seed)
    bare = sum(bool({"tools", "chat_template_kwargs"} & set(record.extras)) for record in records)
    if answers is not None and bare:
        report.warn(
            f"{bare} of {len(records)} held-out records carry tools or chat_template_kwargs: their prompts were "
            "answered without them, since Policy.generate takes none. The preference numbers do use them."
        )
    findings.account(report, records)
    if output_dir is not None:
        folder = Path(output_dir)
        if answers is not None and len(answers):
            write_samples(folder / "samples.parquet", answers, verdicts)
        report.save(folder)
    return report


def _check(scorer: Any, by_group: Any, samples: int, per_prompt: int, show: int) -> None:
    if samples < 0 or per_prompt < 1 or show < 0:
        raise ConfigError(
            "sampling options are out of range",
            found=f"samples={samples}, per_prompt={per_prompt}, show={show}",
            expected="samples >= 0, per_prompt >= 1, show >= 0",
        )
    if by_group is not None and scorer is None:
        raise ConfigError(
            "by_group has no effect without an overall scorer",
            where="evaluate",
            remedy="pass the mapping as scorer: its groups then count the same",
        )
    if scorer is not None and samples == 0:
        raise ConfigError(
            "a scorer has no effect without samples",
            where="evaluate",
            found="scorer given, samples=0",
            remedy="set samples above 0, or leave the scorer out",
        )


def _pairs(policy: Any, records: Records, reference: Any) -> PairTable | None:
    """Scored pairs; None where the policy can't say how likely a response is."""
    if not scores_likelihood(policy):
        return None
    usable = reference if reference is not None and scores_likelihood(reference) else None
    return pair_table(policy, records, usable)


def _adapted(policy: Any) -> bool:
    return bool(getattr(policy, "has_adapter", False))


def _policy(given: Any) -> Any:
    if not isinstance(given, (str, os.PathLike)):
        return given
    from accordance.models import load_policy

    return load_policy(Path(given) if isinstance(given, os.PathLike) else given)


def _records(given: Any) -> Records:
    if isinstance(given, Records):
        return given.materialise()
    from accordance.feedback import load_records  # pyright: ignore[reportAttributeAccessIssue]

    return load_records(given).materialise()
