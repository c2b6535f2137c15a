"""A decoder's pictures and the wanted frames in; for each wanted frame itself or its nearest neighbour out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Generic, Literal, TypeVar

import numpy as np

T = TypeVar("T")
# What becomes of a video with wanted frames that cannot be decoded: it is lost, or neighbours stand for them.
OnDamage = Literal["fail", "nearest"]
# More than this share of the wanted frames is too much for neighbours; one frame never is, however short the video.
MOST_DAMAGED = 0.1
# A wanted frame may still come out after so many later ones: no codec reorders more pictures.
LATEST = 16


@dataclasses.dataclass
class Damage:
    """What damage did to the wanted frames of a video.

    Attributes:
        wanted: all wanted frames of the video.
        replaced: those that cannot be decoded, for which a neighbour stands.
        concealed: those that came out, but of which the decoder complained.
        farthest_s: largest distance of a neighbour from the frame for which it stands, seconds.
    """

    wanted: int
    replaced: int = 0
    concealed: int = 0
    farthest_s: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.replaced or self.concealed)

    def __str__(self) -> str:
        parts = []
        if self.replaced:
            parts.append(
                f"{self.replaced} of {self.wanted} wanted frames cannot be decoded: the nearest ones that can, "
                f"at most {self.farthest_s:.2f} s away, stand for them"
            )
        if self.concealed:
            parts.append(f"{self.concealed} of {self.wanted} wanted frames are shown as the decoder mended them")
        return "; ".join(parts)


def nearest(pictures: Iterable[tuple[int, T]], wanted: np.ndarray, times_s: np.ndarray) -> Iterator[tuple[int, T]]:
    """Yields for each wanted frame, in order, its index and picture, or those of the nearest one that came out.

    Args:
        pictures: (index in presentation order, picture), out of order by less than LATEST; read as far as needed.
        wanted: int64 [n], indices of the wanted frames, ascending. Nothing is yielded for them if there is no picture.
        times_s: float64 [F], time of each frame.
    """
    due = collections.deque(int(index) for index in wanted)
    open_: collections.deque[_Wanted[T]] = collections.deque()  # not later than the newest picture
    latest: tuple[int, T] | None = None
    for index, picture in pictures:
        while due and due[0] <= index:
            open_.append(_Wanted(due.popleft(), times_s, latest))
        for frame in open_:
            frame.offer(index, picture)
        if latest is None or index > latest[0]:
            latest = index, picture
        while open_ and open_[0].settled:
            yield open_.popleft().choice()
        if not due and not open_:
            return
    if latest is not None:
        open_.extend(_Wanted(index, times_s, latest) for index in due)
        yield from (frame.choice() for frame in open_)


class _Wanted(Generic[T]):
    """A wanted frame and the best picture for it so far."""

    def __init__(self, index: int, times_s: np.ndarray, before: tuple[int, T] | None) -> None:
        self._index = index
        self._times_s = times_s
        self._best = before
        self._later = 0

    def offer(self, index: int, picture: T) -> None:
        """Considers a picture that came out."""
        self._later += index > self._index
        if self._best is None or self._distance_s(index) < self._distance_s(self._best[0]):
            self._best = index, picture

    def _distance_s(self, index: int) -> float:
        return -1.0 if index == self._index else abs(float(self._times_s[index] - self._times_s[self._index]))

    @property
    def settled(self) -> bool:
        """Whether nothing better is to come."""
        return self._later >= LATEST or self.choice()[0] == self._index

    def choice(self) -> tuple[int, T]:
        """The best picture and its index."""
        assert self._best is not None
        return self._best
