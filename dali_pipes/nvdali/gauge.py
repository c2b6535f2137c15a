"""A number that the job's process writes and its worker processes read: how many segments DALI has room for."""

from __future__ import annotations

import mmap
import pathlib
import struct

_FORMAT = struct.Struct("=q")


class Gauge:
    """A signed 64-bit number in a file, mapped into memory.

    Reader and writer do not wait for each other: a worker that reads a number just before it falls hands over one
    segment too many, which waits a little longer.

    Args:
        path: the file; made by `create`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORMAT.size)

    @classmethod
    def create(cls, path: pathlib.Path, value: int) -> Gauge:
        """Makes the file."""
        path.write_bytes(_FORMAT.pack(value))
        return cls(path)

    @property
    def value(self) -> int:
        """The number as it is now."""
        return int(_FORMAT.unpack_from(self._memory)[0])

    @value.setter
    def value(self, number: int) -> None:
        _FORMAT.pack_into(self._memory, 0, number)
