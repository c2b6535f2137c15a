"""This process in, the most memory that it has held out; Linux only."""

from __future__ import annotations

import ctypes
import pathlib
import re


class PeakMemory:
    """Measures from now on.

    Raises:
        RuntimeError: this system has no /proc/self/status with VmRSS and VmHWM.
    """

    def __init__(self) -> None:
        _give_back_freed()
        self._start_bytes = _memory("VmRSS")
        self.reset()

    def reset(self) -> None:
        """Forgets the peak so far, but not what was held at the start."""
        _give_back_freed()
        pathlib.Path("/proc/self/clear_refs").write_text("5")

    def peak_above_start(self) -> int:
        """Bytes held at most since the last reset(), less those at the start."""
        return _memory("VmHWM") - self._start_bytes


def peak_bytes() -> int:
    """What this process has held at most since it began; Linux only.

    Not `getrusage`'s figure, which begins with what the process held that started this one.
    """
    return _memory("VmHWM")


def _give_back_freed() -> None:
    """Empties glibc's store of freed memory, which would be taken for memory in use, and hide what is built from it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _memory(name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {name}")
    return int(match.group(1)) * 1024
