"""What one command of the procedure wrote or used in, what the next one takes for it out.

The procedure's scripts had the folder of super images and the checkpoint written in their code. Its commands are run
one after the other in one folder, where the default store lies as well: so a small file there hands these over, and a
note in one project is never taken in another.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib

from ... import GridClipError
from ...dali_pipes import ids

logger = logging.getLogger(__name__)

FILE = pathlib.Path(".gridclip.json")  # in the working directory


def note(**values: str | os.PathLike[str]) -> None:
    """Notes what the next command may need, beside what is noted; where the folder is read-only, nothing is.

    Args:
        values: as the user gave them; relative paths stay so, for the file lies where they start.
    """
    noted = _read() | {name: os.fspath(value) for name, value in values.items()}
    new = FILE.with_name(f"{FILE.name}.{os.getpid()}")
    try:
        new.write_text(json.dumps(noted, indent=1, sort_keys=True) + "\n", "utf-8")
        new.replace(FILE)
    except OSError as error:
        logger.debug("nothing is noted for the next command: %s", error)


def noted(name: str, option: str, source: str) -> str:
    """The value that an earlier command noted, told to the user.

    Args:
        name: what `note` was given.
        option: that the user left out, for the messages.
        source: the command that notes it.

    Raises:
        GridClipError: none has.
    """
    value = _read().get(name)
    if value is None:
        raise GridClipError(f"{option} is missing, and no {source} has been run in this folder: give {option}")
    logger.warning("no %s is given: taking %s, as the last %s in this folder", option, ids.printable(value), source)
    return value


def _read() -> dict[str, str]:
    try:
        found = json.loads(FILE.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
