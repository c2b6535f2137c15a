"""Compressed chunks in, as they come; batches of like cost and bounded size out, to whichever pipeline asks first."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

from ..contract import Compressed, CompressedImages

C = TypeVar("C", bound=Compressed)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a batch of a pipeline may hold.

    Attributes:
        items: DALI's samples: segments, or JPEG files.
        decoded_bytes: decoded frames at their own size; a single chunk may exceed it.
        waiting: chunks that may wait for a pipeline.
    """

    items: int
    decoded_bytes: int
    waiting: int


class Waiting(Generic[C]):
    """Chunks that wait for a pipeline. One thread puts, the pipelines' threads take.

    A batch holds chunks of like cost: DALI gives each to a thread of its own, and waits for the last one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._chunks: list[C] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def full(self) -> bool:
        """No more should be put."""
        return len(self._chunks) >= self._limits.waiting

    def put(self, chunk: C) -> None:
        """Adds a chunk."""
        with self._changed:
            self._chunks.append(chunk)
            self._changed.notify()

    def close(self) -> None:
        """Drops what waits, and ends every take()."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._changed.notify_all()

    def take(self) -> list[C]:
        """The chunk that has waited longest and those nearest to it in cost; waits for one; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._closed)
            if not self._chunks:
                return []
            batch = choose(self._chunks, self._limits)
            taken = {id(chunk) for chunk in batch}
            self._chunks = [chunk for chunk in self._chunks if id(chunk) not in taken]
            return batch


def choose(chunks: Sequence[C], limits: Limits) -> list[C]:
    """The first chunk, and as many of those nearest to it in cost as the limits allow."""
    oldest = chunks[0]
    batch, items, decoded_bytes = [oldest], count_samples(oldest), oldest.decoded_bytes
    for chunk in sorted(chunks[1:], key=lambda chunk: abs(chunk.cost - oldest.cost)):
        more, more_bytes = items + count_samples(chunk), decoded_bytes + chunk.decoded_bytes
        if more <= limits.items and more_bytes <= limits.decoded_bytes:
            batch.append(chunk)
            items, decoded_bytes = more, more_bytes
    return batch


def count_samples(chunk: Compressed) -> int:
    """DALI's samples in a chunk."""
    return len(chunk.files) if isinstance(chunk, CompressedImages) else 1
