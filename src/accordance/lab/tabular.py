"""The tabular lab: policies that are tables, so that expectations are exact and training takes a second.

`TabularPolicy` is a softmax over whole responses to each prompt; `TokenTable` writes token by token, each given
its position and the token before. Both hand out the bundles of `core.objective`, with the log-probabilities of
a frozen reference beside their own, so that the very objectives that train language models train them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from accordance.core.objective import CrossLogps, ListLogps, PairLogps, Tokens, UnaryLogps

Table = TypeVar("Table", bound="TablePolicy")


class TablePolicy(nn.Module):
    """What both kinds of table share: from log-probabilities of responses to bundles.

    A prompt is an index. A response is an index (`TabularPolicy`) or a padded row of tokens (`TokenTable`);
    both come as tensors whose leading dimensions agree.
    """

    logits: nn.Parameter

    def logp(self, prompt: Tensor, response: Tensor) -> Tensor:
        """Log-probability of each response to its prompt, in the shape of `prompt`."""
        raise NotImplementedError

    def length(self, prompt: Tensor, response: Tensor) -> Tensor:
        """Number of tokens of each response, in the shape of `prompt`."""
        raise NotImplementedError

    def frozen(self: Table) -> Table:
        """A copy that takes no gradients: a reference."""
        return deepcopy(self).requires_grad_(False)

    def single(
        self, prompt: Tensor, response: Tensor, label: Tensor | None = None, *, ref: TablePolicy | None = None
    ) -> UnaryLogps:
        """Single responses as a bundle; `prompt` and `label` of shape [n]."""
        return UnaryLogps(
            self.logp(prompt, response),
            self.length(prompt, response),
            label,
            None if ref is None else ref.logp(prompt, response),
        )

    def pairs(
        self,
        prompt: Tensor,
        chosen: Tensor,
        rejected: Tensor,
        *,
        ref: TablePolicy | None = None,
        gap: Tensor | None = None,
    ) -> PairLogps:
        """Pairs of responses to one prompt as a bundle; `prompt` and `gap` of shape [n]."""
        return PairLogps(
            self.logp(prompt, chosen),
            self.logp(prompt, rejected),
            self.length(prompt, chosen),
            self.length(prompt, rejected),
            None if ref is None else ref.logp(prompt, chosen),
            None if ref is None else ref.logp(prompt, rejected),
            gap,
        )

    def lists(
        self,
        prompt: Tensor,
        responses: Tensor,
        scores: Tensor | None = None,
        *,
        ref: TablePolicy | None = None,
        old: TablePolicy | None = None,
    ) -> ListLogps:
        """Lists of K responses to one prompt as a bundle; `prompt` of shape [n], `scores` of shape [n, K]."""
        each = prompt[:, None].expand(responses.shape[:2])
        made = ListLogps(
            self.logp(each, responses),
            self.length(each, responses),
            torch.ones(each.shape, dtype=torch.bool),
            scores,
            None if ref is None else ref.logp(each, responses),
            None if old is None else old.logp(each, responses).detach(),
        )
        return self.with_tokens(made, prompt, responses, ref, old)

    def with_tokens(
        self,
        made: ListLogps,
        prompt: Tensor,
        responses: Tensor,
        ref: TablePolicy | None,
        old: TablePolicy | None,
    ) -> ListLogps:
        """The bundle of `lists` with the values of single tokens, where this kind of table has such."""
        return made

    def cross(self, prompts: Tensor, responses: Tensor, *, ref: TablePolicy | None = None) -> CrossLogps:
        """R responses under each of C conditions as a bundle.

        Args:
            prompts: the prompt that stands for each condition, shape [n, C].
            responses: shape [n, R] (and a last dimension of tokens in a `TokenTable`).
            ref: the reference.
        """
        prompt = prompts[:, :, None].expand(*prompts.shape, responses.shape[1])
        each = responses[:, None].expand(*prompt.shape, *responses.shape[2:])
        return CrossLogps(
            self.logp(prompt, each),
            self.length(prompts[:, :1].expand(responses.shape[:2]), responses),
            None if ref is None else ref.logp(prompt, each),
        )


class TabularPolicy(TablePolicy):
    """A softmax over R responses for each of P prompts.

    Args:
        logits: shape [P, R]; the parameter.
        lengths: what counts as the number of tokens of each response, shape [P, R]; 1 by default.
    """

    def __init__(self, logits: Tensor, lengths: Tensor | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())
        self.register_buffer("lengths", torch.ones_like(logits) if lengths is None else lengths)
        self.lengths: Tensor

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of each response to each prompt, shape [P, R]."""
        return self.logits.log_softmax(-1)

    @property
    def probs(self) -> Tensor:
        """Probability of each response to each prompt, shape [P, R]."""
        return self.logits.softmax(-1)

    def with_tokens(
        self,
        made: ListLogps,
        prompt: Tensor,
        responses: Tensor,
        ref: TablePolicy | None,
        old: TablePolicy | None,
    ) -> ListLogps:
        """Where every response is one token long, with the values of those tokens."""
        if (made.length != 1).any():
            return made
        row = torch.arange(made.logp.numel())
        tokens = Tokens(made.logp.flatten(), row, None if made.ref is None else made.ref.flatten())
        return replace(made, tokens=tokens, old_tokens=None if made.old is None else made.old.flatten())

    def logp(self, prompt: Tensor, response: Tensor) -> Tensor:
        return self.log_probs[prompt, response]

    def length(self, prompt: Tensor, response: Tensor) -> Tensor:
        return self.lengths[prompt, response]

    def sample(self, prompt: Tensor, n: int = 1, *, generator: torch.Generator) -> Tensor:
        """`n` responses to each prompt, drawn with replacement, shape [*prompt.shape, n]."""
        probs = self.probs.detach()[prompt.flatten()]
        return torch.multinomial(probs, n, replacement=True, generator=generator).view(*prompt.shape, n)

    def expected(self, reward: Tensor) -> Tensor:
        """Expected reward of a response to each prompt, shape [P]; `reward` of shape [P, R]."""
        return (self.probs * reward).sum(-1)

    def kl(self, ref: TabularPolicy) -> Tensor:
        """KL(self || ref) for each prompt, shape [P]."""
        return (self.probs * (self.log_probs - ref.log_probs)).sum(-1)

    def total_variation(self, other: TabularPolicy) -> Tensor:
        """Half the L1 distance for each prompt, shape [P]."""
        return (self.probs - other.probs).abs().sum(-1) / 2

    def win_rate(self, other: TabularPolicy, preference: Tensor) -> Tensor:
        """Probability that a response of this policy is preferred to one of the other, for each prompt.

        Args:
            other: the opponent.
            preference: probability that response i is preferred to response j, shape [P, R, R] or [R, R].

        Returns:
            Shape [P].
        """
        return torch.einsum("pi,pij,pj->p", self.probs, preference.expand(len(self.probs), -1, -1), other.probs)


class TokenTable(TablePolicy):
    """A policy over sequences: one softmax per prompt, position and previous token.

    There are V tokens, of which the last ends the response; a response of T tokens is cut there. Responses are
    rows of T token ids, -1 after the end. A token before the first is written V.

    Args:
        logits: shape [P, T, V + 1, V]; the parameter.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())
        self.steps, self.vocabulary = logits.shape[1], logits.shape[3]

    @property
    def log_probs(self) -> Tensor:
        """Log-probability of each token in each state, shape [P, T, V + 1, V]."""
        return self.logits.log_softmax(-1)

    def token_logps(self, prompt: Tensor, response: Tensor) -> Tensor:
        """Log-probability of each token, 0 after the end, in the shape of `response`, [..., T]."""
        chosen = self.distributions(prompt, response).gather(-1, response.clamp(min=0)[..., None])[..., 0]
        return chosen.masked_fill(response < 0, 0.0)

    def distributions(self, prompt: Tensor, response: Tensor) -> Tensor:
        """Log-probabilities of all tokens at the place of each, shape [..., T, V]; anything after the end."""
        begin = torch.full_like(response[..., :1], self.vocabulary)
        before = torch.cat([begin, response[..., :-1]], -1).clamp(min=0)
        return self.log_probs[prompt[..., None], torch.arange(self.steps).expand_as(response), before]

    def compared(
        self,
        prompt: Tensor,
        response: Tensor,
        *,
        ref: TokenTable | None = None,
        teacher: TokenTable | None = None,
        teacher_ref: TokenTable | None = None,
    ) -> dict[str, Tensor]:
        """Comparisons of whole distributions at each token, by their names in `Tokens`, each [..., T]."""
        own = self.distributions(prompt, response)
        others = {
            name: None if table is None else table.distributions(prompt, response).detach()
            for name, table in (("kl", ref), ("teacher_kl", teacher), ("before", teacher_ref))
        }
        before = others.pop("before")
        found = {name: (p.exp() * (p - own)).sum(-1) for name, p in others.items() if p is not None}
        if before is not None and others["teacher_kl"] is not None:
            found["advantage"] = (own.exp() * (others["teacher_kl"] - before)).sum(-1)
        return found

    def logp(self, prompt: Tensor, response: Tensor) -> Tensor:
        return self.token_logps(prompt, response).sum(-1)

    def length(self, prompt: Tensor, response: Tensor) -> Tensor:
        return (response >= 0).sum(-1)

    def pairs(
        self,
        prompt: Tensor,
        chosen: Tensor,
        rejected: Tensor,
        *,
        ref: TablePolicy | None = None,
        gap: Tensor | None = None,
        teacher: TokenTable | None = None,
        teacher_ref: TokenTable | None = None,
    ) -> PairLogps:
        """Pairs as a bundle, per-token values included; see `compared` for what a teacher adds."""
        bundle = super().pairs(prompt, chosen, rejected, ref=ref, gap=gap)
        both = torch.stack([chosen, rejected], 1).flatten(0, 1)
        each, kept = prompt.repeat_interleave(2), both >= 0
        row = torch.arange(len(both))[:, None].expand_as(both)[kept]
        ref_tokens = ref.token_logps(each, both)[kept] if isinstance(ref, TokenTable) else None
        table = ref if isinstance(ref, TokenTable) else None
        whole = self.compared(each, both, ref=table, teacher=teacher, teacher_ref=teacher_ref)
        compared: dict[str, Any] = {name: values[kept] for name, values in whole.items()}
        return replace(bundle, tokens=Tokens(self.token_logps(each, both)[kept], row, ref_tokens, **compared))

    def with_tokens(
        self,
        made: ListLogps,
        prompt: Tensor,
        responses: Tensor,
        ref: TablePolicy | None,
        old: TablePolicy | None,
    ) -> ListLogps:
        """With the values of every token; `responses` of shape [n, K, T]."""
        every = responses.flatten(0, 1)
        each, kept = prompt.repeat_interleave(responses.shape[1]), every >= 0
        row = torch.arange(len(every))[:, None].expand_as(every)[kept]
        others = [
            policy.token_logps(each, every)[kept].detach() if isinstance(policy, TokenTable) else None
            for policy in (ref, old)
        ]
        tokens = Tokens(self.token_logps(each, every)[kept], row, others[0])
        return replace(made, tokens=tokens, old_tokens=others[1])

    @torch.no_grad()
    def sample(self, prompt: Tensor, *, generator: torch.Generator) -> Tensor:
        """One response to each prompt of shape [n], as rows of tokens, shape [n, T]."""
        probs = self.log_probs.exp()
        response = torch.full((len(prompt), self.steps), -1)
        before, running = torch.full_like(prompt, self.vocabulary), torch.ones_like(prompt, dtype=torch.bool)
        for step in range(self.steps):
            draw = torch.multinomial(probs[prompt, step, before], 1, generator=generator)[:, 0]
            response[:, step] = torch.where(running, draw, -1)
            running = running & (draw != self.vocabulary - 1)
            before = draw
        return response

    def visits(self) -> Tensor:
        """Probability that a response reaches each state (position, previous token), shape [P, T, V + 1]."""
        probs, end = self.log_probs.exp(), self.vocabulary - 1
        state = torch.zeros(len(probs), self.vocabulary + 1, dtype=probs.dtype)
        state[:, self.vocabulary] = 1.0
        states = [state]
        for step in range(self.steps - 1):
            reached = torch.einsum("ps,psv->pv", states[-1], probs[:, step])
            alive = torch.arange(self.vocabulary) != end
            states.append(torch.cat([reached * alive, torch.zeros_like(reached[:, :1])], -1))
        return torch.stack(states, 1)

    def expected_length(self) -> Tensor:
        """Expected number of tokens, the end included, for each prompt, shape [P]; exact."""
        return self.visits().sum((-2, -1))

    def kl(self, ref: TokenTable) -> Tensor:
        """KL(self || ref) between the distributions of whole responses for each prompt, shape [P]; exact."""
        own = self.log_probs
        per_state = (own.exp() * (own - ref.log_probs)).sum(-1)
        return (self.visits() * per_state).sum((-2, -1))


def descend(
    policy: nn.Module,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    learning_rate: float,
    method: Literal["adam", "gradient"] = "adam",
    until: Callable[[], bool] | None = None,
) -> int:
    """Train a table by full-batch descent.

    Args:
        policy: what to train, in place.
        loss: the batch loss; called once a step.
        steps: how many steps at most.
        learning_rate: their size.
        method: Adam, or plain gradient descent.
        until: checked after each step; training stops when it holds.

    Returns:
        How many steps were taken.
    """
    optimizers: dict[str, Any] = {"adam": torch.optim.Adam, "gradient": torch.optim.SGD}
    optimizer = optimizers[method](policy.parameters(), lr=learning_rate)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if until is not None and until():
            return step
    return steps
