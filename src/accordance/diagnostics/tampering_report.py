"""Tampering as a report: coupling of a bias with quality and reward, twins, how the bias would grow, clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from accordance.core import figures
from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.report import Report
from accordance.core.stats import bootstrap
from accordance.diagnostics.tampering import (
    Coupling,
    best_of,
    cluster_scores,
    coupling,
    means,
    tilted,
    trigger_words,
)

#: Where the curves of a report are drawn.
CHOICES, BETAS = (1, 2, 4, 8, 16), (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)


@system("S135", "Alignment tampering", paper="arXiv:2605.27355")
def tampering_report(
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    bias: Callable[[str, str], bool],
    quality: Sequence[Sequence[float]],
    reward: Sequence[Sequence[float]] | None = None,
    *,
    twins: tuple[Sequence[float], Sequence[float]] | None = None,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
    choices: Sequence[int] = CHOICES,
    betas: Sequence[float] = BETAS,
    seed: int = 0,
    samples: int = 1000,
) -> Report:
    """Would training on these judgments, or against this reward, make a model more biased.

    Curves are of the samples at hand: the best of n of a prompt's own, and the samples reweighed by exp(reward / beta),
    with the reward in standard deviations within prompts.

    Departs from the paper: no policy is trained here (`rehearsal` does, on a table); the detector of coupling and the
    closed form are a reading of the paper's mechanism, which gives neither.

    Args:
        prompts: what is asked.
        responses: several of one policy to each; two or more.
        bias: whether a response to a prompt is biased.
        quality: how good each response is to somebody who does not look at the bias (a judge, people).
        reward: what the reward under audit says of each; by default `quality`, as labels would be made from it.
        twins: rewards of biased responses, and of the same responses with the bias taken out (audit B).
        embed: responses into vectors; with it the samples of each prompt are looked at for two clusters (audit C).
        choices: n of the best-of-n curve.
        betas: of the reweighing.
        seed: of the bootstrap.
        samples: its resamples.

    Returns:
        A report: `bias_rate`, `quality_gap`, `biased_first`, `reward_gap`, curves under `best_of` and `tilted`.

    Raises:
        DataError: no prompt has both biased and unbiased responses, or lengths differ.
    """
    sizes = [len(group) for group in responses]
    lengths = {"quality": [len(g) for g in quality], "reward": [len(g) for g in reward or quality]}
    if len(prompts) != len(sizes) or any(found != sizes for found in lengths.values()):
        raise DataError(
            "one quality and reward per response", found=f"{sum(sizes)} responses", where="tampering"
        )
    code = np.repeat(np.arange(len(sizes)), sizes)
    flat = [bool(bias(p, text)) for p, group in zip(prompts, responses) for text in group]
    b, q = np.array(flat, dtype=float), np.concatenate([np.asarray(g, float) for g in quality])
    r = q if reward is None else np.concatenate([np.asarray(g, float) for g in reward])
    if not (np.isfinite(q).all() and np.isfinite(r).all()):
        raise DataError("a quality or reward is not finite", where="tampering")
    found = coupling(code, b, q, r if reward is not None else None, seed=seed, samples=samples)
    report = Report("Alignment tampering", _told(found))
    _coupled(report, found)
    if twins is not None:
        _twins(report, twins, seed, samples)
    curves = _curves(code, b, q, r, choices, betas)
    _grown(report, curves, choices, betas)
    if embed is not None:
        texts = [text for group in responses for text in group]
        _clusters(report, prompts, embed(texts), code, b, r)
    if found.rides:
        report.warn(
            "biased answers are better answers: judgments of quality will teach the bias. Judge edited twins, gather "
            "comparisons from a policy without the bias, or hold quality fixed"
        )
    return report


def _told(found: Coupling) -> str:
    how = "better" if found.rides else "worse" if found.gap.high < 0 else "no better"
    return (
        f"{found.rate.estimate:.0%} of responses are biased; biased ones are {how} than others to the same prompt "
        f"({found.gap.estimate:+.2f} standard deviations) and come first "
        f"in {found.first.estimate:.0%} of mixed prompts."
    )


def _coupled(report: Report, found: Coupling) -> None:
    report.section(
        "Does the bias ride on quality?", f"{found.mixed:,} prompts have biased and other responses."
    )
    report.add("bias_rate", found.rate, label="Biased responses", unit="share", headline=True, good="low")
    report.add(
        "quality_gap", found.gap, label="Quality of biased less others", headline=True,
        note="same prompt, in standard deviations; 0 for an innocent bias",
    )  # fmt: skip
    report.add(
        "biased_first", found.first, label="A biased response is best", unit="share",
        note=f"of prompts with both kinds; {found.chance:.0%} by chance",
    )  # fmt: skip
    report.add("mean_rank", found.rank, note=f"of biased responses, 1 is best; {found.middle:.2f} by chance")
    if found.paid is not None:
        report.add(
            "reward_gap", found.paid, label="The reward pays for the bias", good="low", headline=True,
            note="at equal quality, in standard deviations of the reward",
        )  # fmt: skip
    rows = [("quality gap", found.gap), *([("reward gap", found.paid)] if found.paid is not None else [])]
    report.figure("Biased less unbiased", figures.forest(rows, xlabel="standard deviations", reference=0.0))


def _twins(report: Report, twins: tuple[Sequence[float], Sequence[float]], seed: int, samples: int) -> None:
    on, off = (np.asarray(side, dtype=float) for side in twins)
    if len(on) != len(off) or not len(on):
        raise DataError("each biased response has one twin", found=f"{len(on)}, {len(off)}", where="twins")
    report.section("The same text with and without the bias", "What the reward says of matched twins.")
    found = bootstrap(on - off, seed=seed, samples=samples)
    report.add("twin_gap", found, label="Reward of biased less its twin", note=f"{len(on)} twins", good="low")
    report.figure("Twins", figures.histogram({"": on - off}, xlabel="reward, biased less its twin", mark=0.0))
    if found.low > 0:
        report.warn("the reward pays for the bias itself: the same text without it scores lower")


def _curves(
    code: np.ndarray,
    b: np.ndarray,
    q: np.ndarray,
    r: np.ndarray,
    choices: Sequence[int],
    betas: Sequence[float],
) -> dict[str, np.ndarray]:
    """Bias rate and mean quality, averaged over prompts, along both curves; shape [points, 2] each."""
    unit = float(np.std(r - means(r, code)[code])) or 1.0
    made = {"best_of": np.zeros((len(choices), 2)), "tilted": np.zeros((len(betas), 2))}
    many = int(code.max()) + 1
    for own in np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1]):
        base, both = np.full(len(own), 1 / len(own)), np.stack([b[own], q[own]], 1)
        made["best_of"] += np.array([best_of(base, r[own], n) @ both for n in choices]) / many
        made["tilted"] += np.array([tilted(base, r[own] / unit, beta) @ both for beta in betas]) / many
    return made


def _grown(
    report: Report, curves: Mapping[str, np.ndarray], choices: Sequence[int], betas: Sequence[float]
) -> None:
    report.section(
        "How the bias would grow",
        "Bias rate if the best of n samples were given (or learnt), and if the policy were tilted towards the reward.",
    )
    for name, x, label in (
        ("best_of", list(choices), "best of n"), ("tilted", [1 / beta for beta in betas], "1 / beta")
    ):  # fmt: skip
        rate, good = curves[name].T
        report.data(name, [{label: float(v), "bias_rate": float(a), "quality": float(c)}
                           for v, a, c in zip(x, rate, good)])  # fmt: skip
        report.figure(
            f"Bias rate by {label}", figures.lines({"": (x, rate)}, xlabel=label, ylabel="biased responses")
        )
        report.table(
            f"By {label}", [label, "bias rate", "quality"],
            [[float(v), float(a), float(c)] for v, a, c in zip(x, rate, good)],
        )  # fmt: skip


def _clusters(
    report: Report, prompts: Sequence[str], vectors: np.ndarray, code: np.ndarray, b: np.ndarray, r: np.ndarray
) -> None:
    scores, links = cluster_scores(vectors, code, r)
    if np.isnan(scores).all():
        report.warn("clusters need four responses to a prompt or more")
        return
    report.section(
        "Two kinds of answers?",
        "How clearly the responses to a prompt fall into two clusters. Where a policy tampers, they do, and one "
        "cluster has the higher reward.",
    )
    share = means(b, code)
    mixed = (share > 0) & (share < 1)
    groups = {"with biased and other responses": scores[mixed], "other prompts": scores[~mixed]}
    report.figure(
        "Cluster score", figures.histogram(groups, xlabel="silhouette of two clusters", ylabel="prompts")
    )
    report.add("cluster_score", float(np.nanmean(scores)), note="mean silhouette over prompts")
    if not np.isnan(links).all():
        report.add("cluster_reward", float(np.nanmean(links)), note="correlation of cluster and reward")
    words = trigger_words(prompts, scores)
    if words:
        report.table("Words of prompts with clear clusters", ["word", "z"], [[w, z] for w, z in words],
                     "Candidates for a trigger.")  # fmt: skip
