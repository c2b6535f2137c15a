"""Orders of the job's process in, what tasks make of videos out, as messages: the life of a worker process."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Generic, Protocol, TypeVar

from ... import GridClipError
from ..contract import Finished, Notice, Stage, VideoError, VideoFile
from .child_logs import Levels, Logged, Sender, log_to_parent
from .stretches import Divisible, Given, Indivisible, Left, Stretch

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_LOG_RECORDS = 200  # of a video: a decoder that never stops complaining would else never count as hung


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


@dataclasses.dataclass(frozen=True)
class Order:
    """What a worker process is to do next.

    Attributes:
        video: the video, of which it makes a stretch.
        task: which of the tasks.
        skip, end, known, alone: see stretches.StretchTask and Stretch.
    """

    video: VideoFile
    task: int
    skip: int
    end: int | None
    known: bytes | None
    alone: bool


@dataclasses.dataclass(frozen=True)
class Asked:
    """So many processes ask for a part of the stretch that a worker has in work."""

    helpers: int


@dataclasses.dataclass(frozen=True)
class Ready:
    """The worker has imported everything and waits for its first video."""


@dataclasses.dataclass(frozen=True)
class Result(Generic[T]):
    """What a task has yielded."""

    value: T | Notice


@dataclasses.dataclass(frozen=True)
class FailedTry:
    """A task that failed with this video. Unless final, another try may still succeed."""

    stage: Stage
    reason: str
    final: bool
    details: str = ""


@dataclasses.dataclass(frozen=True)
class NeedsWhole:
    """The stretch cannot be made without the rest of the video."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Stop:
    """An error that would hit every video (a full disk): the job ends with this message."""

    message: str


# How a try ends, and all that a worker process sends.
Ending = Finished | FailedTry | NeedsWhole | Stop
Message = Ready | Logged | Left | Given | Result[T] | Ending


def serve(connection_fd: int) -> None:
    """The life of a worker process: receives the tasks, then orders one by one, and sends what the tasks yield."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    connection = Connection(connection_fd)
    tasks: Sequence[Task[object]]
    tasks, levels = connection.recv()
    assert isinstance(levels, Levels)
    parent = Sender(connection)
    log = log_to_parent(parent.send, levels, max_records=MAX_LOG_RECORDS)
    orders: queue.SimpleQueue[Order | Asked] = queue.SimpleQueue()

    def read_orders() -> None:
        try:
            while True:
                orders.put(connection.recv())
        finally:  # the parent is gone: end, even while a decoder hangs
            os._exit(0)

    threading.Thread(target=read_orders, daemon=True).start()
    parent.send(Ready())
    while True:
        order = orders.get()
        if isinstance(order, Order):  # who asked too late sees that the stretch is finished
            log.next_task()
            parent.send(_carry_out(order, tasks[order.task], parent, orders))


def _carry_out(order: Order, task: Task[object], parent: Sender, orders: queue.SimpleQueue[Order | Asked]) -> Ending:
    def asked() -> int:
        helpers = 0
        while not orders.empty():
            asked = orders.get()
            assert isinstance(asked, Asked)  # there is no next order before this one is carried out
            helpers += asked.helpers
        return helpers

    stretch = Stretch(order.end, order.known, alone=order.alone, asked=asked, tell=parent.send)
    try:
        if isinstance(task, Divisible):
            values = task.task(order.video, skip=order.skip, stretch=stretch)
        else:
            values = task(order.video, skip=order.skip)
        for value in values:
            parent.send(Result(value))
        return Finished()
    except Indivisible as error:
        return NeedsWhole(str(error))
    except VideoError as error:
        return FailedTry(error.stage, error.reason, final=True)
    except GridClipError as error:
        return Stop(str(error))
    except Exception as error:  # noqa: BLE001 - a decoder's bug costs one video, not the job
        return FailedTry("decode", f"{type(error).__name__}: {error}", final=False, details=traceback.format_exc())
