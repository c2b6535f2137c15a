"""Ranges of a file that somebody fetches in, a file object that seeks out: it reads ahead and keeps a bounded part."""

from __future__ import annotations

import io
from collections.abc import Callable

# A first look at a place fetches so much: the header of a video, mostly. As long as reading goes on where the last
# range ended, each range is twice the one before, so that a video takes few requests; a jump begins small again, so
# that what is jumped over is not fetched: about half of what a run of reading fetches, at most, is beyond its end.
FIRST_BYTES = 256 << 10
MOST_BYTES = 4 << 20
# The header, the index at the end, and where reading is: FFmpeg goes back and forth between them.
KEPT_RANGES = 4


class ReadFailed(OSError):
    """A place that cannot be read: the message says which, and why."""


# (start, stop) in, these bytes out: all of them, or some from the start on where that is all that could be had. Raises
# ReadFailed.
Fetch = Callable[[int, int], bytes]


class ReadAhead(io.RawIOBase):
    """A file of known size, read-only, of which ranges are fetched as they are needed.

    Args:
        fetch: gets a range of it.
        size: of the file, bytes.

    Attributes:
        failure: why a range could not be had. FFmpeg takes a failed read for the end of the file here and there, so
            whoever used it looks here. From then on the file is at its end.
        fetched_bytes: of all ranges.
    """

    def __init__(self, fetch: Fetch, size: int) -> None:
        super().__init__()
        self.failure: ReadFailed | None = None
        self.fetched_bytes = 0
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._ranges: list[tuple[int, bytes]] = []  # (start, bytes), the one used last at the end
        self._run_end = -1  # where the last range that was fetched ends
        self._run_bytes = FIRST_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of any file; places beyond the end are allowed, reading there gives nothing."""
        position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        if position < 0:
            raise ValueError(f"seek to {position}: expected a place in the file")
        self._position = position
        return position

    def read(self, size: int = -1, /) -> bytes:
        """That many bytes (fewer at the end of the file only), or all that follow; raises ReadFailed, once."""
        if self.failure is not None:  # FFmpeg comes back many times, and PyAV prints each error that it passes over
            return b""
        stop = self._size if size < 0 else min(self._size, self._position + size)
        parts = []
        while self._position < stop:
            start, held = self._range_at(self._position)
            part = held[self._position - start : stop - start]
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _range_at(self, position: int) -> tuple[int, bytes]:
        """(start, bytes) of a range that holds this place."""
        for index in reversed(range(len(self._ranges))):
            start, held = self._ranges[index]
            if start <= position < start + len(held):
                self._ranges.append(self._ranges.pop(index))
                return self._ranges[-1]
        going_on = self._run_end <= position <= self._run_end + FIRST_BYTES
        self._run_bytes = min(2 * self._run_bytes, MOST_BYTES) if going_on else FIRST_BYTES
        stop = min(self._size, position + self._run_bytes, *(start for start, _ in self._ranges if start > position))
        try:
            held = self._fetch(position, stop)
        except ReadFailed as error:
            self.failure = error
            raise
        if len(held) < stop - position:  # it came with difficulty: less at once from here on
            self._run_bytes = FIRST_BYTES
        self.fetched_bytes += len(held)
        self._run_end = position + len(held)
        self._ranges = [*self._ranges[1 - KEPT_RANGES :], (position, held)]
        return self._ranges[-1]
