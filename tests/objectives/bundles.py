"""Small random bundles for the tests of objectives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accordance.core.objective import Bundle, ListLogps, PairLogps, UnaryLogps


def pair_bundle(n: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> PairLogps:
    """Random pairs."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (2, n), generator=g)
    logp, ref = -torch.rand(2, 2, n, generator=g, dtype=dtype) * 2 * length
    return PairLogps(*logp, *length, *ref)


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
    """Random lists; the second one has two responses less, the third one a tie."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (n, k), generator=g)
    logp, ref = -torch.rand(2, n, k, generator=g, dtype=dtype) * 2 * length
    scores = torch.randn(n, k, generator=g, dtype=dtype)
    scores[2, 1] = scores[2, 3]
    mask = torch.ones(n, k, dtype=torch.bool)
    mask[1, -2:] = False
    return ListLogps(logp * mask, length.masked_fill(~mask, 1), mask, scores, ref * mask)


def bundle_for(kind: type[Bundle], **options: Any) -> Any:
    """A random bundle of that class."""
    return {PairLogps: pair_bundle, UnaryLogps: unary_bundle, ListLogps: list_bundle}[kind](**options)


def policy_fields(bundle: Bundle) -> list[str]:
    """The fields of a bundle through which gradients flow to the policy."""
    return ["chosen", "rejected"] if isinstance(bundle, PairLogps) else ["logp"]


def with_policy(bundle: Any, *values: Tensor) -> Any:
    """The bundle with other policy log-probs."""
    return replace(bundle, **dict(zip(policy_fields(bundle), values)))
