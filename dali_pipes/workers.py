"""Videos in, what a work makes of them out: worker processes that may hang or crash without harm to the job.

Each worker is a fresh Python process that imports only what its work needs, holds one video at a time and sends results
one by one; a result that the parent has not taken yet blocks it, so memory stays bounded by workers x one result.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import logging
import os
import pathlib
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from .. import GridClipError
from .child import Child
from .source import Failure, Notice, VideoFile
from .streams import VideoError

logger = logging.getLogger(__name__)

T = TypeVar("T")
# A work is called with the video and, by the keyword skip, the units of it (super images) that are delivered already.
# Between its results it may yield a Notice.
Work = Callable[..., Iterator[T | Notice]]

DEFAULT_TIME_LIMIT_S = 300.0
START_LIMIT_S = 300.0  # imports from a cold network drive
# What every frame takes and frees, glibc would give back to the system, which zeroes it page by page for the next one.
_KEPT_BYTES = str(16 << 20)
WORKER_ENV = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
}


@dataclasses.dataclass(frozen=True)
class Finished:
    """The last thing that a video yields when all its results are delivered."""


@dataclasses.dataclass(frozen=True)
class Woken:
    """Not a result: the connection that the caller wanted to be woken by can be read."""


WAKING = VideoFile("", pathlib.Path())  # goes with Woken


@dataclasses.dataclass(frozen=True)
class _Result:
    value: Any


@dataclasses.dataclass(frozen=True)
class _Ready:
    """The worker has imported everything and waits for its first video."""


@dataclasses.dataclass(frozen=True)
class _Lost:
    """A work that failed with this video. Unless final, the next work may still succeed."""

    stage: str
    reason: str
    final: bool
    details: str = ""


@dataclasses.dataclass(frozen=True)
class _Stop:
    """An error that would hit every video (a full disk): the job ends with this message."""

    message: str


def run(
    videos: Iterable[VideoFile],
    works: Sequence[Work[T]],
    *,
    num_workers: int,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    size: Callable[[Any], int] = lambda result: 0,
    wake: Connection | None = None,
) -> Generator[tuple[VideoFile, T | Finished | Failure | Woken], None, None]:
    """Yields the results of every video in order, then Finished or Failure; videos interleave.

    A work that raises VideoError loses the video. One that crashes its process, delivers nothing for time_limit_s or
    raises something unexpected is followed by the next work, which is told to skip what has been delivered.

    Args:
        videos: read lazily, handed out one by one to whichever worker is free.
        works: picklable by name; called in a worker as work(video, skip=units), tried in order.
        num_workers: processes, >= 1; each is started when there is a video for it.
        time_limit_s: seconds without a result after which a worker counts as hung, > 0.
        size: the units in a result, for skip.
        wake: (WAKING, Woken()) is yielded whenever it can be read; whoever gets that empties it.

    Raises:
        GridClipError: a work raised one that is no VideoError (a full disk), or a worker cannot start.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers ({num_workers}) must be >= 1")
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s ({time_limit_s}) must be > 0")
    waiting = iter(videos)
    crew: list[_Worker[T]] = []
    try:
        while True:
            while len(crew) < num_workers and (video := next(waiting, None)) is not None:
                crew.append(_Worker(works, time_limit_s, size))
                crew[-1].give(video)
            if not crew:
                return
            next_deadline = min(worker.deadline for worker in crew)
            sources = [worker.connection for worker in crew] + ([] if wake is None else [wake])
            ready = wait(sources, max(0.0, next_deadline - time.monotonic()))
            if wake in ready:
                yield WAKING, Woken()
            for worker in list(crew):
                if worker.connection in ready:
                    yield from worker.receive()
                # While the caller held the generator, a silent worker may have delivered after all.
                elif time.monotonic() > worker.deadline and not worker.connection.poll():
                    yield from worker.lost(f"nothing decoded for {time_limit_s:g} s")
                if worker.video is None:
                    if (video := next(waiting, None)) is not None:
                        worker.give(video)
                    else:
                        worker.kill()
                        crew.remove(worker)
    finally:
        for worker in crew:
            worker.kill()


class _Worker(Generic[T]):
    """The parent's side of one worker process and the video that it holds.

    Attributes:
        video: the video in work, None when it is finished or lost.
        connection: where results come from.
        deadline: monotonic time at which the process counts as hung, unless a result is waiting.
    """

    def __init__(self, works: Sequence[Work[T]], time_limit_s: float, size: Callable[[Any], int]) -> None:
        self._works = works
        self._time_limit_s = time_limit_s
        self._size = size
        self._attempt = self._delivered = 0
        self.video: VideoFile | None = None
        self._start()

    def _start(self) -> None:
        self._child = Child(serve, WORKER_ENV)
        self.connection = self._child.connection
        self._started = False
        self.deadline = time.monotonic() + START_LIMIT_S
        self._child.send(list(self._works))

    def give(self, video: VideoFile) -> None:
        """Hands the process its next video."""
        self.video = video
        self._attempt = self._delivered = 0
        self._assign()

    def _assign(self) -> None:
        if not self._child.running:
            self.kill()
            self._start()
        if self._started:  # else the log is new, and may hold why the process cannot start
            self._child.clear_log()
            self.deadline = time.monotonic() + self._time_limit_s
        self._child.send((self.video, self._attempt, self._delivered))

    def receive(self) -> Iterator[tuple[VideoFile, T | Finished | Failure]]:
        """Takes the one message that is waiting."""
        assert self.video is not None
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            yield from self.lost(self._child.cause_of_death("the decoding process"))
            return
        self.deadline = time.monotonic() + self._time_limit_s
        match message:
            case _Ready():
                self._started = True
            case _Result(value):
                self._delivered += self._size(value)
                yield self.video, value
            case Finished():
                video, self.video = self.video, None
                yield video, message
            case _Lost(stage, reason, final, details):
                if details:
                    logger.warning("%s: %s", self.video.video_id, details.rstrip())
                yield from self._next_work(stage, reason, final=final)
            case _Stop(reason):
                raise GridClipError(reason)

    def lost(self, reason: str) -> Iterator[tuple[VideoFile, Failure]]:
        """Ends a hung or dead process, and gives the video to a new one for the next work, if there is one."""
        assert self.video is not None
        self.kill()
        tail = self._child.log_tail()
        logger.warning("%s: %s%s", self.video.video_id, reason, f"\n{tail}" if tail else "")
        if not self._started:
            raise GridClipError(f"a worker process does not start ({reason}): {tail or 'it wrote no message'}")
        yield from self._next_work("decode", reason, final=False)

    def _next_work(self, stage: str, reason: str, *, final: bool) -> Iterator[tuple[VideoFile, Failure]]:
        assert self.video is not None
        self._attempt += 1
        if final or self._attempt == len(self._works):
            video, self.video = self.video, None
            yield video, Failure(video.video_id, stage, reason)
        else:
            self._assign()

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        self._child.kill()


def serve(connection_fd: int) -> None:
    """The life of a worker process: receives the works, then videos one by one, and sends what they yield."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    connection = Connection(connection_fd)
    works = connection.recv()
    tasks: queue.SimpleQueue[tuple[VideoFile, int, int]] = queue.SimpleQueue()

    def read_tasks() -> None:
        try:
            while True:
                tasks.put(connection.recv())
        finally:  # the parent is gone: end, even while a decoder hangs
            os._exit(0)

    threading.Thread(target=read_tasks, daemon=True).start()
    connection.send(_Ready())
    while True:
        video, attempt, skip = tasks.get()
        connection.send(_serve_video(connection, works[attempt], video, skip))


def _serve_video(connection: Connection, work: Work[Any], video: VideoFile, skip: int) -> Finished | _Lost | _Stop:
    try:
        for value in work(video, skip=skip):
            connection.send(_Result(value))
        return Finished()
    except VideoError as error:
        return _Lost(error.stage, error.reason, final=True)
    except GridClipError as error:
        return _Stop(str(error))
    except Exception as error:  # noqa: BLE001 - a decoder's bug costs one video, not the job
        return _Lost("decode", f"{type(error).__name__}: {error}", final=False, details=traceback.format_exc())
