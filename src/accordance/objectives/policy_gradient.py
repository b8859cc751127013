"""Policy gradients over groups of sampled responses: REINFORCE, RLOO, GRPO, GSPO, DAPO, Dr. GRPO and GRAO.

All but the last are one function, `policy_gradient`: advantage x importance ratio (clipped or not) x how the terms
of a group are averaged + a KL penalty. The rewards are the scores of a list bundle; no gradient flows through
advantages, or through the log-probabilities under the policy that sampled (`old`, `old_tokens`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import ListLogps, Objective, Tokens, need_reference
from accordance.objectives.divergences import steady_expm1
from accordance.objectives.listwise import need_scores
from accordance.objectives.registry import objective, require, require_positive
from accordance.objectives.workers import batch_totals

Baseline = Literal["none", "group", "leave_one_out", "batch"]
Scale = Literal["none", "group", "batch"]
Level = Literal["token", "sequence", "sequence_mean"]
Averaging = Literal["response", "tokens", "constant", "none"]
#: Keeps the advantages of a group whose rewards hardly differ from blowing up.
_LEAST_SPREAD = 1e-4


def advantages(scores: Tensor, mask: Tensor, baseline: Baseline = "group", scale: Scale = "group") -> Tensor:
    """How much better each response is than what it is held against.

    Args:
        scores: rewards, shape [n, K].
        mask: True where there is a response, shape [n, K].
        baseline: subtracted: the mean of the ``group``, that of the others in it (``leave_one_out``), that of
            the ``batch`` of all workers, or nothing. A response alone in its group has no others: its advantage
            is 0.
        scale: divided by: the standard deviation within the ``group`` or the ``batch``, or nothing.

    Returns:
        Shape [n, K], without gradient; 0 where there is no response.

    Raises:
        DataError: a response has no score.
    """
    scores = scores.detach().masked_fill(~mask, 0.0)
    if scores.isnan().any():
        raise DataError("a response has no reward", expected="a score for each response that was sampled")
    count = mask.sum(-1, keepdim=True).to(scores.dtype)
    mean = scores.sum(-1, keepdim=True) / count.clamp(min=1)
    centred = (scores - mean).masked_fill(~mask, 0.0)
    batch = batch_totals(scores[mask], scores[mask] ** 2) if "batch" in (baseline, scale) else None
    if baseline == "leave_one_out":
        advantage = centred * count / (count - 1).clamp(min=1)
    elif baseline == "batch":
        assert batch is not None
        advantage = scores - (batch[0, 0] / batch[0, 1]).to(scores)
    else:
        advantage = centred if baseline == "group" else scores
    if scale == "group":
        advantage = advantage / (
            (centred**2).sum(-1, keepdim=True).div((count - 1).clamp(min=1)).sqrt() + _LEAST_SPREAD
        )
    elif scale == "batch":
        assert batch is not None
        (total, many), (squares, _) = batch
        variance = ((squares - total**2 / many) / (many - 1).clamp(min=1)).clamp(min=0)
        advantage = advantage / (variance.sqrt() + _LEAST_SPREAD).to(scores)
    return advantage.masked_fill(~mask, 0.0)


def policy_gradient(
    *,
    baseline: Baseline = "group",
    scale: Scale = "group",
    level: Level = "token",
    clip: tuple[float, float] | None = (0.2, 0.2),
    average: Averaging = "response",
    constant: float = 1.0,
    kl: float = 0.0,
    kl_in_reward: bool = False,
) -> Objective[ListLogps]:
    """The family: -mean over the group of min(ratio A, clipped ratio A), and a KL penalty.

    Args:
        baseline, scale: of the advantages A, see `advantages`.
        level: the importance ratio pi / old is that of each ``token``, of the whole ``sequence``, or of the
            ``sequence_mean``: the sequence's to the power 1 / length.
        clip: how far below and above 1 a ratio still pays, or None for no clipping.
        average: the terms of a response's tokens are averaged over them (``response``), added and divided by
            `constant`, or added (``tokens``: the unit of the loss is then a token of the whole batch, and nothing
            is divided by K). Where the ratio is that of the sequence there is one term: ``none``.
        constant: see `average`.
        kl: weight of KL(pi || ref).
        kl_in_reward: whether the KL is taken off the rewards, as log old - log ref of each response, rather than
            added to the loss token by token, as ref / pi - 1 - log(ref / pi).
    """
    token_level = level == "token"

    def worth(lists: ListLogps) -> Tensor:
        scores = need_scores(lists)
        if kl and kl_in_reward:
            scores = scores - kl * (need_sampled(lists.old) - need_reference(lists.ref))
        return advantages(scores, lists.mask, baseline, scale)

    def function(lists: ListLogps) -> Tensor:
        known = lists.extras.get("advantages")
        advantage = (worth(lists) if known is None else known).to(lists.logp)
        if token_level:
            tokens = list_tokens(lists)
            log_ratio = tokens.logp - need_sampled(lists.old_tokens)
            gain = per_response(clipped_gain(log_ratio, advantage.flatten()[tokens.row], clip), tokens, lists)
        else:
            log_ratio = (lists.logp - need_sampled(lists.old)) / (
                lists.length if level == "sequence_mean" else 1
            )
            gain = clipped_gain(log_ratio, advantage, clip)
        if kl and not kl_in_reward:
            tokens = list_tokens(lists)
            apart = need_reference(tokens.ref) - tokens.logp
            penalty = per_response(steady_expm1(apart) - apart, tokens, lists)
            if not token_level:
                penalty = penalty / lists.length
            gain = gain - kl * penalty
        if average == "response":
            gain = gain / lists.length
        total = gain.masked_fill(~lists.mask, 0.0).sum(-1)
        if average == "tokens":
            return -total
        return -total / (constant * lists.mask.sum(-1).clamp(min=1))

    return Objective(
        name="policy_gradient",
        bundle=ListLogps,
        function=function,
        reference=kl > 0,
        tokens=token_level or (kl > 0 and not kl_in_reward),
        online=True,
        unit="tokens" if average == "tokens" else "examples",
        advantages=worth if "batch" in (baseline, scale) else None,
    )


@objective("reinforce")
def reinforce(baseline: Baseline = "batch", scale: Scale = "batch", beta: float = 0.0) -> Objective[ListLogps]:
    """REINFORCE with the importance ratio of whole responses, unclipped; advantages are those of the whole batch.

    Args:
        baseline: what is subtracted from rewards: ``batch``, ``group``, ``leave_one_out`` or ``none``.
        scale: what they are divided by: the standard deviation within the ``batch`` or ``group``, or ``none``.
        beta: weight of the KL from the reference, taken off the rewards.
    """
    require(beta >= 0, "beta", beta, ">= 0")
    return policy_gradient(
        baseline=baseline,
        scale=scale,
        level="sequence",
        clip=None,
        average="none",
        kl=beta,
        kl_in_reward=True,
    )


@objective("reinforce_plus_plus")
def reinforce_plus_plus(beta: float = 0.0, clip: float = 0.2) -> Objective[ListLogps]:
    """REINFORCE++ (arXiv:2501.03262): rewards standardised over the whole batch, PPO's clip, a mean over tokens.

    The KL is taken off a response's reward as a whole; the paper gives each token what of it is still to come, which
    is less noisy.

    Args:
        beta: weight of the KL from the reference, taken off the rewards.
        clip: how far from 1 a token's ratio still pays.
    """
    require_positive(clip=clip)
    require(beta >= 0, "beta", beta, ">= 0")
    return policy_gradient(
        baseline="batch",
        scale="batch",
        clip=(clip, clip),
        average="tokens",
        kl=beta,
        kl_in_reward=True,
    )


@objective("rloo")
def rloo(beta: float = 0.05, clip: float | None = 0.2) -> Objective[ListLogps]:
    """RLOO (arXiv:2402.14740): each response is held against the mean of the others to its prompt.

    Args:
        beta: weight of the KL from the reference, taken off the rewards.
        clip: how far from 1 the ratio of a whole response still pays; none for no clipping.
    """
    require(beta >= 0, "beta", beta, ">= 0")
    return policy_gradient(
        baseline="leave_one_out",
        scale="none",
        level="sequence",
        clip=_both(clip),
        average="none",
        kl=beta,
        kl_in_reward=True,
    )


@objective("grpo")
def grpo(clip: float = 0.2, beta: float = 0.0, scale: Scale = "group") -> Objective[ListLogps]:
    """GRPO (arXiv:2402.03300): rewards standardised within the group, ratios of tokens, means over responses.

    Args:
        clip: how far from 1 a token's ratio still pays.
        beta: weight of the KL from the reference; the paper has 0.04, most runs since have 0.
        scale: what advantages are divided by; ``none`` weighs easy and hard prompts alike.
    """
    require_positive(clip=clip)
    require(beta >= 0, "beta", beta, ">= 0")
    return policy_gradient(scale=scale, clip=(clip, clip), kl=beta)


@objective("dr_grpo")
def dr_grpo(clip: float = 0.2, beta: float = 0.0, max_length: int = 256) -> Objective[ListLogps]:
    """Dr. GRPO (arXiv:2503.20783): neither lengths nor spreads are divided by, so that neither is rewarded.

    Args:
        clip: as in `grpo`.
        beta: as in `grpo`.
        max_length: constant by which the sum over a response's tokens is divided; the longest that is sampled.
    """
    require_positive(clip=clip, max_length=max_length)
    require(beta >= 0, "beta", beta, ">= 0")
    return policy_gradient(scale="none", clip=(clip, clip), average="constant", constant=max_length, kl=beta)


@objective("dapo")
def dapo(clip: float = 0.2, clip_high: float = 0.28) -> Objective[ListLogps]:
    """DAPO (arXiv:2503.14476): a mean over all tokens of the batch, and more room above the clip than below.

    Groups without any spread teach nothing; to sample others in their place is up to the rollouts.

    Args:
        clip: how far below 1 a token's ratio still pays.
        clip_high: how far above.
    """
    require_positive(clip=clip, clip_high=clip_high)
    return policy_gradient(clip=(clip, clip_high), average="tokens")


@objective("gspo")
def gspo(clip: float = 3e-4, clip_high: float = 4e-4, beta: float = 0.0) -> Objective[ListLogps]:
    """GSPO (arXiv:2507.18071): the ratio is the geometric mean over a response's tokens.

    Args:
        clip: how far below 1 it still pays.
        clip_high: how far above.
        beta: weight of the KL from the reference.
    """
    require_positive(clip=clip, clip_high=clip_high)
    require(beta >= 0, "beta", beta, ">= 0")
    return policy_gradient(level="sequence_mean", clip=(clip, clip_high), average="none", kl=beta)


@objective("grao")
@system("S142", "GRAO", paper="arXiv:2508.07750")
def grao(
    explore: float = 1.0,
    imitate: float = 0.5,
    contrast: float = 0.6,
    statistics: Literal["all", "samples"] = "all",
) -> Objective[ListLogps]:
    """GRAO: imitate a reference answer while it is better, explore, and go beyond it by contrast.

    With J the mean log-probability per token and A the advantages, the mean over the samples i of

        explore A_i J_i + imitate A_y J_y + contrast A_i (J_i - J_y)

    is maximised. Which response of each list is the reference answer y stands in the extra ``answer``. There is
    no importance ratio: samples should be the current policy's. Where samples are better than y its likelihood is
    pushed down without bound, so in long runs keep an eye on the KL.

    Args:
        explore: weight of the policy gradient over the samples; 0 with `contrast` 0 leaves imitation.
        imitate: weight of the reference answer by its own advantage, the paper's beta.
        contrast: weight of samples against the reference answer, the paper's lambda.
        statistics: mean and deviation of the rewards over samples and reference answer, or samples alone (the
            paper can be read either way).
    """
    for name, weight in (("explore", explore), ("imitate", imitate), ("contrast", contrast)):
        require(weight >= 0, name, weight, ">= 0")
    require(explore + imitate + contrast > 0, "explore", explore, "one of the three weights above 0")

    def function(lists: ListLogps) -> Tensor:
        answer = _answer(lists)
        samples = lists.mask & ~answer
        level = lists.logp / lists.length
        advantage = _standardised(need_scores(lists), lists.mask, samples, statistics).to(level)
        mine = (level * answer).sum(-1, keepdim=True)
        gain = (explore + contrast) * advantage * level - contrast * advantage * mine
        gain = gain.masked_fill(~samples, 0.0).sum(-1) / samples.sum(-1).clamp(min=1)
        return -gain - imitate * (advantage * answer * level).sum(-1)

    return Objective(
        name="grao", bundle=ListLogps, function=function, reference=False, online=True, columns=("answer",)
    )


def _standardised(scores: Tensor, mask: Tensor, samples: Tensor, statistics: str) -> Tensor:
    if statistics == "all":
        return advantages(scores, mask)
    count = samples.sum(-1, keepdim=True)
    mean = scores.masked_fill(~samples, 0.0).sum(-1, keepdim=True) / count.clamp(min=1)
    spread = (scores - mean).masked_fill(~samples, 0.0).norm(dim=-1, keepdim=True)
    spread = spread / (count - 1).clamp(min=1).sqrt()
    return ((scores - mean) / (spread + _LEAST_SPREAD)).masked_fill(~mask, 0.0).detach()


def _answer(lists: ListLogps) -> Tensor:
    """Where the reference answer of each list is, shape [n, K]."""
    if "answer" not in lists.extras:
        raise DataError(
            "this objective compares samples with a reference answer and the bundle names none",
            expected="an extra `answer`, shape [n]: the index of the reference answer in each list",
        )
    index = lists.extras["answer"].long()
    return torch.arange(lists.mask.shape[1], device=index.device) == index[:, None]


def clipped_gain(log_ratio: Tensor, advantage: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """The smaller of ratio x advantage and clipped ratio x advantage, elementwise; `clip` below and above 1."""
    ratio = steady_expm1(log_ratio) + 1
    if clip is None:
        return ratio * advantage
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip[0], 1 + clip[1]) * advantage)


def per_response(values: Tensor, tokens: Tokens, lists: ListLogps) -> Tensor:
    """Values of tokens added up to one per response, shape [n, K]."""
    total = values.new_zeros(lists.logp.numel())
    return total.index_add(0, tokens.row, values).view_as(lists.logp)


def list_tokens(lists: ListLogps) -> Tokens:
    """The single tokens of a bundle. DataError where it carries none."""
    if lists.tokens is None:
        raise DataError("this objective reads single tokens and the bundle carries none", expected="tokens")
    return lists.tokens


def need_sampled(old: Tensor | None) -> Tensor:
    """Log-probabilities when sampled. DataError where there are none: without them a policy gradient is wrong."""
    if old is None:
        raise DataError(
            "a policy gradient needs the log-probabilities under the policy that sampled the responses",
            expected="`old` (and `old_tokens`) in the bundle",
            remedy="feed it from rollouts; for recorded responses use a preference objective",
        )
    return old.detach()


def _both(clip: float | None) -> tuple[float, float] | None:
    if clip is None:
        return None
    require_positive(clip=clip)
    return clip, clip
