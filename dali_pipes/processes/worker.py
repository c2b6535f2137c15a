"""A stretch of a video in, the events of making it out: one worker process as its parent sees it, tries and limits."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, assert_never

from ... import GridClipError
from ..contract import Failure, Finished, News, Notice, Restarted, Stage, VideoFile
from .child import Child
from .child_logs import Levels, Logged
from .serving import Asked, FailedTry, Message, NeedsWhole, Order, Ready, Result, Stop, Task, serve
from .stretches import Divisible, Given, Left

logger = logging.getLogger(__name__)

T = TypeVar("T")

START_LIMIT_S = 300.0  # imports from a cold network drive
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
class Named(Generic[T]):
    """A task with the name that messages call it by."""

    name: str
    task: Task[T]

    def __call__(self, video: VideoFile, /, *, skip: int) -> Iterator[T | Notice]:
        return self.task(video, skip=skip)


@dataclasses.dataclass(eq=False)
class Work:
    """A stretch of a video, and how far it is.

    Attributes:
        video: the video.
        first: units of it before the stretch.
        end: units of it before the stretch's end; None: it goes to the video's end.
        known: what is known of the video already, see stretches.Given.
        divided: other processes make parts of the video.
        whole: it must not be divided.
        left: what is left to do, see stretches.Left; None: that is not known yet.
        kept: nothing (more) of it is given away.
        task: which of the tasks.
        tries: failed ones of this task.
        delivered: units.
        void: something was yielded that tasks without a size will yield again.
        given_up: tasks, and why.
    """

    video: VideoFile
    first: int = 0
    end: int | None = None
    known: bytes | None = None
    divided: bool = False
    whole: bool = False
    left: float | None = None
    kept: bool = False
    task: int = 0
    tries: int = 0
    delivered: int = 0
    void: bool = False
    given_up: list[str] = dataclasses.field(default_factory=list)

    def order(self) -> Order:
        """What to do of it now."""
        return Order(self.video, self.task, self.first + self.delivered, self.end, self.known, not self.divided)


class Worker(Generic[T]):
    """The parent's side of one worker process and the stretch of a video that it holds.

    Attributes:
        work: the stretch in work, None when it is finished or lost.
        asked: processes that ask for a part of it, and have no answer yet.
        connection: where results come from.
        deadline: monotonic time at which the process counts as hung, unless a result is waiting.
    """

    def __init__(self, tasks: Sequence[Task[T]], time_limit_s: float, size: Callable[[T], int] | None) -> None:
        self._tasks = tasks
        self._time_limit_s = time_limit_s
        self._size = size
        self._failed_starts = 0
        self.work: Work | None = None
        self.asked = 0
        self._start()

    def _start(self) -> None:
        self._child = Child(serve, WORKER_ENV)
        self.connection = self._child.connection
        self._started = False
        self.deadline = time.monotonic() + START_LIMIT_S
        self._child.send((list(self._tasks), Levels.here()))

    def give(self, work: Work) -> None:
        """Hands the process what to do next."""
        self.work = work
        self._assign()

    def _assign(self) -> None:
        assert self.work is not None
        self.asked, self.work.left = 0, None
        if not self._child.running:
            self.kill()
            self._start()
        if self._started:  # else the log is new, and may hold why the process cannot start
            self._child.clear_log()
            self.deadline = time.monotonic() + self._time_limit_s
        # What is known of a video may be more than fits between here and a process that does not read yet.
        if self._started or self.work.known is None:
            self._child.send(self.work.order())

    @property
    def may_give(self) -> bool:
        """Whether others may be given a part of its work, now or when it is known how much that is."""
        work = self.work
        return (
            work is not None
            and self._size is not None
            and not (work.whole or work.kept)
            and isinstance(self._tasks[work.task], Divisible)
            and (work.left is None or work.left >= 2)
        )

    def ask(self, helpers: int) -> None:
        """Asks it for work for so many processes; the answer is a Given."""
        self.asked += helpers
        self._child.send(Asked(helpers))

    def receive(self) -> Iterator[T | News | Given | NeedsWhole]:
        """Takes the one message that is waiting."""
        assert self.work is not None
        try:
            message: Message[T] = self.connection.recv()
        except (EOFError, OSError):
            yield from self._handle_death()
            return
        self.deadline = time.monotonic() + self._time_limit_s
        match message:
            case Ready():
                self._started = True
                self._failed_starts = 0
                if self.work.known is not None:
                    self._child.send(self.work.order())
            case Logged():
                message.emit(self.work.video.video_id)
            case Left(stretches):
                self.work.left = stretches
            case Given(begins):
                self.asked = 0
                self.work.kept = not begins
                yield message
            case Result(value):
                if self._size is None:
                    self.work.void = True
                elif not isinstance(value, Notice):
                    self.work.delivered += self._size(value)
                yield value
            case Finished():
                self._release()
                yield message
            case NeedsWhole(reason):
                logger.info("%s: made by one process after all: %s", self.work.video.video_id, reason)
                self._release()
                yield message
            case FailedTry(stage, reason, final, details):
                if details:
                    logger.warning("%s: %s", self.work.video.video_id, details.rstrip())
                yield from self._give_up(stage, reason) if final else self._fail(stage, reason)
            case Stop(reason):
                raise GridClipError(reason)
            case _:
                assert_never(message)

    def _release(self) -> None:
        self.work, self.asked = None, 0

    def end_hung(self) -> Iterator[T | News | Given | NeedsWhole]:
        """Ends a process that is silent for too long, and gives its work to a new one."""
        yield from self._lose_process(f"nothing decoded for {self._time_limit_s:g} s", last_try=True)

    def _handle_death(self) -> Iterator[T | News]:
        yield from self._lose_process(self._child.cause_of_death("the decoding process"))

    def _lose_process(self, reason: str, *, last_try: bool = False) -> Iterator[T | News]:
        assert self.work is not None
        self.kill()
        tail = self._child.log_tail()
        logger.warning("%s: %s%s", self.work.video.video_id, reason, f"\n{tail}" if tail else "")
        if self._started:
            yield from self._fail("decode", reason, last_try=last_try)
            return
        self._failed_starts += 1
        if self._failed_starts == START_TRIES:
            raise GridClipError(f"a worker process does not start ({reason}): {tail or 'it wrote no message'}")
        self._assign()

    def _fail(self, stage: Stage, reason: str, *, last_try: bool = False) -> Iterator[T | News]:
        """A try has failed: the work is tried again, by the next task if this one has had its tries, or is lost."""
        assert self.work is not None
        self.work.tries += 1
        if last_try or self.work.tries == TRIES_OF_A_TASK:
            times = "" if self.work.tries == 1 else f" {self.work.tries} times"
            self.work.given_up.append(f"{_name(self._tasks[self.work.task])} failed{times} ({reason})")
            self.work.task += 1
            self.work.tries = 0
        if self.work.task == len(self._tasks):
            yield from self._give_up(stage, reason)
        else:
            yield from self._try_again(self.work)

    def _try_again(self, work: Work) -> Iterator[T | News]:
        if work.void:
            yield Restarted()
        if work.given_up and (work.void or not work.tries):
            begin = work.first + work.delivered
            span = f" from super image {begin + 1} on" if begin else ""
            if work.end is not None:
                span = f" from super image {begin + 1} to {work.end}"
            detail = f"{', '.join(work.given_up)}: made by {_name(self._tasks[work.task])}{span}"
            yield Notice(work.video.video_id, "decoder", detail)
        work.void = False
        self._assign()

    def _give_up(self, stage: Stage, reason: str) -> Iterator[Failure]:
        assert self.work is not None
        video_id = self.work.video.video_id
        self._release()
        yield Failure(video_id, stage, reason)

    def drop(self) -> None:
        """Ends the process in the middle of its work, of which nothing is wanted any more."""
        self.kill()
        self._release()

    def kill(self) -> None:
        """Ends the process at once, whatever it does."""
        self._child.kill()


def _name(task: object) -> str:
    while isinstance(task, functools.partial):
        task = task.func
    return task.name if isinstance(task, (Named, Divisible)) else getattr(task, "__name__", repr(task))
