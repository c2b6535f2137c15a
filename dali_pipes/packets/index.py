"""An opened mp4 or mov file in, what its header says of every packet of its video out: none of them is read.

Such a header lists each packet's place, size and times, and which of them decoding can start at. Other containers do
not: the cues of Matroska name some keyframes but no number of frames, those of AVI no times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream as AvVideoStream

from ..read_ahead import ReadAhead
from .sample_table import Doubt, read_sample_times
from .scan import VideoPacket


@dataclasses.dataclass(frozen=True)
class Index:
    """The packets of a stream in decode order, by the header of its file.

    Attributes:
        starts, sizes: int64 [P], bytes: where each lies in the file; ascending, none overlaps the next.
        dts, pts: int64 [P], in the stream's time base; pts may be off by a constant, see `confirmed`.
        durations: int64 [P], in the stream's time base.
        keyframes: bool [P].
        cut_off: bool [P], what an edit list hides.
    """

    starts: np.ndarray
    sizes: np.ndarray
    dts: np.ndarray
    pts: np.ndarray
    durations: np.ndarray
    keyframes: np.ndarray
    cut_off: np.ndarray

    def confirmed(self, packets: Sequence[VideoPacket]) -> Index:
        """The index with FFmpeg's presentation times; raises Doubt where FFmpeg reads other packets.

        Args:
            packets: the first ones of the stream, at least one, as FFmpeg reads them.
        """
        first = packets[0].pts
        if first is None:
            raise Doubt("FFmpeg gives a packet no time")
        index = dataclasses.replace(self, pts=self.pts + (first - int(self.pts[0])))
        for position, packet in enumerate(packets):
            listed = tuple(
                int(column[position])
                for column in (index.starts, index.sizes, index.dts, index.pts, index.durations, index.cut_off)
            )
            found = (packet.pos, packet.size, packet.dts, packet.pts, packet.duration, int(packet.is_discard))
            if listed != found:
                raise Doubt(f"FFmpeg reads packet {position} as {found}, the header lists {listed}")
            if next(iter(packet.iter_sidedata()), None) is not None:
                raise Doubt(f"packet {position} comes with side data")
        return index


def read_index(container: InputContainer, stream: AvVideoStream, file: ReadAhead) -> Index:
    """What the header says of every packet of a stream.

    Args:
        container, stream: opened, of which no packet has been read.
        file: the same file; read at its header only.

    Raises:
        Doubt: the header does not list the packets, or not as one expects of a file that is whole.
        ReadFailed: the file cannot be read.
    """
    if "mov" not in container.format.name:
        raise Doubt(f"a {container.format.name} file does not list its packets")
    entries = [
        (entry.pos, entry.size, entry.timestamp, entry.is_keyframe, entry.is_discard) for entry in stream.index_entries
    ]
    if not entries:
        raise Doubt("its header lists no packet")
    starts, sizes, dts, keyframes, cut_off = np.array(entries, np.int64).T
    if not ((sizes > 0).all() and (starts[1:] >= (starts + sizes)[:-1]).all() and (np.diff(dts) > 0).all()):
        raise Doubt("its packets do not lie in the order of decoding")
    if starts[0] < 0 or starts[-1] + sizes[-1] > file.size:
        raise Doubt("its header lists packets beyond its end")
    if not keyframes[0]:
        raise Doubt("its first packet is no keyframe")
    times = read_sample_times(file, stream.id, len(entries))
    pts = dts + times.offsets
    if (pts < pts[0]).any():
        raise Doubt("pictures are shown before its first keyframe")
    return Index(starts, sizes, dts, pts, times.durations, keyframes.astype(bool), cut_off.astype(bool))
