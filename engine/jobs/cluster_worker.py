"""Videos in, whole videos out: the decoders and the encoder of one GPU, or of some cores, in a Ray actor.

The actor works in rounds: in each it takes videos until it is told that there are none left. Decoded frames stay on its
machine; it hands out embeddings of whole videos, or the news that folders are made, when it is asked for them. It waits
while MAX_WAITING embeddings lie ready.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import queue
import threading
import traceback
from collections.abc import Iterator, Sequence

from ... import GridClipError, __version__
from ...dali_pipes.contract import VideoFile
from ...dali_pipes.processes.child_logs import Levels, log_to_parent
from ..store.store import VideoEmbedding
from .cluster_work import EVERYWHERE, Tools, Work
from .device_messages import Ended, Message, Stop, WantsVideo
from .folder_messages import MadeFolder

# Videos of embeddings that wait for the driver: a megabyte or so, and some more where there are cells.
MAX_WAITING = 32
# Ray ends an actor whose driver is dead when its method returns: one that waited for a driver would keep its cores.
ANSWER_S = 1.0
AHEAD = 2  # videos that lie ready at a worker, so that its decoders never wait for the network


@dataclasses.dataclass(frozen=True)
class Order:
    """What a worker needs to know.

    Attributes:
        version: of GridCLIP, where the driver runs.
        work: what it is there for.
        present: a video of the job that exists where the driver runs; None: it sees none.
        levels: the log records that the driver wants.
    """

    version: str
    work: Work
    present: pathlib.Path | None
    levels: Levels


@dataclasses.dataclass(frozen=True)
class Ready:
    """The worker has its tools, a model say."""


@dataclasses.dataclass(frozen=True)
class Unfit:
    """No worker can do this job on this machine; `reason` goes on from "the node NAME "."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Crashed:
    """Something that nobody expected ended a round: as if the process had died."""

    details: str


WorkerMessage = Message | MadeFolder | Ready | Unfit | Crashed


class Worker:
    """The life of one worker; its methods are called one after the other.

    Args:
        order: see there.
        cores: that the worker may use: threads of a model on the CPU, and decoding processes.
        has_gpu: Ray has given it a GPU, the only one that it sees.
    """

    def __init__(self, order: Order, cores: int, has_gpu: bool) -> None:
        self._order = order
        self._cores = cores
        self._has_gpu = has_gpu
        self._results = _Results()
        self._videos: queue.SimpleQueue[VideoFile | None] = queue.SimpleQueue()
        self._tools: Tools | None = None
        log_to_parent(self._results.add, order.levels)

    def load(self) -> list[WorkerMessage]:
        """Checks that the worker can do its work here, and makes its tools; Ready or Unfit is the last message."""
        try:
            reason = unfitness(self._order)
            if reason is None:
                self._tools = self._order.work.begin(self._cores, has_gpu=self._has_gpu)
        except GridClipError as error:
            reason = f"cannot take part: {error}"
        self._results.add(Ready() if reason is None else Unfit(reason))
        return self._results.take()

    def begin(self, careful: bool) -> None:
        """Begins a round, with the source of fresh videos or with the careful one; asks for its first videos."""
        for _ in range(AHEAD):
            self._results.add(WantsVideo())
        threading.Thread(target=self._work, args=(careful,), daemon=True).start()

    def exchange(self, videos: Sequence[VideoFile | None]) -> list[WorkerMessage]:
        """Takes videos, None after the last one of a round, and gives what there is to say after ANSWER_S at most."""
        for video in videos:
            self._videos.put(video)
        return self._results.take()

    def _work(self, careful: bool) -> None:
        try:
            if self._tools is None:
                raise AssertionError("a round begins before there are tools")
            self._tools.run(self._round(), self._results.add, careful=careful)
            self._results.add(Ended())
        except GridClipError as error:
            self._results.add(Stop(str(error)))
        except BaseException:  # noqa: BLE001 - a thread that ends without a word would leave the driver waiting
            self._results.add(Crashed(traceback.format_exc()))

    def _round(self) -> Iterator[VideoFile]:
        while (video := self._videos.get()) is not None:
            self._results.add(WantsVideo())
            yield video


def unfitness(order: Order) -> str | None:
    """Why no worker can do the job on this machine, None if one can; raises GridClipError as `Work.unfitness` does."""
    if order.version != __version__:
        return f"has GridCLIP {__version__}, the driver {order.version}: install the same version on every node"
    if order.present is not None and not order.present.exists():
        return order.work.unfitness() or f"does not see the video {order.present}: {EVERYWHERE}"
    return order.work.unfitness()


class _Results:
    """Messages that wait for the driver; whoever adds an embedding waits while MAX_WAITING are there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: collections.deque[WorkerMessage] = collections.deque()
        self._embeddings = 0

    def add(self, message: WorkerMessage) -> None:
        """Adds one; only embeddings wait: a log record may come from the thread that takes."""
        with self._changed:
            if isinstance(message, VideoEmbedding):
                self._changed.wait_for(lambda: self._embeddings < MAX_WAITING)
                self._embeddings += 1
            self._messages.append(message)
            self._changed.notify_all()

    def take(self) -> list[WorkerMessage]:
        """All that there are; waits for one, ANSWER_S at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages, ANSWER_S)
            taken = list(self._messages)
            self._messages.clear()
            self._embeddings = 0
            self._changed.notify_all()
            return taken
