"""A folder in, its folders and the names of their files out: links followed, each folder once, hidden ones left out."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator


def walk(root: pathlib.Path, unreadable: Callable[[pathlib.Path, OSError], None]) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder's path below root with slashes ("" for root itself), and its files' names.

    Args:
        root: an existing folder.
        unreadable: told of each folder that cannot be read, and why.
    """
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(
        root, followlinks=True, onerror=lambda error: unreadable(pathlib.Path(error.filename), error)
    ):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = os.path.relpath(folder, root)
        yield "" if below == os.curdir else below, sorted(name for name in names if not name.startswith("."))


def joined(folder: str, name: str) -> str:
    """A file's path below root, from what `walk` yields."""
    return f"{folder}/{name}" if folder else name
