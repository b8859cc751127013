"""Policy x Records x Objective -> Policy: the trainer, its configuration and its runs.

In: a policy, records, a `TrainingConfig`. Out: the policy trained, with checkpoints in the run's folder. What varies
is the objective and the source of examples (records, or rollouts); there is one trainer. A procedure of several stages
is a `Loop`: write one and register it with `@loop("name")`.
"""

from accordance.training.bundles import bundle_for
from accordance.training.config import TrainingConfig, read_recipe
from accordance.training.debate import Debate
from accordance.training.examples import Example, Examples, examples_for
from accordance.training.inquiry import Inquiry, IntentSchema
from accordance.training.loops import Loop, Session, loop, loop_kinds, run_loop
from accordance.training.process_rewards import ProcessReward
from accordance.training.rollouts import Rollout, RolloutSource, group_scores
from accordance.training.run import TrainingRun, disable_dropout, train
from accordance.training.structured import StructuredOutput, StructuredReward
from accordance.training.trainer import PreferenceTrainer, last_complete_checkpoint
from accordance.training.weak_to_strong import Splits, WeakToStrong

__all__ = [
    "Debate",
    "Example",
    "Examples",
    "Inquiry",
    "IntentSchema",
    "Loop",
    "PreferenceTrainer",
    "ProcessReward",
    "Rollout",
    "RolloutSource",
    "Session",
    "Splits",
    "StructuredOutput",
    "StructuredReward",
    "TrainingConfig",
    "TrainingRun",
    "WeakToStrong",
    "bundle_for",
    "disable_dropout",
    "examples_for",
    "group_scores",
    "last_complete_checkpoint",
    "loop",
    "loop_kinds",
    "read_recipe",
    "run_loop",
    "train",
]
