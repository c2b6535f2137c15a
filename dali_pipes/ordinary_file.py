"""A path in, an error out where reading it would wait for ever: only ordinary files are read."""

from __future__ import annotations

import errno
import os
import stat

SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special_file(path: str | os.PathLike[str]) -> None:
    """Raises OSError where `path` is a pipe, a socket or a device, or cannot be looked at; links are followed.

    A pipe keeps its reader waiting until somebody writes, and a device may never end. Folders pass: opening one fails
    at once.
    """
    mode = os.stat(path).st_mode
    for is_kind, name in SPECIAL:
        if is_kind(mode):
            raise OSError(errno.EINVAL, f"it is {name}, expected an ordinary file", os.fspath(path))
