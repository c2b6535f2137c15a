"""Videos in, what a task makes of them out: worker processes that may hang or crash without harm to the job.

Each worker is a fresh Python process that imports only what its task needs, holds one video at a time and sends results
one by one; a result that the parent has not taken yet blocks it, so memory stays bounded by workers x one result.

Where a task is divisible, workers without a video get parts of those that others have in work (see `stretches`): one
long video, and the last ones of a job, keep all workers busy.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from ..contract import Failure, Finished, News, Notice, Restarted, VideoFile
from .serving import NeedsWhole, Task
from .stretches import Divisible, Given
from .worker import Named, Work, Worker

__all__ = ["DEFAULT_TIME_LIMIT_S", "Divisible", "Named", "Task", "Woken", "run", "run_and_wake", "undivided"]

T = TypeVar("T")

DEFAULT_TIME_LIMIT_S = 300.0


@dataclasses.dataclass(frozen=True)
class Woken:
    """Not a result: the connection that the caller wanted to be woken by can be read."""


WAKING = VideoFile("", pathlib.Path())  # goes with Woken


def run(
    videos: Iterable[VideoFile],
    tasks: Sequence[Task[T]],
    *,
    num_workers: int,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    size: Callable[[T], int] | None = None,
) -> Generator[tuple[VideoFile, T | News], None, None]:
    """Yields the results and notices of every video, then Finished or Failure; videos interleave.

    A task that raises VideoError loses the video. One that crashes its process or raises something unexpected is tried
    once more, and then followed by the next task, as is at once one that delivers nothing for time_limit_s. Each try is
    told to skip what has been delivered. A Notice of kind "decoder" says that another task than the first was needed.
    Log records of the processes arrive in this process's logging.

    The results of a video come in order, unless a Divisible task makes it and some workers have nothing else to do:
    then they make parts of it, each in order. All that is said above holds for each part, and the video is lost with
    the first part that is lost. Where a part turns out to need the whole, all begins anew (Restarted) in one process.

    Args:
        videos: read lazily, handed out one by one to whichever worker is free.
        tasks: picklable by name; called in a worker as task(video, skip=units), tried in order.
        num_workers: processes, >= 1; each is started when there is work for it.
        time_limit_s: seconds without a result after which a worker counts as hung, > 0.
        size: the units in a result, for skip. None: tasks start again (Restarted) rather than go on, and make whole
            videos.

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
    crew = _Crew(iter(videos), lambda: Worker(tasks, time_limit_s, size), num_workers)
    try:
        while busy := crew.hand_out():
            next_deadline = min(worker.deadline for worker in busy)
            connections = [worker.connection for worker in busy] + ([] if wake is None else [wake])
            ready = wait(connections, max(0.0, next_deadline - time.monotonic()))
            if wake in ready:
                yield WAKING, Woken()
            for worker in busy:
                if worker.work is None:  # its video was lost in another process meanwhile
                    continue
                if worker.connection in ready:
                    yield from crew.settle(worker, worker.work, worker.receive())
                # While the caller held the generator, a silent worker may have delivered after all.
                elif time.monotonic() > worker.deadline and not worker.connection.poll():
                    yield from crew.settle(worker, worker.work, worker.end_hung())
                if worker.work is None:
                    crew.hand_out()
    finally:
        crew.kill()


def undivided(tasks: Iterable[Task[T]]) -> list[Task[T]]:
    """The same tasks, but one process makes a whole video: for callers to whom its results must come in order."""
    return [Named(task.name, task) if isinstance(task, Divisible) else task for task in tasks]


@dataclasses.dataclass
class _Shared:
    """A video that several processes make.

    Attributes:
        stretches: those that are not finished.
        notices: what has been said of it, so that two processes do not say the same.
    """

    stretches: list[Work]
    notices: set[Notice] = dataclasses.field(default_factory=set)


class _Crew(Generic[T]):
    """The worker processes and what each has to do.

    Args:
        videos: those that wait.
        start: makes a worker process.
        num_workers: most of them.
    """

    def __init__(self, videos: Iterator[VideoFile], start: Callable[[], Worker[T]], num_workers: int) -> None:
        self._videos = videos
        self._start = start
        self._num_workers = num_workers
        self._workers: list[Worker[T]] = []
        self._given: collections.deque[Work] = collections.deque()  # parts that wait for a process
        self._shared: dict[str, _Shared] = {}

    def hand_out(self) -> list[Worker[T]]:
        """Gives work to whoever has none, and asks others for some where there is none; returns the busy workers."""
        idle = [worker for worker in self._workers if worker.work is None]
        while (idle or len(self._workers) < self._num_workers) and (work := self._next()) is not None:
            if not idle:
                idle.append(self._start())
                self._workers.append(idle[-1])
            idle.pop(0).give(work)
        busy = [worker for worker in self._workers if worker.work is not None]
        if len(busy) < self._num_workers:
            self._ask(busy, self._num_workers - len(busy))
        if not any(worker.asked or worker.may_give for worker in busy):
            for worker in idle:  # there will be nothing more for it
                worker.kill()
            self._workers = busy
        return busy

    def _next(self) -> Work | None:
        if self._given:
            return self._given.popleft()
        video = next(self._videos, None)
        return None if video is None else Work(video)

    def _ask(self, busy: list[Worker[T]], free: int) -> None:
        """Asks those with the most left to do for work for as many processes as are free and have not asked yet."""
        helpers = collections.Counter[int]()
        for _ in range(free - sum(worker.asked for worker in busy)):
            shares = [
                (worker.work.left / (2 + helpers[number]), number)
                for number, worker in enumerate(busy)
                if worker.may_give and not worker.asked and worker.work and worker.work.left is not None
            ]
            share, number = max(shares, default=(0.0, 0))
            if share < 1:
                break
            helpers[number] += 1
        for number, count in helpers.items():
            busy[number].ask(count)

    def settle(
        self, worker: Worker[T], work: Work, events: Iterator[T | News | Given | NeedsWhole]
    ) -> Iterator[tuple[VideoFile, T | News]]:
        """Passes on what a worker says of its work as what it means for the whole video."""
        video = work.video
        for event in events:
            shared = self._shared.get(video.video_id)
            match event:
                case Given(begins, known) if begins:
                    self._divide(work, begins, known)
                case Given():
                    pass
                case NeedsWhole():
                    self._drop_others(video)
                    yield video, Restarted()
                    self._given.appendleft(Work(video, whole=True))
                case Failure():
                    self._drop_others(video)
                    yield video, event
                case Finished() if shared is not None:
                    shared.stretches.remove(work)
                    if not shared.stretches:
                        del self._shared[video.video_id]
                        yield video, event
                case Notice() if shared is not None and event in shared.notices:
                    pass
                case _:
                    if shared is not None and isinstance(event, Notice):
                        shared.notices.add(event)
                    yield video, event

    def _divide(self, work: Work, begins: tuple[int, ...], known: bytes | None) -> None:
        ends = [*begins[1:], work.end]
        parts = [Work(work.video, first, end, known, divided=True) for first, end in zip(begins, ends, strict=True)]
        work.end, work.divided = begins[0], True
        self._shared.setdefault(work.video.video_id, _Shared([work])).stretches.extend(parts)
        self._given.extend(parts)

    def _drop_others(self, video: VideoFile) -> None:
        """Nothing more is wanted of what others make of a video."""
        shared = self._shared.pop(video.video_id, None)
        if shared is None:
            return
        self._given = collections.deque(part for part in self._given if part not in shared.stretches)
        for worker in self._workers:
            if worker.work in shared.stretches:
                worker.drop()

    def kill(self) -> None:
        """Ends all processes at once."""
        for worker in self._workers:
            worker.kill()
