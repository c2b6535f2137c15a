"""A video file and wanted frames in; the file, or what pruning leaves of it, as DALI's pipelines take it, out."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
from gridclip.dali_pipes.contract import CompressedSegment, VideoError
from gridclip.dali_pipes.cpu.reading import Reading
from gridclip.dali_pipes.packets import remux, scan
from gridclip.dali_pipes.packets.pruning import plan_segments

MOST_BYTES = 512 << 20  # of decoded frames at their own size: DALI holds all of a segment's


def whole_file(path: pathlib.Path, wanted: np.ndarray) -> list[CompressedSegment]:
    """The file, asked for the frames `wanted`, int64 [n], ascending; several times where they take too much."""
    summary = scan.summarise(path)
    frame_bytes = summary.width * summary.height * 3
    most = max(1, MOST_BYTES // frame_bytes)
    data = path.read_bytes()
    parts = [wanted[first : first + most] for first in range(0, len(wanted), most)]
    return [_segment(path.name, data, part, frame_bytes) for part in parts]


def pruned(reading: Reading, wanted: np.ndarray) -> Iterator[CompressedSegment]:
    """What pruning leaves of an opened video for the frames `wanted`, int64 [n], ascending: a grid of one cell each.

    Raises:
        VideoError: a segment is not for DALI, which counts pictures.
    """
    segments = plan_segments(reading.table, wanted, cells=1)
    feed = reading.feed(segments)
    frame_bytes = reading.summary.width * reading.summary.height * 3
    for segment in segments:
        if reason := remux.why_not_counted(reading.table, segment, reading.summary.codec):
            raise VideoError("decode", reason)
        data = reading.remuxed(segment, list(feed.packets(segment)))
        yield _segment(reading.path.name, data, remux.find_wanted(segment, reading.table), frame_bytes)


def kept_packets(reading: Reading, cells: int) -> int:
    """Packets that pruning keeps for the video's own wanted frames."""
    return sum(len(segment.packets) for segment in plan_segments(reading.table, reading.wanted, cells=cells))


def _segment(name: str, data: bytes, positions: np.ndarray, frame_bytes: int) -> CompressedSegment:
    times_s = np.zeros(len(positions))
    decoded = len(positions) * frame_bytes
    return CompressedSegment(
        name, 0, len(times_s), times_s, times_s, float(len(data)), decoded, data, positions.astype(np.int32)
    )
