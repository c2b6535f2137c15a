"""Counts of a running job in, job.json beside its failures out, every few seconds, for whoever asks.

A thread writes it, so that a job whose decoder is at work on one long video still shows that it lives. A job that was
killed leaves its last record: its process is gone, or it has shown no sign of life for a while (see status.py).
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import logging
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, final

from .progress import Counts

logger = logging.getLogger(__name__)

BEAT_S = 5.0
SILENT_S = 60.0  # after which a job on another machine counts as dead
RECENT_S = 120.0  # the rate is that of the last two minutes


def job_paths(folder: pathlib.Path, num_shards: int = 1, shard_id: int = 0) -> Iterator[pathlib.Path]:
    """Where a job whose output is in `folder` may write its record: each of those that run at once needs its own."""
    shard = "" if num_shards == 1 else f".{shard_id}-of-{num_shards}"
    yield folder / f"job{shard}.json"
    for number in itertools.count(2):
        yield folder / f"job{shard}.{number}.json"


def find_records(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The records of all jobs that have written to `folder`, by file name; what cannot be read is left out."""
    found = (_read(path) for path in sorted(folder.glob("job*.json")))
    return [record for record in found if record is not None]


def process_lives(record: dict[str, Any], now_s: float) -> bool:
    """Whether the process of a record is there: on this machine by its id, on others by its last sign of life."""
    if record["ended_s"] is not None:
        return False
    if record["host"] == socket.gethostname():
        started = _process_started(record["pid"])
        return started is not None and started == int(record["process_started"] or 0)
    silent_s: float = now_s - record["beat_s"]
    return silent_s < SILENT_S


class Rate:
    """How many videos a second were finished or lost lately."""

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def add(self, gone: int, now_s: float) -> float | None:
        """Takes a count at a time; the rate since the oldest count of the last `RECENT_S`, None before there is one."""
        while len(self._samples) > 1 and now_s - self._samples[0][0] > RECENT_S:
            self._samples.popleft()
        self._samples.append((now_s, gone))
        first_s, first = self._samples[0]
        return (gone - first) / (now_s - first_s) if now_s > first_s else None


@final
class Heartbeat:
    """Writes a job's record at its start, every few seconds, and at its end; a full disk is no reason to stop.

    Args:
        folder: of the job's output.
        num_shards, shard_id: which job it is.
        counts: what the job has done so far.
    """

    def __init__(self, folder: pathlib.Path, num_shards: int, shard_id: int, counts: Callable[[], Counts]) -> None:
        now_s = time.time()
        self._path = next(path for path in job_paths(folder, num_shards, shard_id) if not _is_taken(path, now_s))
        self._counts = counts
        self._rate = Rate()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._record: dict[str, Any] = {
            "command": [pathlib.PurePath(sys.argv[0]).name, *sys.argv[1:]],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _process_started(os.getpid()),
            "num_shards": num_shards,
            "shard_id": shard_id,
            "started_s": now_s,
            "ended_s": None,
            "outcome": None,
        }

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        interrupted = isinstance(error, KeyboardInterrupt)
        self._record["outcome"] = "finished" if error is None else "interrupted" if interrupted else str(error)
        self._record["ended_s"] = time.time()
        self._write()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._write()

    def _write(self) -> None:
        counts = self._counts()
        rate = self._rate.add(counts.done + counts.failed, time.monotonic())
        beat = {"beat_s": time.time(), "counts": counts.to_json(), "videos_per_s": rate}
        part = self._path.with_name(f".{self._path.name}.part")  # a killed job's is overwritten by the next one's
        try:
            part.write_text(json.dumps(self._record | beat, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
            part.replace(self._path)
        except OSError as error:
            logger.debug("%s is not written: %s", self._path, error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """A record, None where the file holds none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        numbers = [record[name] for name in ("pid", "num_shards", "shard_id", "started_s", "beat_s")]
        Counts.of_json(record["counts"])
        known = {"host", "process_started", "ended_s", "outcome", "command", "videos_per_s"} <= record.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if known and all(isinstance(number, int | float) for number in numbers) else None


def _is_taken(path: pathlib.Path, now_s: float) -> bool:
    record = _read(path)
    return record is not None and process_lives(record, now_s)


def _process_started(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since boot: ids are used again. None: there is none."""
    try:
        fields = (
            pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return int(fields[19]) if fields[0] not in "ZX" else None
