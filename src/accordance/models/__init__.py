"""Weights to policies: loading, packed groups, log-probabilities, reference cache, generation.

In: a path, a hub name or a loaded transformers model. Out: a `LocalPolicy`, which scores and writes responses. A new
architecture needs nothing here: whether it can share prompts is measured when it is loaded.
"""

from accordance.models.api import InspectPolicy
from accordance.models.encoding import Encoder, fit
from accordance.models.engine import Engine, GroupLogps, naive_logps
from accordance.models.packing import Group, Packed, batches, pack
from accordance.models.policy import LocalPolicy, load_policy, logprobs
from accordance.models.reference import CachedReference, Reference, ReferenceLogps, weights_hash

__all__ = [
    "CachedReference",
    "Encoder",
    "Engine",
    "Group",
    "GroupLogps",
    "InspectPolicy",
    "LocalPolicy",
    "Packed",
    "Reference",
    "ReferenceLogps",
    "batches",
    "fit",
    "load_policy",
    "logprobs",
    "naive_logps",
    "pack",
    "weights_hash",
]
