"""nvidia-smi in, what a card is and how busy its cores and its video decoder are over time out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import shutil
import statistics
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType

from gridclip import GridClipError

PROGRAM = "nvidia-smi"
FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "pcie.link.gen.current",
    "power.limit",
    "clocks.max.sm",
    "mig.mode.current",
)
LIMIT_S = 30.0


def describe(device_id: int) -> dict[str, str]:
    """The card by the names of FIELDS, dots as underscores; raises GridClipError where nothing is told."""
    query = [PROGRAM, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader", "-i", str(device_id)]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GridClipError(f"nvidia-smi cannot be asked: {error}") from error
    told = asked.stdout.strip().splitlines()
    values = [value.strip() for value in told[0].split(",")] if told else []
    if asked.returncode or len(values) != len(FIELDS):
        raise GridClipError(f"nvidia-smi ends with status {asked.returncode}: {(asked.stderr or asked.stdout).strip()}")
    return {field.replace(".", "_"): value for field, value in zip(FIELDS, values, strict=True)}


@dataclasses.dataclass(frozen=True)
class Load:
    """One second of a card: percent of the time that its cores, its video decoder and its JPEG decoder were busy.

    Attributes:
        sm, dec, jpg: None where nvidia-smi tells nothing.
    """

    sm: float | None
    dec: float | None
    jpg: float | None


class Watch:
    """Asks `nvidia-smi dmon` for the card's load every second while the context lasts.

    Attributes:
        loads: what it told; empty where it cannot be started.
    """

    def __init__(self, device_id: int | None) -> None:
        self._device_id = device_id
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._printed = b""
        self.loads: list[Load] = []

    def __enter__(self) -> Watch:
        if self._device_id is not None and shutil.which(PROGRAM):
            command = [PROGRAM, "dmon", "-s", "u", "-d", "1", "-i", str(self._device_id)]
            ours, theirs = pty.openpty()  # into a pipe, C programs print some KB at once, and a kill takes them along
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL, start_new_session=True
            )
            os.close(theirs)
            self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
            self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is None or self._reader is None:
            return
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        self.loads = parse_dmon(self._printed.decode(errors="replace"))

    def _read(self, terminal: int) -> None:
        with contextlib.suppress(OSError):  # EIO: the other side has ended
            while printed := os.read(terminal, 4096):
                self._printed += printed
        os.close(terminal)

    @property
    def told(self) -> str:
        """For a table: the median of the seconds in which the decoder worked, or that nothing is known."""
        dec, sm = busy(self.loads, "dec"), busy(self.loads, "sm")
        if dec is None and sm is None:
            return "load not told"
        return f"dec {'?' if dec is None else f'{dec:.0f}'}%, sm {'?' if sm is None else f'{sm:.0f}'}%"


def parse_dmon(printed: str) -> list[Load]:
    """What dmon prints: a heading that names the columns, which differ between drivers, then lines of numbers."""
    columns: list[str] = []
    loads = []
    for line in printed.splitlines():
        words = line.split()
        if line.startswith("#"):
            if "gpu" in words:
                columns = words[1:]
        elif len(words) == len(columns) and columns:
            row = dict(zip(columns, words, strict=True))
            loads.append(Load(*(_number(row.get(name, "-")) for name in ("sm", "dec", "jpg"))))
    return loads


def busy(loads: Sequence[Load], unit: str) -> float | None:
    """Percent of the time that a unit (a field of Load) was busy: the median of the seconds in which it worked."""
    values = [value for load in loads if (value := getattr(load, unit)) is not None]
    if not values:
        return None
    return statistics.median([value for value in values if value > 0] or [0.0])


def _number(word: str) -> float | None:
    return float(word) if word.replace(".", "", 1).isdigit() else None
