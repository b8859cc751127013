"""PPO with a critic, and every trick of PPO-max as a switch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import Auxiliary, ListLogps, Objective, Tokens, need_reference
from accordance.objectives.listwise import need_scores
from accordance.objectives.policy_gradient import clipped_gain, list_tokens, need_sampled, per_response
from accordance.objectives.ppo_gae import gae, token_rewards, whitened
from accordance.objectives.registry import objective, require, require_positive
from accordance.objectives.workers import batch_totals

Normalise = Literal["running", "scale", "none"]
Critic = Literal["head", "trunk"]


@objective("ppo")
@system("S120", "PPO-max", paper="arXiv:2307.04964")
def ppo(
    beta: float = 0.02,
    clip: float | None = 0.2,
    clip_value: float | None = 0.2,
    value_weight: float = 1.0,
    gamma: float = 1.0,
    lam: float = 0.95,
    normalise: Normalise = "running",
    clip_reward: float | None = 10.0,
    whiten: bool = True,
    clip_advantage: float | None = None,
    critic: Critic = "head",
) -> Objective[ListLogps]:
    """PPO-max: token rewards with a KL in them, GAE with a critic, clipped losses, normalised rewards and advantages.

    The loss of a token is max(-A rho, -A clip(rho)) + value_weight / 2 max((V - G)^2, (clipped V - G)^2), its mean is
    taken over all tokens of the step. A and the returns G = A + V_old are computed once for all samples of a round.
    The critic is a linear head on the policy's hidden state before each token, or on that of a model of its own, begun
    as the reward model with its head, as the paper has it: the run's ``critic_model``, with ``critic=trunk`` (with
    ``head`` that model stays as it is). The run's ``auxiliary_warmup`` trains the critic alone at the start,
    ``ptx_coef`` adds the likelihood of demonstrations, ``missing_eos_penalty`` fines answers that were cut.

    Defaults are PPO-max. Vanilla PPO is ``beta=0, clip=none, clip_value=none, normalise=none, clip_reward=none,
    whiten=false``. The entropy term of the published code (off by default there) is left out.

    State: ``moments``, count, mean and summed squared deviation of all rewards seen.

    Args:
        beta: weight of the KL from the reference in the rewards, per token; 0 for none.
        clip: how far from 1 a token's ratio still pays; none for no clipping.
        clip_value: how far from its value when sampled the critic may go for gain; none for any.
        value_weight: of the critic's loss.
        gamma: discount per token.
        lam: of GAE; 1 for returns less values, 0 for one-step errors.
        normalise: rewards less their running mean over their running deviation (``running``), over the deviation
            alone (``scale``), or as they are (``none``).
        clip_reward: largest size of a reward, after normalising; none for any.
        whiten: advantages with mean 0 and variance 1 over the round.
        clip_advantage: largest size of an advantage, after whitening; none for any.
        critic: whether its loss moves the ``head`` alone or the model below it (``trunk``) too: the policy, or the
            critic's own.
    """
    require(beta >= 0, "beta", beta, ">= 0")
    require(0 <= gamma <= 1, "gamma", gamma, "0 to 1")
    require(0 <= lam <= 1, "lam", lam, "0 to 1")
    require_positive(value_weight=value_weight)
    optional = (
        ("clip", clip), ("clip_value", clip_value), ("clip_reward", clip_reward), ("clip_advantage", clip_advantage)
    )  # fmt: skip
    for name, value in optional:
        require(value is None or value > 0, name, value, "> 0, or none")
    module = ValueHead()
    moments = torch.zeros(3, dtype=torch.float64)
    both = None if clip is None else (clip, clip)

    def credit(lists: ListLogps, learn: bool = True) -> dict[str, Tensor]:
        tokens, scores = list_tokens(lists), need_scores(lists).flatten()
        there = lists.mask.flatten()
        if normalise != "none":
            if learn or not moments[0]:
                observe(moments, scores[there])
            scores = normal(moments, scores, centre=normalise == "running")
        if clip_reward is not None:
            scores = scores.clamp(-clip_reward, clip_reward)
        old = need_sampled(lists.old_tokens)
        ratio = old - need_reference(tokens.ref) if beta else None
        values = tokens.extras["value"].detach()
        rewards = token_rewards(scores.to(values), tokens.row, ratio, beta)
        advantage = gae(rewards, values, tokens.row, gamma, lam)
        ((total, count),) = batch_totals(advantage)
        found = {
            "value": values,
            "return": advantage + values,
            "square": (advantage - (total / count).to(values)) ** 2,
        }
        if whiten:
            advantage = whitened(advantage)
        if clip_advantage is not None:
            advantage = advantage.clamp(-clip_advantage, clip_advantage)
        return found | {"advantage": advantage}

    def credited(lists: ListLogps) -> Tokens:
        """The tokens with their credit; rollouts that no round gave credit to are a round of their own."""
        tokens = list_tokens(lists)
        if "advantage" in tokens.extras:
            return tokens
        own = replace(tokens, extras={"value": module(need_states(tokens)).detach()})
        return replace(tokens, extras=credit(replace(lists, tokens=own), learn=torch.is_grad_enabled()))

    def value_loss(tokens: Tokens) -> Tensor:
        states = need_states(tokens)
        values = module(states if critic == "trunk" else states.detach())
        apart = (values - tokens.extras["return"]) ** 2
        if clip_value is not None:
            old = tokens.extras["value"]
            near = old + (values - old).clamp(-clip_value, clip_value)
            apart = torch.maximum(apart, (near - tokens.extras["return"]) ** 2)
        return 0.5 * apart

    def function(lists: ListLogps) -> Tensor:
        tokens = credited(lists)
        log_ratio = tokens.logp - need_sampled(lists.old_tokens)
        gain = clipped_gain(log_ratio, tokens.extras["advantage"].to(log_ratio), both)
        losses = value_weight * value_loss(tokens).to(gain) - gain
        return per_response(losses, tokens, lists).masked_fill(~lists.mask, 0.0).sum(-1)

    def metrics(lists: ListLogps) -> dict[str, Tensor]:
        tokens = credited(lists)
        log_ratio = tokens.logp - need_sampled(lists.old_tokens)
        advantage, old = tokens.extras["advantage"].to(log_ratio), tokens.extras["value"]
        values = module(need_states(tokens))
        told = {
            "policy/approx_kl": log_ratio.exp() - 1 - log_ratio,
            "value/loss": 0.5 * (values - tokens.extras["return"]) ** 2,
            "advantage/variance": tokens.extras["square"],
        }
        if both is not None:
            told["policy/clip_fraction"] = (
                clipped_gain(log_ratio, advantage, both) < log_ratio.exp() * advantage - 1e-9
            ).float()
        if clip_value is not None:
            told["value/clip_fraction"] = ((values - old).abs() > clip_value).float()
        return told

    return Objective(
        name="ppo",
        bundle=ListLogps,
        function=function,
        reference=beta > 0,
        tokens=True,
        online=True,
        unit="tokens",
        state={"moments": moments} if normalise != "none" else {},
        module=module,
        states=True,
        credit=credit,
        metrics=metrics,
    )


class ValueHead(Auxiliary):
    """A critic's head: one number from each hidden state, 0 before it has learned anything.

    A reward model's head, where there is one, is a better beginning: see `begin`.
    """

    def attach(self, width: int, layers: int) -> None:
        """Make the parameters."""
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def begin(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take the head of a reward model: weight [1, width], bias [1]."""
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            if bias is not None:
                self.linear.bias.copy_(bias)

    def forward(self, states: Tensor) -> Tensor:
        """Values of hidden states [..., width], shape [...]."""
        return self.linear(states.to(self.linear.weight)).squeeze(-1)


def need_states(tokens: Tokens) -> Tensor:
    """The hidden states before the tokens. DataError where there are none."""
    if tokens.states is None:
        raise DataError("a critic reads hidden states and the bundle carries none", expected="tokens.states")
    return tokens.states


def observe(moments: Tensor, scores: Tensor) -> None:
    """Count the scores of all workers into count, mean and summed squared deviation, in place."""
    (total, many), (squares, _) = batch_totals(scores.double(), scores.double() ** 2).cpu()
    mean = total / many
    count = moments[0] + many
    gap = mean - moments[1]
    squared = (squares - total * mean).clamp(min=0) + gap**2 * moments[0] * many / count
    moments.copy_(torch.stack([count, moments[1] + gap * many / count, moments[2] + squared]))


def normal(moments: Tensor, scores: Tensor, *, centre: bool) -> Tensor:
    """Scores over the deviation of all that were seen, less their mean where `centre`."""
    count, mean, squared = moments.tolist()
    return (scores - (mean if centre else 0.0)) / max((squared / count) ** 0.5, 1e-8)
