"""The errors of the package. They lie in its lowest room, for every room above raises them.

A message states facts: the value, what was expected and what to do. Where that is a parameter, the message names it in
backticks as Python spells it (`resume=True`, `store`), and the command line shows its option instead. The same holds
for log lines and for the reasons of failures and notices, so that all of them may come from worker processes as text.
"""

from __future__ import annotations


class GridClipError(Exception):
    """An error the user can act on: the message names the value, what was expected and what to do."""


class ArgumentError(GridClipError, ValueError):
    """Arguments that are out of range or exclude each other, whatever the files hold: wrong usage."""
