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
        jump_bytes: a jump takes as long as reading so much: so short a gap between two ranges is better read.

    Attributes:
        size, jump_bytes: as given.
        failure: why a range could not be had. FFmpeg takes a failed read for the end of the file here and there, so
            whoever used it looks here. From then on the file is at its end.
        fetched_bytes: of all ranges.
    """

    def __init__(self, fetch: Fetch, size: int, jump_bytes: int = FIRST_BYTES) -> None:
        super().__init__()
        self.size = size
        self.jump_bytes = jump_bytes
        self.failure: ReadFailed | None = None
        self.fetched_bytes = 0
        self._fetch = fetch
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
        position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence] + offset
        if position < 0:
            raise ValueError(f"seek to {position}: expected a place in the file")
        self._position = position
        return position

    def read(self, size: int = -1, /) -> bytes:
        """That many bytes (fewer at the end of the file only), or all that follow; raises ReadFailed, once."""
        if self.failure is not None:  # FFmpeg comes back many times, and PyAV prints each error that it passes over
            return b""
        stop = self.size if size < 0 else min(self.size, self._position + size)
        parts = []
        while self._position < stop:
            start, held = self._range_at(self._position)
            part = held[self._position - start : stop - start]
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_range(self, start: int, stop: int) -> bytes:
        """These bytes (fewer at the end of the file only), and no others are fetched; raises ReadFailed, once.

        For whoever knows what is needed: nothing is read ahead, and what is fetched is not kept.
        """
        parts = []
        position, stop = start, min(stop, self.size)
        while position < stop and self.failure is None:
            if (found := self._held_at(position)) is not None:
                first, held = found
                part = held[position - first : stop - first]
            else:
                part = self._fetched(position, min(stop, position + MOST_BYTES, self._next_held(position)))
            parts.append(part)
            position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _held_at(self, position: int) -> tuple[int, bytes] | None:
        """(start, bytes) of the range that is held and has this place."""
        for index in reversed(range(len(self._ranges))):
            start, held = self._ranges[index]
            if start <= position < start + len(held):
                self._ranges.append(self._ranges.pop(index))
                return self._ranges[-1]
        return None

    def _next_held(self, position: int) -> int:
        """Where the next range that is held begins; the file's end where none does."""
        return min((start for start, _ in self._ranges if start > position), default=self.size)

    def _fetched(self, start: int, stop: int) -> bytes:
        try:
            held = self._fetch(start, stop)
        except ReadFailed as error:
            self.failure = error
            raise
        self.fetched_bytes += len(held)
        return held

    def _range_at(self, position: int) -> tuple[int, bytes]:
        """(start, bytes) of a range that holds this place."""
        if (found := self._held_at(position)) is not None:
            return found
        going_on = self._run_end <= position <= self._run_end + FIRST_BYTES
        self._run_bytes = min(2 * self._run_bytes, MOST_BYTES) if going_on else FIRST_BYTES
        stop = min(position + self._run_bytes, self._next_held(position))
        held = self._fetched(position, stop)
        if len(held) < stop - position:  # it came with difficulty: less at once from here on
            self._run_bytes = FIRST_BYTES
        self._run_end = position + len(held)
        self._ranges = [*self._ranges[1 - KEPT_RANGES :], (position, held)]
        return self._ranges[-1]
