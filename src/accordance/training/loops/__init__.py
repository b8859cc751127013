"""Procedures of several stages: each a training run of its own, on records that the stage before may have decided.

In: what `train` takes, and a `loop` in the config. Out: the policy trained, and what each stage measured. To add one,
subclass `Loop`, register it with `@loop("name")`, and let its `run` do everything costly through the `Session`.
"""

from accordance.training.loops.baichuan import Baichuan
from accordance.training.loops.baichuan_augment import AugmentedPolicy, worth_it
from accordance.training.loops.chatglm import ChatGLM, clean_pairs
from accordance.training.loops.chatglm_tools import Toolbox, calculate
from accordance.training.loops.curriculum import Curriculum
from accordance.training.loops.cycle import Cycle
from accordance.training.loops.easy_to_hard import EasyToHard
from accordance.training.loops.evolve import Evolve
from accordance.training.loops.inquiry import InquiryLoop
from accordance.training.loops.iterate import Iterate
from accordance.training.loops.lifelong import Lifelong
from accordance.training.loops.midtrain import Midtrain, compare_specs
from accordance.training.loops.midtrain_documents import SpecWriter
from accordance.training.loops.mosaic import Mosaic
from accordance.training.loops.names import Names
from accordance.training.loops.session import Interrupted, Session, best_and_worst, run_loop
from accordance.training.loops.stages import Stage, Stages
from accordance.training.loops.structured import Structured
from accordance.training.loops.weak_to_strong import WeakToStrongLoop
from accordance.training.registry import Loop, loop, loop_kinds, make_loop

__all__ = [
    "AugmentedPolicy",
    "Baichuan",
    "ChatGLM",
    "Curriculum",
    "Cycle",
    "EasyToHard",
    "Evolve",
    "InquiryLoop",
    "Interrupted",
    "Iterate",
    "Lifelong",
    "Loop",
    "Midtrain",
    "Mosaic",
    "Names",
    "Session",
    "SpecWriter",
    "Stage",
    "Stages",
    "Structured",
    "Toolbox",
    "WeakToStrongLoop",
    "best_and_worst",
    "calculate",
    "clean_pairs",
    "compare_specs",
    "loop",
    "loop_kinds",
    "make_loop",
    "run_loop",
    "worth_it",
]
