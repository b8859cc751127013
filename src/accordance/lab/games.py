"""Preference games in the tabular lab: people's tastes may run in circles, and what is best is known exactly.

A `PreferenceGame` is a table of P(i > j) for each prompt, beside a reference policy. It judges the answers of
tabular policies (exactly, or by sampled comparisons) and hands out the bundles that the objectives of language
models learn from. How far a policy is from the equilibrium is said by `core.games`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from accordance.core import games
from accordance.core.errors import ConfigError
from accordance.core.objective import PairLogps
from accordance.lab.tabular import TabularPolicy


class PreferenceGame:
    """A constant-sum game for each of P prompts with R responses.

    Args:
        preference: P(i > j), shape [P, R, R]; opposite entries add up to 1.
        ref: the reference policy; uniform by default.
    """

    def __init__(self, preference: Tensor, ref: TabularPolicy | None = None) -> None:
        if preference.ndim != 3 or ((preference + preference.mT - 1).abs() > 1e-9).any():
            raise ConfigError(
                "this is no table of preferences",
                found=f"shape {tuple(preference.shape)}",
                expected="shape [P, R, R] with P(i > j) + P(j > i) = 1",
            )
        self.preference = preference.double()
        self.ref = (ref or TabularPolicy(torch.zeros(preference.shape[:2], dtype=torch.float64))).frozen()

    @classmethod
    def random(cls, prompts: int, responses: int, *, scale: float, seed: int) -> PreferenceGame:
        """P = sigmoid(A) with an antisymmetric Gaussian A: from three responses on, cycles are common.

        Args:
            prompts: how many independent games.
            responses: how many responses each has.
            scale: standard deviation of A; larger makes preferences surer.
            seed: of A.
        """
        g = torch.Generator().manual_seed(seed)
        a = scale * torch.randn(prompts, responses, responses, generator=g, dtype=torch.float64)
        upper = a.triu(1)
        return cls((upper - upper.mT).sigmoid())

    @classmethod
    def rock_paper_scissors(cls, strength: float = 0.9) -> PreferenceGame:
        """Three responses in a circle: each beats the next with this probability."""
        beats = torch.tensor([[0.5, strength, 1 - strength]], dtype=torch.float64)
        return cls(torch.stack([beats.roll(k, -1)[0] for k in range(3)])[None])

    def win_rates(self, opponent: TabularPolicy) -> Tensor:
        """P(y > opponent) of every response, shape [P, R]; no gradient flows through it."""
        return games.win_rates(self.preference, opponent.log_probs.detach())

    def every_pair(self, policy: TabularPolicy, wins: Tensor, *, ref: TabularPolicy | None = None) -> PairLogps:
        """All pairs i < j of responses to all prompts; `gap` is how much more often i wins than j.

        Args:
            policy: whose log-probabilities the pairs carry, with gradients.
            wins: win rate of every response against the opponents, shape [P, R].
            ref: what stands as the reference in the bundle; by default that of the game.
        """
        prompts, responses = wins.shape
        first, second = torch.triu_indices(responses, responses, 1)
        prompt = torch.arange(prompts).repeat_interleave(len(first))
        first, second = first.repeat(prompts), second.repeat(prompts)
        gap = wins[prompt, first] - wins[prompt, second]
        pairs = policy.pairs(prompt, first, second, ref=ref or self.ref, gap=gap)
        return replace(
            pairs,
            extras={"chosen_win_rate": wins[prompt, first], "rejected_win_rate": wins[prompt, second]},
        )

    def with_history(self, pairs: PairLogps, history: Sequence[TabularPolicy]) -> PairLogps:
        """The pairs of `every_pair` with the log-probabilities of earlier policies beside them, latest first."""
        columns = dict(pairs.extras)
        for index, past in enumerate(history):
            other = self.every_pair(past, torch.zeros_like(past.logits))
            columns[f"history{index}_chosen"] = other.chosen.detach()
            columns[f"history{index}_rejected"] = other.rejected.detach()
        return replace(pairs, extras=columns)

    def compare(self, prompt: Tensor, first: Tensor, second: Tensor, *, generator: torch.Generator) -> Tensor:
        """Whether the first response wins, drawn anew for each comparison; shapes [...] of indices."""
        probability = self.preference[prompt, first, second]
        return torch.rand(probability.shape, generator=generator, dtype=probability.dtype) < probability

    def duality_gap(self, policy: TabularPolicy, beta: float = 0.0) -> Tensor:
        """The duality gap in the game with KL price `beta`, shape [P]."""
        return games.duality_gap(policy.log_probs.detach(), self.preference, self.ref.log_probs, beta)

    def exploitability(self, policy: TabularPolicy) -> Tensor:
        """By how much the best opponent beats the policy, shape [P]."""
        return games.exploitability(policy.log_probs.detach(), self.preference)

    def equilibrium(self, beta: float) -> TabularPolicy:
        """The policy that is at equilibrium with itself at KL price `beta`."""
        return TabularPolicy(games.regularised_equilibrium(self.preference, self.ref.log_probs, beta)).frozen()


def average_policy(policies: Sequence[TabularPolicy]) -> TabularPolicy:
    """One of the policies drawn at random for each answer: the mean of their probabilities."""
    return TabularPolicy(torch.stack([policy.probs for policy in policies]).mean(0).log()).frozen()


def geometric_mixture(policy: TabularPolicy, ref: TabularPolicy, weight: float) -> TabularPolicy:
    """The policy in proportion to pi^(1 - weight) ref^weight, Nash-MD's opponent; not the mean of the two."""
    return TabularPolicy((1 - weight) * policy.log_probs + weight * ref.log_probs).frozen()
