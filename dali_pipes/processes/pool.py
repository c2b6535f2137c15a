"""Videos in, what a task makes of them out: worker processes that may hang or crash without harm to the job.

Each worker is a fresh Python process that imports only what its task needs, holds one video at a time and sends results
one by one; a result that the parent has not taken yet blocks it, so memory stays bounded by workers x one result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
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
from typing import Generic, Protocol, TypeVar, assert_never

from ... import GridClipError
from ..contract import Failure, Finished, News, Notice, Restarted, Stage, VideoError, VideoFile
from .child import Child
from .child_logs import Levels, Logged, Sender, log_to_parent

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Task(Protocol[T_co]):
    """What a worker process does with a video; can be pickled."""

    def __call__(self, video: VideoFile, /, *, skip: int) -> Iterator[T_co | Notice]:
        """Yields results, and notices between them.

        Args:
            skip: units (super images) of the video that are delivered already, to leave out.

        Raises:
            VideoError: the video is lost.
            GridClipError: no video can be read or written any more (a full disk).
        """


DEFAULT_TIME_LIMIT_S = 300.0
START_LIMIT_S = 300.0  # imports from a cold network drive
MAX_LOG_RECORDS = 200  # of a video: a decoder that never stops complaining would else never count as hung
START_TRIES = 3  # a process may be killed while it starts (out of memory) without a fault of the installation
# A crash may be chance (out of memory), and another decoder gives other pixels. A hang costs a whole time limit, and
# what has hung once on a file hangs again: the next task takes over at once.
TRIES_OF_A_TASK = 2
# What every frame takes and frees, glibc would give back to the system, which zeroes it page by page for the next one.
_KEPT_BYTES = str(16 << 20)
WORKER_ENV = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
}


@dataclasses.dataclass(frozen=True)
class Woken:
    """Not a result: the connection that the caller wanted to be woken by can be read."""


WAKING = VideoFile("", pathlib.Path())  # goes with Woken


@dataclasses.dataclass(frozen=True)
class Named(Generic[T]):
    """A task with the name that messages call it by."""

    name: str
    task: Task[T]

    def __call__(self, video: VideoFile, /, *, skip: int) -> Iterator[T | Notice]:
        return self.task(video, skip=skip)


@dataclasses.dataclass(frozen=True)
class _Result(Generic[T]):
    value: T | Notice


@dataclasses.dataclass(frozen=True)
class _Ready:
    """The worker has imported everything and waits for its first video."""


@dataclasses.dataclass(frozen=True)
class _FailedTry:
    """A task that failed with this video. Unless final, another try may still succeed."""

    stage: Stage
    reason: str
    final: bool
    details: str = ""


@dataclasses.dataclass(frozen=True)
class _Stop:
    """An error that would hit every video (a full disk): the job ends with this message."""

    message: str


# What a worker process sends.
_Message = _Ready | Logged | _Result[T] | Finished | _FailedTry | _Stop


def run(
    videos: Iterable[VideoFile],
    tasks: Sequence[Task[T]],
    *,
    num_workers: int,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    size: Callable[[T], int] | None = None,
) -> Generator[tuple[VideoFile, T | News], None, None]:
    """Yields the results and notices of every video in order, then Finished or Failure; videos interleave.

    A task that raises VideoError loses the video. One that crashes its process or raises something unexpected is tried
    once more, and then followed by the next task, as is at once one that delivers nothing for time_limit_s. Each try is
    told to skip what has been delivered. A Notice of kind "decoder" says that another task than the first was needed.
    Log records of the processes arrive in this process's logging.

    Args:
        videos: read lazily, handed out one by one to whichever worker is free.
        tasks: picklable by name; called in a worker as task(video, skip=units), tried in order.
        num_workers: processes, >= 1; each is started when there is a video for it.
        time_limit_s: seconds without a result after which a worker counts as hung, > 0.
        size: the units in a result, for skip. None: tasks start again (Restarted) rather than go on.

    Raises:
        GridClipError: a task raised one that is no VideoError (a full disk), or a worker does not start, START_TRIES
            times in a row.
    """
    events = run_and_wake(videos, tasks, num_workers=num_workers, time_limit_s=time_limit_s, size=size, wake=None)
    with contextlib.closing(events):
        for video, event in events:
            if isinstance(event, Woken):
                raise AssertionError("woken by nothing")
            yield video, event


def run_and_wake(
    videos: Iterable[VideoFile],
    tasks: Sequence[Task[T]],
    *,
    num_workers: int,
    time_limit_s: float,
    size: Callable[[T], int] | None,
    wake: Connection | None,
) -> Generator[tuple[VideoFile, T | News | Woken], None, None]:
    """The same beside other work: (WAKING, Woken()) is yielded whenever `wake` can be read; whoever gets it empties it.

    Args and errors are those of `run`.
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
                crew.append(_Worker(tasks, time_limit_s, size))
                crew[-1].give(video)
            if not crew:
                return
            next_deadline = min(worker.deadline for worker in crew)
            connections = [worker.connection for worker in crew] + ([] if wake is None else [wake])
            ready = wait(connections, max(0.0, next_deadline - time.monotonic()))
            if wake in ready:
                yield WAKING, Woken()
            for worker in list(crew):
                if worker.connection in ready:
                    yield from worker.receive()
                # While the caller held the generator, a silent worker may have delivered after all.
                elif time.monotonic() > worker.deadline and not worker.connection.poll():
                    yield from worker.end_hung()
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

    def __init__(self, tasks: Sequence[Task[T]], time_limit_s: float, size: Callable[[T], int] | None) -> None:
        self._tasks = tasks
        self._time_limit_s = time_limit_s
        self._size = size
        self._reset()
        self._failed_starts = 0
        self.video: VideoFile | None = None
        self._start()

    def _start(self) -> None:
        self._child = Child(serve, WORKER_ENV)
        self.connection = self._child.connection
        self._started = False
        self.deadline = time.monotonic() + START_LIMIT_S
        self._child.send((list(self._tasks), Levels.here()))

    def give(self, video: VideoFile) -> None:
        """Hands the process its next video."""
        self.video = video
        self._reset()
        self._assign()

    def _reset(self) -> None:
        self._task = 0  # which of the tasks
        self._tries = 0  # failed ones of this task
        self._delivered = 0  # units
        self._void = False  # something was yielded that tasks without a size will yield again
        self._given_up: list[str] = []  # tasks, and why

    def _assign(self) -> None:
        if not self._child.running:
            self.kill()
            self._start()
        if self._started:  # else the log is new, and may hold why the process cannot start
            self._child.clear_log()
            self.deadline = time.monotonic() + self._time_limit_s
        self._child.send((self.video, self._task, self._delivered))

    def receive(self) -> Iterator[tuple[VideoFile, T | News]]:
        """Takes the one message that is waiting."""
        assert self.video is not None
        try:
            message: _Message[T] = self.connection.recv()
        except (EOFError, OSError):
            yield from self._handle_death()
            return
        self.deadline = time.monotonic() + self._time_limit_s
        match message:
            case _Ready():
                self._started = True
                self._failed_starts = 0
            case Logged():
                message.emit(self.video.video_id)
            case _Result(value):
                if self._size is None:
                    self._void = True
                elif not isinstance(value, Notice):
                    self._delivered += self._size(value)
                yield self.video, value
            case Finished():
                video, self.video = self.video, None
                yield video, message
            case _FailedTry(stage, reason, final, details):
                if details:
                    logger.warning("%s: %s", self.video.video_id, details.rstrip())
                yield from self._give_up(stage, reason) if final else self._fail(stage, reason)
            case _Stop(reason):
                raise GridClipError(reason)
            case _:
                assert_never(message)

    def end_hung(self) -> Iterator[tuple[VideoFile, T | News]]:
        """Ends a process that is silent for too long, and gives its video to a new one."""
        yield from self._lose_process(f"nothing decoded for {self._time_limit_s:g} s", last_try=True)

    def _handle_death(self) -> Iterator[tuple[VideoFile, T | News]]:
        yield from self._lose_process(self._child.cause_of_death("the decoding process"))

    def _lose_process(self, reason: str, *, last_try: bool = False) -> Iterator[tuple[VideoFile, T | News]]:
        assert self.video is not None
        self.kill()
        tail = self._child.log_tail()
        logger.warning("%s: %s%s", self.video.video_id, reason, f"\n{tail}" if tail else "")
        if self._started:
            yield from self._fail("decode", reason, last_try=last_try)
            return
        self._failed_starts += 1
        if self._failed_starts == START_TRIES:
            raise GridClipError(f"a worker process does not start ({reason}): {tail or 'it wrote no message'}")
        self._assign()

    def _fail(self, stage: Stage, reason: str, *, last_try: bool = False) -> Iterator[tuple[VideoFile, T | News]]:
        """A try has failed: the video is tried again, by the next task if this one has had its tries, or is lost."""
        self._tries += 1
        if last_try or self._tries == TRIES_OF_A_TASK:
            times = "" if self._tries == 1 else f" {self._tries} times"
            self._given_up.append(f"{_name(self._tasks[self._task])} failed{times} ({reason})")
            self._task += 1
            self._tries = 0
        if self._task == len(self._tasks):
            yield from self._give_up(stage, reason)
        else:
            yield from self._try_again()

    def _try_again(self) -> Iterator[tuple[VideoFile, T | News]]:
        assert self.video is not None
        if self._void:
            yield self.video, Restarted()
        if self._given_up and (self._void or not self._tries):
            start = f" from super image {self._delivered + 1} on" if self._delivered else ""
            detail = f"{', '.join(self._given_up)}: made by {_name(self._tasks[self._task])}{start}"
            yield self.video, Notice(self.video.video_id, "decoder", detail)
        self._void = False
        self._assign()

    def _give_up(self, stage: Stage, reason: str) -> Iterator[tuple[VideoFile, T | News]]:
        assert self.video is not None
        video, self.video = self.video, None
        yield video, Failure(video.video_id, stage, reason)

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        self._child.kill()


def _name(task: object) -> str:
    while isinstance(task, functools.partial):
        task = task.func
    return task.name if isinstance(task, Named) else getattr(task, "__name__", repr(task))


def serve(connection_fd: int) -> None:
    """The life of a worker process: receives the tasks, then videos one by one, and sends what they yield."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    connection = Connection(connection_fd)
    tasks: Sequence[Task[object]]
    tasks, levels = connection.recv()
    parent = Sender(connection)
    log = log_to_parent(parent.send, levels, max_records=MAX_LOG_RECORDS)
    orders: queue.SimpleQueue[tuple[VideoFile, int, int]] = queue.SimpleQueue()

    def read_orders() -> None:
        try:
            while True:
                orders.put(connection.recv())
        finally:  # the parent is gone: end, even while a decoder hangs
            os._exit(0)

    threading.Thread(target=read_orders, daemon=True).start()
    parent.send(_Ready())
    while True:
        video, task, skip = orders.get()
        log.next_task()
        parent.send(_serve_video(parent, tasks[task], video, skip))


def _serve_video(parent: Sender, task: Task[object], video: VideoFile, skip: int) -> Finished | _FailedTry | _Stop:
    try:
        for value in task(video, skip=skip):
            parent.send(_Result(value))
        return Finished()
    except VideoError as error:
        return _FailedTry(error.stage, error.reason, final=True)
    except GridClipError as error:
        return _Stop(str(error))
    except Exception as error:  # noqa: BLE001 - a decoder's bug costs one video, not the job
        return _FailedTry("decode", f"{type(error).__name__}: {error}", final=False, details=traceback.format_exc())
