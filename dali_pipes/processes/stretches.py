"""What other processes ask for in, how far a process goes with its video and what it leaves to them out.

A video may be made by several processes: each makes a stretch of it, consecutive units (super images) of which it
yields the first one first. A process without a video asks one that has much left to do; that one gives the end of its
stretch away, between two frames, where the video can be cut. So nothing is cut before a core would be idle, and a video
that is soon done is never cut.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ..contract import Notice, VideoFile

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Indivisible(Exception):
    """A part of a video cannot be made without the rest: one process must make it as a whole, from the start."""


@dataclasses.dataclass(frozen=True)
class Left:
    """What a process has left to do of its stretch, counted in stretches that are worth a process of their own."""

    stretches: float


@dataclasses.dataclass(frozen=True)
class Given:
    """What a process has given away: nothing where `begins` is empty, and then nothing of this stretch later, either.

    Attributes:
        begins: ascending; the process itself ends at the first of them, each of the others ends where the next begins,
            and the last one where the process was to end.
        known: what it has found out about the video, for those that make the rest, pickled: it may be megabytes of
            arrays, of classes that the job's process need not import.
    """

    begins: tuple[int, ...] = ()
    known: bytes | None = None


def _nobody() -> int:
    return 0


def _nowhere(message: Left | Given) -> None:
    return


class Stretch:
    """How far a process goes with its video, and who asks for a part of that. Without arguments: to the end, nobody.

    Args:
        end: units of the video before the end of the stretch; None: it goes to the video's end.
        known: see Given; None: nothing is known yet.
        alone: no other process makes a part of this video.
        asked: how many processes have asked since the last call.
        tell: takes what they are to know.
    """

    def __init__(
        self,
        end: int | None = None,
        known: bytes | None = None,
        *,
        alone: bool = True,
        asked: Callable[[], int] = _nobody,
        tell: Callable[[Left | Given], None] = _nowhere,
    ) -> None:
        self.end = end
        self._known = known
        self._alone = alone
        self._closed = False
        self._asked = asked
        self._tell = tell

    def known(self) -> Any:
        """What the process that began with the video gave as `known`; None: nothing is known yet."""
        return None if self._known is None else pickle.loads(self._known)

    def report(self, stretches: float) -> None:
        """Tells how much is left to do, see Left."""
        self._tell(Left(stretches))

    def asking(self) -> int:
        """How many processes ask for a part now; each answer is a call of `give`."""
        helpers = self._asked()
        if helpers and self._closed:
            self.give(())
            return 0
        return helpers

    def give(self, begins: Sequence[int], known: object = None) -> None:
        """Gives away what begins at these units.

        Args:
            begins: see Given.
            known: what those that make it are to know; can be pickled.
        """
        if begins:
            self.end, self._alone = begins[0], False
        self._tell(Given(tuple(begins), pickle.dumps(known, pickle.HIGHEST_PROTOCOL) if begins else None))

    def keep_whole(self, reason: str) -> None:
        """Nothing will be given away, for the video must be made as a whole.

        Raises:
            Indivisible: other processes make parts of it.
        """
        if not self._alone:
            raise Indivisible(reason)
        self._closed = True


class StretchTask(Protocol[T_co]):
    """What a worker process does with a stretch of a video; can be pickled. As a pool.Task, a stretch is the whole."""

    def __call__(self, video: VideoFile, /, *, skip: int, stretch: Stretch | None = None) -> Iterator[T_co | Notice]:
        """Yields results, and notices between them.

        Args:
            skip: units of the video that are left out, for they are delivered already, or others make them.
            stretch: where to end; asked between two frames whether somebody wants a part. None: at the video's end.

        Raises:
            Indivisible: see there.
            VideoError, GridClipError: as a pool.Task.
        """


@dataclasses.dataclass(frozen=True)
class Divisible(Generic[T]):
    """A task that makes any stretch of a video, with the name that messages call it by."""

    name: str
    task: StretchTask[T]

    def __call__(self, video: VideoFile, /, *, skip: int) -> Iterator[T | Notice]:
        return self.task(video, skip=skip)
