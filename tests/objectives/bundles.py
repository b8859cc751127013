"""Small random bundles for the tests of objectives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accordance.core.objective import Bundle, CrossLogps, ListLogps, PairLogps, Tokens, UnaryLogps
from accordance.objectives import get_objective as by_name

#: Hidden states in bundles: layers (the embedding not counted) and width.
LAYERS, WIDTH = 2, 6


def pair_bundle(n: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> PairLogps:
    """Random pairs, with the log-probs of one earlier policy."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (2, n), generator=g)
    logp, ref = -torch.rand(2, 2, n, generator=g, dtype=dtype) * 2 * length
    gap, past = torch.rand(n, generator=g, dtype=dtype), 1.1 * ref
    extras = {"history0_chosen": past[0], "history0_rejected": past[1]}
    return with_pair_tokens(PairLogps(*logp, *length, *ref, gap, extras=extras))


def with_pair_tokens(pairs: PairLogps) -> PairLogps:
    """The pairs with log-probs spread evenly over tokens, and random comparisons of whole distributions."""
    assert pairs.ref_chosen is not None and pairs.ref_rejected is not None

    def flat(chosen: Tensor, rejected: Tensor) -> Tensor:
        return torch.stack([chosen, rejected], 1).flatten()

    length = flat(pairs.chosen_length, pairs.rejected_length)
    row = torch.arange(len(length)).repeat_interleave(length)
    logp, ref = flat(pairs.chosen, pairs.rejected), flat(pairs.ref_chosen, pairs.ref_rejected)
    g = torch.Generator().manual_seed(0)
    kl, teacher_kl, advantage = torch.rand(3, len(row), generator=g, dtype=logp.dtype)
    layers = torch.randn(len(row), LAYERS + 1, WIDTH, generator=g, dtype=logp.dtype)
    tokens = Tokens((logp / length)[row], row, (ref / length)[row], kl, teacher_kl, advantage, layers)
    return replace(pairs, tokens=tokens)


def unary_bundle(n: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> UnaryLogps:
    """Random single responses, ups and downs in turn, with mismatched ones."""
    pairs, other = pair_bundle(n, seed, dtype), pair_bundle(n, seed + 1, dtype)
    return UnaryLogps(
        pairs.chosen,
        pairs.chosen_length,
        torch.arange(n) % 2 == 0,
        pairs.ref_chosen,
        kl_logp=other.chosen,
        kl_ref=other.ref_chosen,
    )


def list_bundle(n: int = 4, k: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> ListLogps:
    """Random lists; the second one has two responses less, the third one a tie. They were sampled a step ago."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (n, k), generator=g)
    logp, ref = -torch.rand(2, n, k, generator=g, dtype=dtype) * 2 * length
    scores = torch.randn(n, k, generator=g, dtype=dtype)
    scores[2, 1] = scores[2, 3]
    mask = torch.ones(n, k, dtype=torch.bool)
    mask[1, -2:] = False
    logp, ref, length = logp * mask, ref * mask, length.masked_fill(~mask, 1)
    old = logp + 0.2 * torch.randn(n, k, generator=g, dtype=dtype) * mask
    extras = {"answer": torch.zeros(n, dtype=torch.long)}
    return with_tokens(ListLogps(logp, length, mask, scores, ref, old, extras=extras))


def with_tokens(lists: ListLogps) -> ListLogps:
    """The lists with the log-prob of each response spread evenly over its tokens."""
    row = torch.arange(lists.mask.numel()).repeat_interleave((lists.length * lists.mask).flatten())
    assert lists.ref is not None and lists.old is not None
    each, ref, old = ((x / lists.length).flatten()[row] for x in (lists.logp, lists.ref, lists.old))
    states = torch.randn(len(row), WIDTH, generator=torch.Generator().manual_seed(0), dtype=each.dtype)
    return replace(lists, tokens=Tokens(each, row, ref, states=states), old_tokens=old)


def cross_bundle(n: int = 4, c: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> CrossLogps:
    """Random responses under as many conditions."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (n, c), generator=g)
    logp, ref = -torch.rand(2, n, c, c, generator=g, dtype=dtype) * 2 * length[:, None]
    return CrossLogps(logp, length, ref)


def get_objective(name: str, **options: Any) -> Any:
    """The objective, its own trainable parts made for the hidden states of these bundles and without dropout."""
    made = by_name(name, **options)
    if made.module is not None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made.module.attach(WIDTH, LAYERS)
        made.module.double().eval()
    return made


def bundle_for(kind: type[Bundle], **options: Any) -> Any:
    """A random bundle of that class."""
    makers = {
        PairLogps: pair_bundle,
        UnaryLogps: unary_bundle,
        ListLogps: list_bundle,
        CrossLogps: cross_bundle,
    }
    return makers[kind](**options)


def policy_fields(bundle: Bundle) -> list[str]:
    """The fields of a bundle through which gradients flow to the policy."""
    return ["chosen", "rejected"] if isinstance(bundle, PairLogps) else ["logp"]


def with_policy(bundle: Any, *values: Tensor) -> Any:
    """The bundle with other policy log-probs; the tokens of lists follow."""
    bundle = replace(bundle, **dict(zip(policy_fields(bundle), values)))
    if isinstance(bundle, PairLogps):
        return with_pair_tokens(bundle)
    return with_tokens(bundle) if isinstance(bundle, ListLogps) else bundle
