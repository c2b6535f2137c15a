"""Orders of pictures and clips in, files out: made on demand by worker processes that may crash or hang, and kept."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import threading
from collections.abc import Iterator

from ... import GridClipError
from ...dali_pipes.contract import Failure, Finished, Notice, Restarted
from ...dali_pipes.processes import pool
from .bounds import Bounds
from .held import Held
from .making import make
from .orders import Clip, Made, Order, Pixels
from .refusal import BUSY, UNUSABLE, Refusal

logger = logging.getLogger(__name__)

_Slot = concurrent.futures.Future[Made]


class Workshop:
    """Makes what is ordered, each order once however many ask for it at the same time.

    Every thread keeps one worker process and hands it one order at a time; the process starts with the first one.

    Args:
        bounds: see there.
        task: what a worker process does with an order, by name.

    Attributes:
        pictures, clips: what is kept.
        made, failed: orders so far.
    """

    def __init__(self, bounds: Bounds, task: pool.Task[Made] = make) -> None:
        self._bounds, self._task = bounds, task
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._open: dict[Order, _Slot] = {}
        self._lock = threading.Lock()
        self.pictures, self.clips = Held(bounds.pictures_held_bytes), Held(bounds.clips_held_bytes)
        self.made = self.failed = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"workshop-{number}", daemon=True)
            for number in range(bounds.making)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Orders that are not finished."""
        return len(self._open)

    async def order(self, order: Order) -> Made:
        """What was ordered; raises Refusal where it cannot be made, or too many orders wait."""
        kept = self._shelf(order).get(order)
        if kept is not None:
            return kept
        with self._lock:
            slot = self._open.get(order)
            if slot is None:
                if len(self._open) >= self._bounds.waiting_orders:
                    raise Refusal(BUSY, "too many pictures and clips are being made: try again in some seconds")
                slot = self._open[order] = concurrent.futures.Future()
                self._orders.put(order)
        return await asyncio.shield(asyncio.wrap_future(slot))

    def close(self) -> None:
        """Ends the worker processes; what is waiting is refused."""
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join(timeout=self._bounds.make_s)
        with self._lock:
            for slot in self._open.values():
                slot.set_exception(Refusal(BUSY, "the server is being shut down"))
            self._open.clear()

    def _shelf(self, order: Order) -> Held:
        return self.clips if isinstance(order, Clip) else self.pictures

    def _work(self) -> None:
        """The life of a thread; a worker process that does not start fails the orders that it was started for."""
        in_work: list[Order] = []

        def orders() -> Iterator[Order]:
            while (order := self._orders.get()) is not None:
                in_work[:] = [order]
                yield order
            in_work.clear()

        while True:
            try:
                for video, event in pool.run(
                    orders(),
                    [pool.Named("the page's worker", self._task)],
                    num_workers=1,
                    time_limit_s=self._bounds.make_s,
                ):
                    self._deliver(video, event)  # type: ignore[arg-type]  # what was handed in comes back
                return
            except GridClipError as error:
                logger.warning("pictures cannot be made: %s", error)
                for order in in_work:
                    self._settle(order, Refusal(BUSY, "pictures cannot be made on this machine now"))

    def _deliver(self, order: Order, event: Made | Notice | Restarted | Finished | Failure) -> None:
        match event:
            case Made():
                self._settle(order, event)
            case Failure():
                self._settle(order, Refusal(UNUSABLE, event.reason))
            case Finished():  # where it has made nothing, which no task does
                self._settle(order, Refusal(UNUSABLE, "nothing came of it"))
            case Notice() | Restarted():
                pass

    def _settle(self, order: Order, outcome: Made | Refusal) -> None:
        with self._lock:
            slot = self._open.pop(order, None)
        if slot is None:
            return
        if isinstance(outcome, Refusal):
            self.failed += 1
            slot.set_exception(outcome)
            return
        self.made += 1
        if not isinstance(order, Pixels):
            self._shelf(order).put(order, outcome)
        slot.set_result(outcome)
