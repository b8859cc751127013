"""Policy x Records x Objective -> Policy: the trainer, its configuration and its runs.

In: a policy, records, a `TrainingConfig`. Out: the policy trained, with checkpoints in the run's folder. What varies
is the objective and the source of examples; there is one trainer.
"""

from accordance.training.config import TrainingConfig, read_recipe
from accordance.training.examples import Example, Examples, bundle_for, examples_for
from accordance.training.run import TrainingRun, disable_dropout, train
from accordance.training.trainer import PreferenceTrainer, last_complete_checkpoint

__all__ = [
    "Example",
    "Examples",
    "PreferenceTrainer",
    "TrainingConfig",
    "TrainingRun",
    "bundle_for",
    "disable_dropout",
    "examples_for",
    "last_complete_checkpoint",
    "read_recipe",
    "train",
]
