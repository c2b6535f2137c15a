"""Encoded runs in, as they come; batches of like cost and bounded size out, to whichever pipeline asks first."""

from __future__ import annotations

import dataclasses
import threading

from ..contract import Encoded, EncodedImages


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a batch of a pipeline may hold.

    Attributes:
        items: DALI's samples: segments, or JPEG files.
        decoded_bytes: decoded frames at their own size; a single run may exceed it.
        waiting: runs that may wait for a pipeline.
    """

    items: int
    decoded_bytes: int
    waiting: int


class Waiting:
    """Runs that wait for a pipeline. One thread puts, the pipelines' threads take.

    A batch holds runs of like cost: DALI gives each to a thread of its own, and waits for the last one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._runs: list[Encoded] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def full(self) -> bool:
        """No more should be put."""
        return len(self._runs) >= self._limits.waiting

    def put(self, run: Encoded) -> None:
        """Adds a run."""
        with self._changed:
            self._runs.append(run)
            self._changed.notify()

    def close(self) -> None:
        """Drops what waits, and ends every take()."""
        with self._changed:
            self._closed = True
            self._runs.clear()
            self._changed.notify_all()

    def take(self) -> list[Encoded]:
        """The run that has waited longest and those nearest to it in cost; waits for one; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._runs or self._closed)
            if not self._runs:
                return []
            batch = choose(self._runs, self._limits)
            taken = {id(run) for run in batch}
            self._runs = [run for run in self._runs if id(run) not in taken]
            return batch


def choose(runs: list[Encoded], limits: Limits) -> list[Encoded]:
    """The first run, and as many of those nearest to it in cost as the limits allow."""
    oldest = runs[0]
    batch, items, decoded_bytes = [oldest], samples(oldest), oldest.decoded_bytes
    for run in sorted(runs[1:], key=lambda run: abs(run.cost - oldest.cost)):
        fits = items + samples(run) <= limits.items and decoded_bytes + run.decoded_bytes <= limits.decoded_bytes
        if fits:
            batch.append(run)
            items += samples(run)
            decoded_bytes += run.decoded_bytes
    return batch


def samples(run: Encoded) -> int:
    """DALI's samples in a run."""
    return len(run.files) if isinstance(run, EncodedImages) else 1
