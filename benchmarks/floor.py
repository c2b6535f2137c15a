"""A video and a rate in, the least that exact decoding can take out: libavcodec alone on the packets that it needs.

One thread, the packets in memory before the clock starts, pictures thrown away as they come: no opening, no scan, no
choice of packets, no scaling. What a reader takes beyond this is its own.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import av.error
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.packets.pruning import plan_segments
from gridclip.dali_pipes.sampling import wanted_frames

FLOOR = "libavcodec alone"


@contextlib.contextmanager
def floor(path: pathlib.Path, fps: float) -> Iterator[Callable[[], int]]:
    """A call that decodes the wanted frames' packets once and returns how many pictures came out.

    Args:
        path: the video; all packets that must be decoded are held in memory.
        fps: wanted frames per second.
    """
    with scan.open_video(path) as (container, stream):
        summary, table, packets = scan.scan(container, stream)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    segments = plan_segments(table, wanted, cells=4)
    with scan.open_video(path) as (container, stream):
        if packets is None:  # a large file: the scan has kept none
            needed = {int(position) for segment in segments for position in segment.packets}
            every = enumerate(scan.demux(container, stream))
            held: Any = {position: packet for position, packet in every if position in needed}
        else:
            held = packets
        runs = [
            [held[int(position)] for position in segment.packets[first:stop]]
            for segment in segments
            for first, stop in zip(segment.runs, [*segment.runs[1:], len(segment.packets)], strict=True)
        ]
        codec = stream.codec_context

        def decode() -> int:
            pictures = 0
            for run in runs:
                for packet in [*run, None]:
                    with contextlib.suppress(av.error.FFmpegError):  # the end of a run, or leading pictures
                        pictures += len(codec.decode(packet))
                codec.flush_buffers()
            return pictures

        yield decode
