"""The five nouns (Record, Scorer, Objective, Policy, Report) and what every room shares.

Nothing in here imports another room. To add a noun's implementation, go to its room; to add something that two
rooms on one floor need, add it here.
"""

from accordance.core.catalogue import System, system, systems
from accordance.core.errors import (
    AccordanceError,
    ConfigError,
    DataError,
    MissingExtra,
    MissingReference,
    ModelError,
    TrainingError,
)
from accordance.core.objective import CrossLogps, ListLogps, Objective, PairLogps, Tokens, UnaryLogps
from accordance.core.policy import Completion, Policy, Prompt
from accordance.core.record import Account, Judgment, Message, Record, Records, Response
from accordance.core.scorer import FunctionScorer, PairScorer, Scorer

__all__ = [
    "AccordanceError",
    "Account",
    "Completion",
    "ConfigError",
    "CrossLogps",
    "DataError",
    "FunctionScorer",
    "Judgment",
    "ListLogps",
    "Message",
    "MissingExtra",
    "MissingReference",
    "ModelError",
    "Objective",
    "PairLogps",
    "PairScorer",
    "Policy",
    "Prompt",
    "Record",
    "Records",
    "Response",
    "Scorer",
    "System",
    "Tokens",
    "TrainingError",
    "UnaryLogps",
    "system",
    "systems",
]
