"""Objectives that learn from what was said: CUT (S007) from critiques, chain of hindsight (S075) from comparisons.

Both put words about an answer in front of it, and set the same answer under other words or none. The records are
arranged into such examples here; the loss counts response tokens alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from accordance.core import views
from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import Arranged, Objective, PairLogps, Slot, Tokens, UnaryLogps
from accordance.core.record import TEXT, Message, Records, Response
from accordance.objectives.registry import objective, require

Prompt = tuple[Message, ...]

#: How a critique is put behind the question that it is about.
JUDGMENT = "Judgment of the answer: {}"

#: Wordings of chain of hindsight: before a good answer, before a bad one, and before the second of two.
GOOD = ("A good answer:", "A helpful answer:", "The better answer:")
BAD = ("A bad answer:", "An unhelpful answer:", "The worse answer:")


def with_words(prompt: Prompt, words: str) -> Prompt:
    """A prompt with some words behind what the last user turn (or plain text) says."""
    *before, last = prompt if prompt else (Message("user", ""),)
    if last.role not in ("user", TEXT):
        return (*prompt, Message("user", words))
    return (*before, Message(last.role, f"{last.content}\n{words}" + ("\n" if last.role == TEXT else "")))


# CUT.


@objective("cut")
@system("S007", "CUT", paper="arXiv:2312.14591")
def cut(threshold: float = 1.1, alpha: float = 1.0, skip_unflagged: bool = True) -> Objective[PairLogps]:
    """CUT: unlikelihood for the tokens of a criticised answer that the critique makes likelier, likelihood otherwise.

    Each criticised answer stands under two prompts: with the critique in it (the `chosen` of the bundle) and without
    (the `rejected`). Tokens whose probability the critique raises by more than `threshold` are flagged, without
    gradient. The loss is half of: the mean negative log-likelihood with the critique, plus the mean over tokens
    without it of -log p, or -alpha log(1 - p) where flagged. Satisfactory answers (critiques with a value above 0,
    demonstrations) cost their mean negative log-likelihood. All terms are means per response, as published;
    1 - p is kept above 1e-5, as in the authors' code.

    Extras: ``satisfactory``, 1 or 0, shape [n]; without it all answers count as criticised. Where a critique flags
    nothing, the published loss imitates a bad answer; here that half is left out by default.

    Args:
        threshold: by what factor a critique must raise the probability of a token to flag it.
        alpha: weight of the unlikelihood.
        skip_unflagged: whether criticised answers with nothing flagged are left to their critique alone.
    """
    require(threshold > 0, "threshold", threshold, "> 0")
    require(alpha >= 0, "alpha", alpha, ">= 0")

    def function(pairs: PairLogps) -> Tensor:
        judged, plain, row = _both_conditions(pairs)
        flagged = (judged - plain).detach() > math.log(threshold)
        unlikely = torch.log1p(-plain.exp().clamp(max=1 - 1e-5))
        terms = torch.where(flagged, alpha * unlikely, plain)

        def mean(values: Tensor) -> Tensor:
            return torch.zeros_like(pairs.chosen).index_add(0, row, values) / pairs.chosen_length

        contrast = -mean(terms)
        if skip_unflagged:
            contrast = contrast * (mean(flagged.to(plain)) > 0)
        good = pairs.extras.get("satisfactory", torch.zeros_like(pairs.chosen)).bool()
        return torch.where(good, -mean(plain), (contrast - mean(judged)) / 2)

    return Objective(
        name="cut",
        bundle=PairLogps,
        function=function,
        reference=False,
        tokens=True,
        columns=("satisfactory",),
        arrange=_criticised,
    )


def flagged_tokens(pairs: PairLogps, threshold: float = 1.1) -> Tensor:
    """Which tokens of criticised answers CUT holds to be what the critique is about.

    Args:
        pairs: as `cut` takes them.
        threshold: as there.

    Returns:
        True or False for the tokens of all answers, one after the other, shape [tokens of one condition].
    """
    judged, plain, _ = _both_conditions(pairs)
    return (judged - plain).detach() > math.log(threshold)


def _both_conditions(pairs: PairLogps) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the same tokens with and without the critique, and the pair each belongs to."""
    tokens: Tokens | None = pairs.tokens
    if tokens is None or not torch.equal(pairs.chosen_length, pairs.rejected_length):
        raise DataError(
            "cut compares the tokens of one answer under two prompts",
            found="no per-token values" if tokens is None else "answers of different lengths",
            expected="per-token values of the same answer with and without its critique",
        )
    with_critique = tokens.row % 2 == 0
    return tokens.logp[with_critique], tokens.logp[~with_critique], tokens.row[with_critique] // 2


def _criticised(records: Records, attribute: str | None, seed: int) -> Iterator[Arranged]:
    wanted = views.which_attribute(records, ("critique",), attribute)
    for item in views.critiques(records):
        if item.judgment.attribute != wanted:
            continue
        good = bool(item.judgment.values) and item.judgment.values[0] > 0
        words = item.prompt if good else with_words(item.prompt, JUDGMENT.format(item.text))
        slots = Slot(words, item.response), Slot(item.prompt, item.response)
        yield Arranged(item.record, slots, {"satisfactory": float(good)})
    for shown in views.demonstrations(records):
        slot = Slot(shown.prompt, shown.response)
        yield Arranged(shown.record, (slot, slot), {"satisfactory": 1.0})


# Chain of hindsight.


@objective("coh")
@system("S075", "Chain of Hindsight", paper="arXiv:2302.02676")
def coh(hide: float = 0.15, both: float = 0.5) -> Objective[UnaryLogps]:
    """Chain of hindsight: likelihood of good and bad answers alike, each behind words that say which it is.

    A comparison becomes a conversation: the question with "A bad answer:" behind it, the bad answer, "A good
    answer:", the good one; or the other way round; or one of the two alone. The wording is drawn from several. The
    loss is the negative log-likelihood of the answers' tokens, the end token included; questions and cue words
    carry none. Where one answer follows another, a share of the words of the earlier one is left out, so that it
    can't be copied (the paper masks them in attention). Ask the trained policy with `hindsight_prompt`.

    The two answers of a chain are two examples, the first answer being part of the second one's prompt: the same
    gradients as the one sequence of the paper. Its fifth form, which asks which of two is better, and its mixture
    with pre-training text are left out.

    Args:
        hide: share of the words of an earlier answer that are left out.
        both: share of comparisons shown as a chain of two answers; the others are shown as two answers apart.
    """
    require(0 <= hide < 1, "hide", hide, "0 <= value < 1")
    require(0 <= both <= 1, "both", both, "0 <= value <= 1")

    def arrange(records: Records, attribute: str | None, seed: int) -> Iterator[Arranged]:
        draw = random.Random(seed)
        wanted = views.which_attribute(records, ("comparison", "rating"), attribute)
        for pair in views.pairs(records, attribute=wanted):
            for slot in _hindsight(pair, hide, both, draw):
                yield Arranged(pair.record, (slot,))

    return Objective(
        name="coh",
        bundle=UnaryLogps,
        function=lambda bundle: -bundle.logp,
        reference=False,
        unit="tokens",
        arrange=arrange,
    )


def hindsight_prompt(prompt: Prompt, good: bool = True, wording: int = 0) -> Prompt:
    """The prompt under which a policy trained by `coh` gives its good (or bad) answers."""
    return with_words(prompt, (GOOD if good else BAD)[wording])


def _hindsight(pair: views.Pair, hide: float, both: float, draw: random.Random) -> list[Slot]:
    answers = [(pair.chosen, True), (pair.rejected, False)]
    draw.shuffle(answers)
    (first, first_good), (second, second_good) = answers
    wording = draw.randrange(len(GOOD))
    head = hindsight_prompt(pair.prompt, first_good, wording)
    slots = [Slot(head, first)]
    if draw.random() < both:
        earlier = _with_gaps(first, hide, draw)
        ask = Message(head[-1].role, (GOOD if second_good else BAD)[wording])
        if ask.role == TEXT:
            ask = replace(ask, content=f"\n{ask.content}\n")
        return [*slots, Slot((*head, *earlier.messages, ask), second)]
    return [*slots, Slot(hindsight_prompt(pair.prompt, second_good, wording), second)]


def _with_gaps(response: Response, share: float, draw: random.Random) -> Response:
    """A response with some of its words left out."""

    def thinned(message: Message) -> Message:
        words = [word for word in message.content.split(" ") if draw.random() >= share]
        return replace(message, content=" ".join(words))

    return replace(response, messages=tuple(map(thinned, response.messages)))
