"""Policy -> Policy: what is done with a trained policy when it answers.

In: a policy, and somebody who scores. Out: a policy again, so that whatever takes one takes a wrapped one. To add a way
of answering, write a class with `name` and `generate` (see `accordance.core.policy.Policy`).
"""

from accordance.inference.guided import Boundary, GuidedPolicy

__all__ = ["Boundary", "GuidedPolicy"]
