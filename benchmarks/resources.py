"""A running process in, its processor time and memory over time out, those of its worker processes included (Linux)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import time
from types import TracebackType

_PROC = pathlib.Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One look at a process and its descendants.

    Attributes:
        at_s: seconds since the watch began.
        cores: processor seconds per second since the sample before, of this process and of its workers.
        worker_cores: of the workers alone.
        memory_mib: proportional set size (shared pages count once) of all.
        parent_mib: of this process alone.
        workers: how many there are.
    """

    at_s: float
    cores: float
    worker_cores: float
    memory_mib: float
    parent_mib: float
    workers: int


class Watch:
    """Looks at this process every `every_s` seconds, in a thread, while the context lasts.

    Attributes:
        samples: what was seen.
    """

    def __init__(self, every_s: float = 0.25) -> None:
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peak_mib(self) -> float:
        """The most memory of all processes together."""
        return max((sample.memory_mib for sample in self.samples), default=0.0)

    @property
    def parent_peak_mib(self) -> float:
        """The most memory of this process."""
        return max((sample.parent_mib for sample in self.samples), default=0.0)

    def _watch(self) -> None:
        me = os.getpid()
        began = last = time.monotonic()
        before = {process: _cpu_s(process) for process in [me, *descendants(me)]}
        ended = False
        while not ended:
            ended = self._ended.wait(self._every_s)  # the last look is taken at the end, however short the watch
            workers = descendants(me)
            now = time.monotonic()
            spent = {process: _cpu_s(process) for process in [me, *workers]}
            used = {process: max(0.0, value - before.get(process, 0.0)) for process, value in spent.items()}
            memory = {process: memory_mib(process) for process in spent}
            elapsed = max(now - last, 1e-3)
            self.samples.append(
                Sample(
                    at_s=round(now - began, 3),
                    cores=round(sum(used.values()) / elapsed, 3),
                    worker_cores=round(sum(used[process] for process in workers) / elapsed, 3),
                    memory_mib=round(sum(memory.values()), 1),
                    parent_mib=round(memory[me], 1),
                    workers=len(workers),
                )
            )
            before, last = spent, now


def descendants(process: int) -> list[int]:
    """The process ids of its children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for path in _PROC.iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            children.setdefault(int(fields[1]), []).append(int(path.name))
    found, waiting = [], [process]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def memory_mib(process: int) -> float:
    """Proportional set size of one process, MiB; 0 where it has ended."""
    try:
        lines = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _cpu_s(process: int) -> float:
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _stat(process: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (the name before it may hold anything); empty when it has ended."""
    try:
        return (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
