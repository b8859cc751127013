"""Weights to policies: loading, packed groups, log-probabilities, reference cache, generation.

In: a path, a hub name or a loaded transformers model. Out: a `LocalPolicy`, which scores and writes responses. A new
architecture needs nothing here: whether it can share prompts is measured when it is loaded.
"""

from accordance.models.api import InspectPolicy
from accordance.models.distributions import Compared, HeadTable, Table, TopTable
from accordance.models.encoding import Encoder, fit
from accordance.models.engine import Engine, GroupLogps, naive_logps
from accordance.models.heads import Heads, add_heads, heads_of, merge_heads
from accordance.models.packing import Group, Packed, batches, pack
from accordance.models.policy import LocalPolicy, load_policy, logprobs
from accordance.models.reference import (
    CachedReference,
    CopiedReference,
    Reference,
    ReferenceLogps,
    weights_hash,
)
from accordance.models.teacher import StoredTeacher, Teacher
from accordance.models.users import Users, add_users, nobody, users_of

__all__ = [
    "CachedReference",
    "Compared",
    "CopiedReference",
    "Encoder",
    "Engine",
    "Group",
    "GroupLogps",
    "HeadTable",
    "Heads",
    "InspectPolicy",
    "LocalPolicy",
    "Packed",
    "Reference",
    "ReferenceLogps",
    "StoredTeacher",
    "Table",
    "Teacher",
    "TopTable",
    "Users",
    "add_heads",
    "add_users",
    "batches",
    "fit",
    "heads_of",
    "load_policy",
    "logprobs",
    "merge_heads",
    "naive_logps",
    "nobody",
    "pack",
    "users_of",
    "weights_hash",
]
