"""SPO: an auxiliary head must tell from the policy's hidden state how much of a response's content is missing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from accordance.core import views
from accordance.core.catalogue import system
from accordance.core.degrade import KeyContent
from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import Arranged, Auxiliary, ListLogps, Objective, Slot
from accordance.core.record import Message, Records, Response
from accordance.objectives.registry import Pairwise, require, require_positive, wrapper
from accordance.objectives.several import pair_columns, places

Head = Literal["ordinal", "classes"]


@wrapper("spo", once=True)
@system("S068", "SPO", paper="arXiv:2409.17791")
def spo(
    base: Pairwise,
    gamma: float = 0.1,
    degrees: int = 4,
    copies: int = 1,
    severity: float = 1.0,
    head: Head = "ordinal",
) -> Objective[ListLogps]:
    """SPO: any loss over pairs, plus gamma times the loss of telling graded variants of the chosen answer apart.

    Degree k of K takes the share k / (K - 1) x `severity` of the key content out of the chosen answer; a control
    loses as many words that are no key content and counts as degree 0, so that length tells nothing. A linear head
    reads the policy's last hidden state at the end of each: ``classes`` is the cross-entropy of the degree,
    ``ordinal`` a score that must be higher the less is missing. The head is trained with the policy and dropped
    at inference. Construction and weights are the spec's reading; the paper was not at hand in full.

    Variants are drawn once, when records are arranged. Cost: `copies` + 2 responses more per pair, prompts shared,
    and their reference log-probabilities, which nothing reads.

    Args:
        gamma: weight of the degree loss; with 0 the policy is trained by the wrapped loss alone.
        degrees: the K.
        copies: degraded variants per pair, of different degrees, below `degrees`.
        severity: share of the key content that the last degree is without.
        head: ``ordinal`` or ``classes``.
    """
    require(gamma >= 0, "gamma", gamma, ">= 0")
    require(degrees >= 2, "degrees", degrees, ">= 2")
    require(1 <= copies < degrees, "copies", copies, "1 <= value < degrees")
    require(severity <= 1, "severity", severity, "<= 1")
    require_positive(severity=severity)
    if base.module is not None:
        raise ConfigError(
            f"spo can't wrap {base.name}: each trains parts of its own",
            where="objective",
            remedy="use one of them",
        )
    module = DegreeHead(degrees if head == "classes" else 1)

    def function(lists: ListLogps) -> Tensor:
        return base(places(lists)) + gamma * degree_losses(module, lists, head)

    def arrange(records: Records, attribute: str | None, seed: int) -> Iterator[Arranged]:
        draw = random.Random(seed)
        wanted = views.which_attribute(records, ("comparison", "rating"), attribute)
        pairs = views.pairs(records, attribute=wanted)
        content = KeyContent.fit(pair.chosen.text for pair in pairs)
        for pair in pairs:
            taken = sorted(draw.sample(range(1, degrees), copies))
            variants, truth = graded(content, pair.chosen, taken, severity / (degrees - 1), draw)
            slots = [Slot(pair.prompt, answer) for answer in (pair.chosen, pair.rejected, *variants)]
            columns = {f"degree_{place}": float(k) for place, k in enumerate(truth)}
            yield Arranged(pair.record, tuple(slots), {**pair_columns(pair), **columns})

    return replace(  # type: ignore[return-value]
        base, bundle=ListLogps, function=function, arrange=arrange, pairs=places, hidden=True, module=module
    )


class DegreeHead(Auxiliary):
    """A linear head on hidden states: one score, or one per degree."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def attach(self, width: int, layers: int) -> None:
        """Make the parameters."""
        self.linear = nn.Linear(width, self.outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores of hidden states [..., width], shape [..., outputs]."""
        return self.linear(hidden.to(self.linear.weight))


def graded(
    content: KeyContent, answer: Response, degrees: list[int], step: float, draw: random.Random
) -> tuple[list[Response], list[int]]:
    """Variants of an answer: one for each degree, then the control; and the degree that each really has.

    Args:
        content: says what matters.
        answer: the answer as it stands.
        degrees: ascending.
        step: share of the key content that one degree takes away.
        draw: decides what the control loses.
    """
    made, truth = [], []
    for degree in degrees:
        lost = content.removed(answer.text, degree * step)
        made.append(_reworded(answer, content.degrade(answer.text, degree * step)))
        truth.append(degree if lost else 0)
    lost = content.removed(answer.text, draw.choice(degrees) * step)
    return [*made, _reworded(answer, content.thin(answer.text, lost, draw))], [*truth, 0]


def degree_losses(module: DegreeHead, lists: ListLogps, head: Head) -> Tensor:
    """The degree loss of each example, shape [n].

    Args:
        module: the head.
        lists: chosen, rejected, graded variants, control; with hidden states and the extras ``degree_<place>``.
        head: how the head is read.
    """
    n, width = lists.logp.shape
    if lists.hidden is None:
        raise DataError("spo reads hidden states and the bundle carries none", expected="hidden")
    variants = [lists.extras[f"degree_{place}"] for place in range(width - 2)]
    truth = torch.stack([torch.zeros_like(variants[0]), *variants], dim=1).long()
    scores = module(lists.hidden.view(n, width, -1)[:, [0, *range(2, width)]]).to(lists.logp)
    if head == "classes":
        return cross_entropy(scores.transpose(1, 2), truth, reduction="none").mean(1)
    score = scores.squeeze(-1)
    better = truth[:, :, None] < truth[:, None, :]
    losses = -logsigmoid(score[:, :, None] - score[:, None, :]) * better
    return losses.sum((1, 2)) / better.sum((1, 2)).clamp(min=1)


def _reworded(answer: Response, text: str) -> Response:
    """An answer with another text in its last message, its earlier ones gone with what they said."""
    return replace(answer, messages=(Message(answer.messages[-1].role, text),))
