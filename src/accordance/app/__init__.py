"""People at a screen: the command `accord`, and the workflows that need several rooms.

In: what a person types, or `align(policy, records, ...)`. Out: a run's folder and its report. To add a command: a file
in `commands/` and a line in `cli.py`; nothing heavy is imported before a command runs.
"""
