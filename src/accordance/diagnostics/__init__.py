"""Diagnostics: what training and labelling do that no benchmark score shows. Data or scores come in, a Report goes out.

Here: how much latitude annotators and models take with written principles (`discretion`), and whether a bias rides on
quality into the reward (`tampering_report`, `rehearsal`). One more: a function that returns a Report, and a line here.
"""

from accordance.diagnostics.discretion import Discretion, discrepancy, discretion, oracle_votes, priority
from accordance.diagnostics.discretion_report import discretion_report
from accordance.diagnostics.tampering import (
    Coupling,
    best_of,
    cluster_scores,
    coupling,
    tilted,
    trigger_words,
)
from accordance.diagnostics.tampering_attack import MITIGATIONS, Attack, Reward, rehearsal
from accordance.diagnostics.tampering_report import tampering_report

__all__ = [
    "MITIGATIONS",
    "Attack",
    "Coupling",
    "Discretion",
    "Reward",
    "best_of",
    "cluster_scores",
    "coupling",
    "discrepancy",
    "discretion",
    "discretion_report",
    "oracle_votes",
    "priority",
    "rehearsal",
    "tampering_report",
    "tilted",
    "trigger_words",
]
