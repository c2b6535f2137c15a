"""A video in work and who asks for a part of it in; its wanted frames up to where it is cut out, the rest given away.

Cuts lie where a segment may end, between two super images, so that nothing is decoded twice that matters. What is left
to do is measured in packets x pixels. The table of packets goes along with what is given away: it is a few megabytes
for hours of video, and a scan reads the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..packets.pruning import plan_segments
from ..processes.stretches import Stretch
from .reading import Decoder, Reading

# Packets x pixels that are worth a process of their own: about a second of decoding, beside some 0.1 s for opening the
# file and sending what is known of it (benchmarks/long_video.py).
LEAST_COST = 4e8
# Places at most that are looked at for a cut: planning takes time for each.
MOST_PLACES = 512
# Frames between two reports of what is left.
REPORT_FRAMES = 64


class Share:
    """What this process makes of a video: its wanted frames from one position on, to where the stretch ends.

    Args:
        reading: the video.
        stretch: how far to go, and who asks.
        first: the position of the first frame, where a block begins.

    Attributes:
        first: the same.
    """

    def __init__(self, reading: Reading, stretch: Stretch, first: int) -> None:
        self.first = first
        self._reading = reading
        self._stretch = stretch
        self._layout = reading.layout()
        self._end = self._layout.frames if stretch.end is None else self._layout.frame_of(stretch.end)

    def end(self) -> int:
        """The position of the last frame that begins a super image, plus one."""
        return self._end

    def frames(self, decoder: Decoder) -> Iterator[np.ndarray]:
        """The frames, each uint8 [336, 446, 3]; behind the end as many as overlapping super images look ahead.

        Raises:
            VideoError: as Reading.frames.
            Indivisible: other processes make parts of the video, and it must be decoded as a whole.
        """
        sampling = self._layout.sampling
        self._report(self.first)
        self._consider(self.first)
        frames = self._reading.frames(
            decoder,
            first=self.first,
            end=self._end + sampling.overlap,
            cells=sampling.block,
            before_whole_file=self._stretch.keep_whole,
        )
        for position, frame in enumerate(frames, self.first + 1):
            yield frame
            self._consider(position)
            if self._end + sampling.overlap <= position < self._layout.frames:
                return
            if (position - self.first) % REPORT_FRAMES == 0 and self._left(position) >= 1:
                self._report(position)

    def _left(self, position: int) -> float:
        """Stretches that the frames from `position` on would make, if all packets had to be decoded: cheap to tell."""
        wanted = max(0, self._end - position) / self._layout.frames
        return len(self._reading.table.facts) * self._pixels * wanted / LEAST_COST

    def _report(self, position: int) -> None:
        self._stretch.report(self._left(position))

    def _consider(self, position: int) -> None:
        """Gives the frames behind a cut after `position` away, if somebody asks and they are worth it."""
        helpers = self._stretch.asking()
        if not helpers:
            return
        cuts = self._cuts(position, helpers)
        self._stretch.give([self._layout.before(cut) for cut in cuts], self._reading.scanned)
        if cuts:
            self._end = cuts[0]
            self._report(position)

    def _cuts(self, position: int, helpers: int) -> list[int]:
        """Positions, ascending, that cut the frames from `position` on into like parts for so many and this process."""
        block = self._layout.sampling.block
        begin = -(-position // block) * block
        places = plan_segments(
            self._reading.table,
            self._reading.wanted[: self._end],
            cells=block,
            first=begin,
            segment_frames=max(block, (self._end - begin) // MOST_PLACES),
        )
        cost = np.cumsum([0.0, *(len(place.packets) * self._pixels for place in places)])
        parts = min(helpers + 1, int(cost[-1] / LEAST_COST))
        if parts < 2:
            return []
        targets = cost[-1] * np.arange(1, parts) / parts
        nearest = np.unique(np.abs(cost[:-1, None] - targets).argmin(axis=0))
        cuts = [places[number].first for number in nearest if number]
        # Where super images overlap, none may begin at the last frames.
        return [cut for cut in cuts if self._layout.before(cut) < self._layout.total]

    @property
    def _pixels(self) -> int:
        return self._reading.summary.width * self._reading.summary.height
