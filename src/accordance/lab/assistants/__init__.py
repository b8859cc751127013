"""Scripted assistants: judge, critic, principle writer, writer, rewriter, user, attacker, with known skill and bias.

Each is a `Policy`: a conversation goes in, text comes out, as from a real language model. `LabJudge` judges, and does
what a `LabCritic` does: criticise, name principles, label. `LabWriter` answers and rewrites, `LabUser` asks and
reacts, `LabAttacker` asks for harm and speaks to judges. They also stand behind inspect_ai's model provider ``lab``
(``InspectPolicy("lab/judge", noise=0.5)``, see `accordance.lab.assistants.provider`). To add a task to one: a method
under its name in `tasks`.
"""

from accordance.lab.assistants.base import Scripted, Taste
from accordance.lab.assistants.critic import LabCritic
from accordance.lab.assistants.judge import LabJudge
from accordance.lab.assistants.people import COMPLAINTS, PRAISE, LabAttacker, LabUser
from accordance.lab.assistants.writer import LabWriter

#: Scripted assistants by the name that commands and the provider know them under.
ROLES: dict[str, type[Scripted]] = {
    "judge": LabJudge,
    "critic": LabCritic,
    "writer": LabWriter,
    "user": LabUser,
    "attacker": LabAttacker,
}

__all__ = [
    "COMPLAINTS",
    "PRAISE",
    "ROLES",
    "LabAttacker",
    "LabCritic",
    "LabJudge",
    "LabUser",
    "LabWriter",
    "Scripted",
    "Taste",
]
