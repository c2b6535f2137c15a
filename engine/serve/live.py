"""A store that a job may be filling in, its counts out: read again every few seconds, and told to whoever listens."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Callable

from ... import GridClipError
from .bounds import Bounds
from .refusal import BUSY, Refusal

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 2.0
TELL_S = 0.5  # a listener waits no longer, neither for news nor for the server's end
STILL_THERE_S = 20.0  # a comment keeps proxies from closing a silent connection


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a store holds.

    Attributes:
        videos, embeddings: in the store, of the level and grid size that are searched.
        failed: lines of its failures.jsonl: videos that the last job lost so far.
        growing: there were more videos than at the look before.
    """

    videos: int
    embeddings: int
    failed: int
    growing: bool = False


class Live:
    """Looks at a store again and again, and tells listeners when its counts have changed.

    Args:
        look: reads what is new in the store, and counts; called in a thread.
        grown: called in a thread after the number of videos has doubled since the last call.

    Attributes:
        counts: of the last look.
        ended: the server is being stopped: listeners are let go.
    """

    def __init__(self, look: Callable[[], Counts], grown: Callable[[], None], bounds: Bounds) -> None:
        self._look, self._grown, self._most = look, grown, bounds.listeners
        self.counts = look()
        self._listening = 0
        self.ended = False

    async def follow(self) -> None:
        """Looks until it is cancelled."""
        grown_at = self.counts.videos
        await asyncio.to_thread(self._grown)
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                now = await asyncio.to_thread(self._look)
            except GridClipError as error:  # the store is being written anew: what was read stays
                logger.debug("the store cannot be read now: %s", error)
                continue
            now = dataclasses.replace(now, growing=now.videos > self.counts.videos)
            self.counts = now
            if self.counts.videos >= 2 * max(grown_at, 1):
                grown_at = self.counts.videos
                await asyncio.to_thread(self._grown)

    def listen(self) -> AsyncIterator[str]:
        """Server-sent events, the counts now and whenever they change; raises Refusal where too many listen."""
        if self._listening >= self._most:
            raise Refusal(BUSY, f"{self._most} pages follow the store already: reload to see what is new")
        return self._events()

    async def _events(self) -> AsyncIterator[str]:
        self._listening += 1
        try:
            told: Counts | None = None
            silent_s = 0.0
            while not self.ended:
                if self.counts != told:
                    told, silent_s = self.counts, 0.0
                    yield f"event: counts\ndata: {json.dumps(dataclasses.asdict(told))}\n\n"
                elif silent_s >= STILL_THERE_S:
                    silent_s = 0.0
                    yield ": still there\n\n"
                await asyncio.sleep(TELL_S)
                silent_s += TELL_S
        finally:
            self._listening -= 1
