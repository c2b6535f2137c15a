"""The header of an mp4 or mov file in, for how long and how late each sample of a track is shown out.

FFmpeg's index (PyAV's `index_entries`) tells all else of a sample, but not its composition offset, without which decode
times are no presentation times. These are the boxes of ISO/IEC 14496-12 that hold it; samples are not read.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np

from ..read_ahead import ReadAhead

# A header of a day of video at 60 frames/s is smaller.
MOST_HEADER_BYTES = 256 << 20
MOST_BOXES = 1000
# FFmpeg takes larger offsets for damage, and then leaves out all of them.
MOST_OFFSET = 1 << 28
_CONTAINERS = (b"mdia", b"minf", b"stbl")


class Doubt(Exception):
    """Why a file's packets cannot be told by its header alone, or not well: then all of them are read."""


@dataclasses.dataclass(frozen=True)
class SampleTimes:
    """Of the samples of a track in decode order, in units of its time base.

    Attributes:
        durations: int64 [P], > 0, from each sample's decode time to the next one's.
        offsets: int64 [P], presentation time less decode time, but for one constant of the whole track.
    """

    durations: np.ndarray
    offsets: np.ndarray


def read_sample_times(file: ReadAhead, track_id: int, count: int) -> SampleTimes:
    """The sample times of a track.

    Args:
        file: read at the header only.
        track_id: of the track header box, FFmpeg's `stream.id`.
        count: samples that the track must have.

    Raises:
        Doubt: the track has no sample table of one description and `count` samples, or the file is fragmented.
        ReadFailed: the file cannot be read.
    """
    header = memoryview(_read_header(file))
    tables = []
    for kind, payload in _boxes(header):
        if kind == b"mvex":
            raise Doubt("the file is fragmented")
        if kind == b"trak":
            boxes = dict(_flat(payload))
            if _track_id(boxes.get(b"tkhd", header[:0])) == track_id:
                tables.append(boxes)
    if len(tables) != 1:
        raise Doubt(f"{len(tables)} tracks have the number {track_id}")
    (boxes,) = tables
    if _number_at(boxes, b"stsd", 4) != 1:
        raise Doubt("the track does not have one sample description")
    durations = _expanded(boxes, b"stts", np.dtype(">u4"), count)
    if not ((durations > 0) & (durations < 1 << 31)).all():
        raise Doubt("a sample lasts no time, or too long")
    if b"ctts" not in boxes:
        return SampleTimes(durations, np.zeros(count, np.int64))
    offsets = _expanded(boxes, b"ctts", np.dtype(">i4"), count)  # signed, whatever the version says: FFmpeg's reading
    if not (np.abs(offsets) < MOST_OFFSET).all():
        raise Doubt("a composition offset is out of bounds")
    return SampleTimes(durations, offsets)


def _read_header(file: ReadAhead) -> bytes:
    """The payload of the only moov box."""
    found = None
    position = 0
    for _ in range(MOST_BOXES):
        start = file.read_range(position, position + 16)
        if len(start) < 8:
            break
        length, kind = struct.unpack_from(">I4s", start)
        payload = position + 8
        if length == 1 and len(start) == 16:
            (length,) = struct.unpack_from(">Q", start, 8)
            payload = position + 16
        end = position + length if length else file.size
        if end < payload:
            break
        if kind == b"moov":
            if found is not None or end - payload > MOST_HEADER_BYTES or end > file.size:
                raise Doubt("the file has several headers, or a damaged one")
            found = payload, end
        position = end
    if found is None:
        raise Doubt("the file has no header that can be found")
    return file.read_range(*found)


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """(type, payload) of boxes, as far as they are whole."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        payload = position + 8
        if length == 1:
            if position + 16 > len(data):
                return
            (length,) = struct.unpack_from(">Q", data, payload)
            payload += 8
        end = position + length if length else len(data)
        if not payload <= end <= len(data):
            return
        yield kind, data[payload:end]
        position = end


def _flat(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes of a track down to its sample table, each (type, payload); raises Doubt for one that repeats."""
    seen = set()
    inside = [data]
    while inside:
        for kind, payload in _boxes(inside.pop()):
            if kind in (*_CONTAINERS, b"tkhd", b"stsd", b"stts", b"ctts"):
                if kind in seen:
                    raise Doubt("a track has a box twice")
                seen.add(kind)
            if kind in _CONTAINERS:
                inside.append(payload)
            yield kind, payload


def _track_id(header: memoryview) -> int:
    """Of a track header box (8.3.2); -1 where there is none."""
    at = 20 if bytes(header[:1]) == b"\1" else 12
    return int.from_bytes(header[at : at + 4], "big") if len(header) >= at + 4 else -1


def _number_at(boxes: dict[bytes, memoryview], kind: bytes, at: int) -> int:
    """Four bytes of a box as a number; -1 where it lacks them."""
    payload = boxes.get(kind, memoryview(b""))
    return int.from_bytes(payload[at : at + 4], "big") if len(payload) >= at + 4 else -1


def _expanded(boxes: dict[bytes, memoryview], kind: bytes, values: np.dtype, count: int) -> np.ndarray:
    """int64 [count]: runs of (samples, value), as stts (8.6.1.2) and ctts (8.6.1.3) have them, sample by sample."""
    runs = _number_at(boxes, kind, 4)
    payload = boxes.get(kind, memoryview(b""))
    if runs < 0 or len(payload) < 8 + 8 * runs:
        raise Doubt(f"there is no whole {kind.decode()} box")
    table = np.frombuffer(payload, np.dtype([("samples", ">u4"), ("value", values)]), runs, 8)
    samples = table["samples"].astype(np.int64)
    if int(samples.sum()) != count:
        raise Doubt(f"the {kind.decode()} box is about {int(samples.sum())} of {count} samples")
    expanded: np.ndarray = np.repeat(table["value"].astype(np.int64), samples)
    return expanded
