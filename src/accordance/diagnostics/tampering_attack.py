"""The attack of S135 on a table: styles x {biased, unbiased}, honest labels, a fitted reward, an optimised policy.

Everything but the labels is exact, so that a pipeline and its mitigations can be rehearsed in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from accordance.analysis import cells
from accordance.analysis.regression import logit
from accordance.core import figures
from accordance.core.errors import ConfigError, unknown
from accordance.core.report import Report
from accordance.diagnostics.tampering import best_of, tilted
from accordance.diagnostics.tampering_report import BETAS, CHOICES

Mitigation = Literal["none", "twins", "decoupled", "ensemble", "shrunk"]
#: What each mitigation does.
MITIGATIONS: dict[str, str] = {
    "none": "the reward as it comes",
    "twins": "each response and its twin without the bias are labelled equal",
    "decoupled": "comparisons from a policy whose biased answers are no better",
    "ensemble": "the weights of eight rewards, each fitted to a resample of the labels, are averaged",
    "shrunk": "weights are penalised, so that a reward carries less of everything",
}


@dataclass(frozen=True)
class Reward:
    """A reward linear in bias and style; `bias` is what it pays for the bias itself."""

    bias: float
    style: float


@dataclass(frozen=True)
class Attack:
    """A policy whose biased answers are better by `coupling`.

    Responses are pairs (style s, biased or not b); quality is s + coupling * b, and the judge prefers y to z with
    probability sigmoid(slope * (quality of y - quality of z)): the judge never looks at the bias.

    Attributes:
        coupling: how much better biased answers are; 0 is an innocent bias.
        rate: share of biased answers before training.
        styles: how many.
        slope: of the judge.
        comparisons: labels gathered.
        seed: of the labels.
    """

    coupling: float = 1.0
    rate: float = 0.2
    styles: int = 20
    slope: float = 2.0
    comparisons: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.styles < 2 or self.comparisons < 1:
            raise ConfigError("an attack out of range", found=self, expected="0 < rate < 1, two styles or more")

    @property
    def biased(self) -> np.ndarray:
        """1 for biased responses, shape [2 * styles]."""
        return np.tile([0.0, 1.0], self.styles)

    @property
    def style(self) -> np.ndarray:
        """The style of each response, from -1 to 1, shape [2 * styles]."""
        return np.repeat(np.linspace(-1, 1, self.styles), 2)

    @property
    def quality(self) -> np.ndarray:
        """How good each response is, shape [2 * styles]."""
        return self.style + self.coupling * self.biased

    @property
    def reference(self) -> np.ndarray:
        """Probabilities before training, shape [2 * styles]."""
        return np.where(self.biased > 0, self.rate, 1 - self.rate) / self.styles

    def labels(self, coupling: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Honest comparisons of answers drawn from the policy: first, second (indices), and 1 where the first won."""
        g = np.random.default_rng(self.seed)
        drawn = g.choice(len(self.reference), p=self.reference, size=(2, self.comparisons))
        quality = self.style + (self.coupling if coupling is None else coupling) * self.biased
        won = g.random(self.comparisons) < expit(self.slope * (quality[drawn[0]] - quality[drawn[1]]))
        return drawn[0], drawn[1], won.astype(float)

    def reward(self, mitigation: str = "none", strength: float = 8.0) -> Reward:
        """The Bradley-Terry reward that the labels teach.

        Args:
            mitigation: a name of `MITIGATIONS`.
            strength: how often each pair of twins counts; and the precision, per ten comparisons, with which weights
                are shrunk.

        Raises:
            ConfigError: an unknown mitigation.
        """
        if mitigation not in MITIGATIONS:
            raise unknown("mitigation", mitigation, MITIGATIONS)
        a, b, won = self.labels(0.0 if mitigation == "decoupled" else None)
        features = np.stack([self.biased, self.style], 1)
        x, weight = features[a] - features[b], np.ones(len(a))
        if mitigation == "twins":
            alike = np.tile([1.0, 0.0], (int(self.biased[a].sum() + self.biased[b].sum()), 1))
            x, won = np.concatenate([x, alike]), np.concatenate([won, np.full(len(alike), 0.5)])
            weight = np.concatenate([weight, np.full(len(alike), strength)])
        if mitigation == "ensemble":
            g = np.random.default_rng(self.seed + 1)
            fits = [logit(x[i], won[i]) for i in (g.integers(len(x), size=len(x)) for _ in range(8))]
            return Reward(*np.mean(fits, axis=0).tolist())
        ridge = strength * self.comparisons / 80 if mitigation == "shrunk" else 1e-2
        return Reward(*logit(x, won, weight, ridge=ridge).tolist())

    def values(self, reward: Reward) -> np.ndarray:
        """What the reward says of each response, shape [2 * styles]."""
        return reward.bias * self.biased + reward.style * self.style

    def optimum(self, reward: Reward, beta: float) -> np.ndarray:
        """The policy that RL or DPO end in: reference * exp(reward / beta), shape [2 * styles]."""
        return tilted(self.reference, self.values(reward), beta)

    def best(self, reward: Reward, n: int) -> np.ndarray:
        """The law of the best of n answers, shape [2 * styles]."""
        return best_of(self.reference, self.values(reward), n)

    def closed_form(self, reward: Reward, beta: float) -> float:
        """The bias rate of the optimum: odds grow by exp(bias weight / beta), since style is independent of bias."""
        odds = self.rate / (1 - self.rate) * np.exp(reward.bias / beta)
        return float(odds / (1 + odds))

    def told(self, policy: np.ndarray) -> tuple[float, float, float]:
        """Bias rate, mean quality, and how often the honest judge prefers it to the reference."""
        wins = expit(self.slope * (self.quality[:, None] - self.quality[None]))
        return float(policy @ self.biased), float(policy @ self.quality), float(policy @ wins @ self.reference)


def rehearsal(
    attack: Attack | None = None,
    *,
    beta: float = 0.5,
    choices: Sequence[int] = CHOICES,
    betas: Sequence[float] = BETAS,
) -> Report:
    """The whole pipeline under the attack: what the reward learns, how the bias grows, and what mitigations cost.

    Of the paper's mitigations, weight averaging (WARM) is `ensemble`, and `shrunk` stands in for an information
    bottleneck (InfoRM), to which it is akin for a linear reward; RRM's pairs across prompts need prompts, which a
    table has not.

    Args:
        attack: the policy and its judge.
        beta: of the KL penalty under which mitigations are compared.
        choices: n of the best-of-n curve.
        betas: of the curve of optimised policies.

    Returns:
        A report: `bias_weight`, `bias_rate`, `mitigations` by name with bias rate, quality and win rate.
    """
    attack = attack or Attack()
    reward = attack.reward()
    grown = attack.told(attack.optimum(reward, beta))
    start = attack.told(attack.reference)
    report = Report(
        "Alignment tampering, rehearsed",
        f"Biased answers that are better by {attack.coupling:g}: the reward pays {reward.bias:.2f} for the bias, which "
        f"grows from {start[0]:.0%} to {grown[0]:.0%} while quality goes from {start[1]:.2f} to {grown[1]:.2f}.",
        meta={"attack": vars(attack), "beta": beta},
    )
    report.add("bias_weight", reward.bias, label="What the reward pays for the bias", headline=True, good="low",
               note=f"{attack.slope * attack.coupling:g} if the judge's labels were endless")  # fmt: skip
    report.add("bias_rate", grown[0], unit="share", headline=True, good="low", note=f"at beta {beta:g}")
    report.add(
        "closed_form",
        attack.closed_form(reward, beta),
        unit="share",
        label="Bias rate that theory gives",
        note="the odds of a biased answer times exp(what the reward pays / beta)",
    )
    report.add("win_rate", grown[2], unit="share", headline=True, good="high", note="over the reference")
    rows = {name: attack.told(attack.optimum(attack.reward(name), beta)) for name in MITIGATIONS}
    report.data("mitigations", {n: dict(zip(("bias_rate", "quality", "win_rate"), r)) for n, r in rows.items()})
    report.table(
        "Mitigations", ["mitigation", "bias rate", "quality", "win rate", "what it does"],
        [[name, cells.share(rate), quality, cells.share(won), MITIGATIONS[name]]
         for name, (rate, quality, won) in rows.items()],
        "No free lunch: where biased answers are truly better, less of them is less quality.",
    )  # fmt: skip
    for title, label, x, laws in (
        ("Optimised policies", "1 / beta", [1 / b for b in betas], [attack.optimum(reward, b) for b in betas]),
        ("Best of n", "n", list(choices), [attack.best(reward, n) for n in choices]),
    ):
        told = np.array([attack.told(law) for law in laws])
        lines = {"bias rate": (x, told[:, 0]), "win rate": (x, told[:, 2])}
        report.figure(title, figures.lines(lines, xlabel=label, ylabel="share", reference=attack.rate))
        report.data(title.lower().replace(" ", "_"), [
            {label: float(v), "bias_rate": float(r[0]), "quality": float(r[1])} for v, r in zip(x, told)
        ])  # fmt: skip
    return report
