"""MAPL: pairs under added instructions teach to obey several constraints at once, without a new judgment."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from accordance.core import views
from accordance.core.catalogue import system
from accordance.core.constraints import Constraint, between, following, instructions, kinds
from accordance.core.errors import ConfigError, unknown
from accordance.core.objective import Arranged, ListLogps, Objective, Slot
from accordance.core.record import Records
from accordance.objectives.language import with_words
from accordance.objectives.registry import Pairwise, require, wrapper
from accordance.objectives.several import pair_columns, places

#: Extra of an example: 1 where instructions were added, 0 where the two answers could not be told apart by any.
ADDED = "instructions_added"


@wrapper("mapl", once=True)
@system("S067", "MAPL", paper="arXiv:2505.12845")
def mapl(
    base: Pairwise,
    intra: float = 1.0,
    inter: float = 1.0,
    flip: bool = True,
    most: int = 3,
    constraints: str = "all",
) -> Objective[ListLogps]:
    """MAPL: any loss over pairs, plus what added instructions must do to its rewards.

    Every pair stands under three prompts: x as it is; x+ with instructions that the chosen answer follows and the
    rejected one does not; x- the other way round. Exact verifiers make and check them (`core.constraints`). With
    the base's own rewards r and margins M = r(chosen) - r(rejected), the loss adds

    - ``intra`` times the mean over both answers of -log sigmoid of r under the prompt that the answer follows, less
      r under the other one. The partition functions of the two prompts do not cancel, as in the paper.
    - ``inter`` times the mean of -log sigmoid(M(x+) - M(x)), -log sigmoid(M(x) - M(x-)) and, with `flip`,
      -log sigmoid(-M(x-)): constraints come first.

    As many instructions are added on either side, so that their presence says nothing. A pair that no constraint
    tells apart keeps the base's loss alone. Six log-probabilities for the base's two: three times its cost, less
    what the prompts share. The inter-sample loss and the weights are the spec's reading of the paper.

    Args:
        intra: weight of the same answer under two prompts.
        inter: weight of the same two answers under two prompts; 0 with intra 0 is the wrapped loss itself.
        flip: whether the pair turns over where only the rejected answer follows the instructions.
        most: instructions added to a prompt, at most.
        constraints: the kinds of instructions, as in ``words, keyword, question``; see `core.constraints.kinds`.

    Raises:
        ConfigError: the base has no rewards, or a kind is unknown.
    """
    require(intra >= 0, "intra", intra, ">= 0")
    require(inter >= 0, "inter", inter, ">= 0")
    require(most >= 1, "most", most, ">= 1")
    among = [] if constraints == "all" else [name.strip() for name in constraints.split(",")]
    for name in among:
        if name not in kinds():
            raise unknown("constraint", name, kinds(), where="constraints")
    rewards = base.rewards
    if rewards is None:
        raise ConfigError(
            f"mapl compares rewards and {base.name} implies none", where="objective", remedy="wrap dpo or simpo"
        )

    def function(lists: ListLogps) -> Tensor:
        plain = places(lists)
        sides = [rewards(places(lists, 2 * prompt, 2 * prompt + 1)) for prompt in range(3)]
        (chosen, rejected), (chosen_plus, rejected_plus), (chosen_minus, rejected_minus) = sides
        margins = chosen - rejected, chosen_plus - rejected_plus, chosen_minus - rejected_minus
        within = _mean_loss(chosen_plus - chosen_minus, rejected_minus - rejected_plus)
        steps = [margins[1] - margins[0], margins[0] - margins[2]]
        across = _mean_loss(*steps, *([-margins[2]] if flip else []))
        added = lists.extras.get(ADDED, torch.ones_like(chosen)).to(chosen)
        return base(plain) + added * (intra * within + inter * across)

    def arrange(records: Records, attribute: str | None, seed: int) -> Iterator[Arranged]:
        draw = random.Random(seed)
        wanted = views.which_attribute(records, ("comparison", "rating"), attribute)
        for pair in views.pairs(records, attribute=wanted):
            plus = distinguishing(pair.chosen.text, pair.rejected.text, draw, most, among)
            minus = distinguishing(pair.rejected.text, pair.chosen.text, draw, most, among)
            added = bool(plus and minus)
            slots = [
                Slot(with_words(pair.prompt, instructions(some)) if some and added else pair.prompt, answer)
                for some in ([], plus, minus)
                for answer in (pair.chosen, pair.rejected)
            ]
            yield Arranged(pair.record, tuple(slots), {**pair_columns(pair), ADDED: float(added)})

    return replace(base, bundle=ListLogps, function=function, arrange=arrange, pairs=places)  # type: ignore[arg-type]


def distinguishing(
    text: str, other: str, draw: random.Random, most: int = 3, among: Sequence[str] = ()
) -> list[Constraint]:
    """Constraints that one text follows, at least one of which the other breaks; none where nothing tells them apart.

    Args:
        text: follows all of them.
        other: breaks one or more.
        draw: decides.
        most: of them, at most; one of each kind.
        among: the kinds to take; all by default.
    """
    apart = between(text, other, draw, among=among)
    if not apart:
        return []
    size = draw.randint(1, most)
    taken = apart[: draw.randint(1, size)]
    used = {constraint.kind for constraint in taken}
    shared = [constraint for constraint in following(text, draw, among=among) if constraint.kind not in used]
    made = taken + shared[: size - len(taken)]
    draw.shuffle(made)
    return made


def _mean_loss(*margins: Tensor) -> Tensor:
    return -logsigmoid(torch.stack(margins)).mean(0)
