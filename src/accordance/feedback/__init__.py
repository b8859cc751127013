"""Feedback from the outside world: raw files and tables come in, Records with an account of every row go out.

`load_records` reads, `save_records` writes, `preflight` shows what is in it before any training.
To add a format: a file in `formats/` with a function under `@format`, and a line in `formats/__init__.py`.
"""

from accordance.feedback.aside import save_set_aside, set_aside
from accordance.feedback.formats import FORMATS, format
from accordance.feedback.loading import load_records
from accordance.feedback.moral_graph import MoralGraph
from accordance.feedback.partial_orders import PartialOrder
from accordance.feedback.preflight import preflight
from accordance.feedback.rational import Choice, fit, fit_skilled
from accordance.feedback.saving import save_records
from accordance.feedback.trees import MessageTree, load_trees
from accordance.feedback.welfare import welfare

__all__ = [
    "FORMATS",
    "Choice",
    "MessageTree",
    "MoralGraph",
    "PartialOrder",
    "fit",
    "fit_skilled",
    "format",
    "load_records",
    "load_trees",
    "preflight",
    "save_records",
    "save_set_aside",
    "set_aside",
    "welfare",
]
