"""A packet table and the wanted frames in, segments out: which packets a decoder must see, and nothing more."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..bitstream.facts import CLOSED, DISPOSABLE, LEADING_DROPPABLE, OPEN
from .scan import PacketTable

# Wanted frames of a segment, unless the caller says otherwise.
SEGMENT_FRAMES = 64
# A cut inside a GOP makes its packets decode twice; it is cheap below this share of the segment's packets.
CHEAP_CUT = 0.1


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a video that is decoded on its own.

    Attributes:
        first: position of its first wanted frame among all wanted frames of the video.
        packets: int64 [K], packets to decode, ascending positions in the packet table.
        runs: int64 [R], positions in `packets` where decoding starts afresh; runs[0] is 0.
        wanted: int64 [W], in presentation order: the packet that holds each wanted frame or, where `by_count`, how many
            pictures the decoder puts out before it.
        leading: bool [K], packets whose pictures a healthy stream, too, makes a decoder complain of: shown before the
            open GOP's start at which a run begins, they refer to pictures before it. None of them is wanted.
        by_count: the container does not tell the presentation order, so wanted frames are found by counting.
    """

    first: int
    packets: np.ndarray
    runs: np.ndarray
    wanted: np.ndarray
    leading: np.ndarray
    by_count: bool


def plan_segments(
    table: PacketTable, wanted: np.ndarray, *, cells: int, first: int = 0, segment_frames: int = SEGMENT_FRAMES
) -> list[Segment]:
    """Segments that hold the wanted frames from position `first` on, cut at multiples of `cells` wanted frames.

    Args:
        table: the video's packets.
        wanted: int64 [n], indices of all wanted frames in presentation order, ascending.
        cells: wanted frames per super image; `first` is a multiple of it.
        segment_frames: a segment is closed at the first cheap cut after this many wanted frames.
    """
    wanted = wanted[first:]
    if not len(wanted):
        return []
    if not table.prunable:
        return [_keep_all(table, wanted, first)]
    if not table.ordered:
        return [_keep_closed_gops(table, wanted, first)]
    targets = table.shown[wanted]
    starts = _find_starts(table, targets)
    cuts = _cut(table, targets, starts, cells, segment_frames)
    return [
        _make_segment(table, targets[a:b], starts[a:b], first + a)
        for a, b in zip(cuts, [*cuts[1:], len(targets)], strict=True)
    ]


def _keep_all(table: PacketTable, wanted: np.ndarray, first: int) -> Segment:
    """One segment of every packet, where nothing is proved; a decoder is stopped after the last wanted frame.

    Args:
        wanted: int64 [W], indices of the wanted frames from position `first` on.
    """
    packets = np.arange(len(table.facts))
    return Segment(
        first=first,
        packets=packets,
        runs=np.zeros(1, np.int64),
        wanted=table.shown[wanted] if table.ordered else wanted,
        leading=np.zeros(len(packets), bool),
        by_count=not table.ordered,
    )


def _keep_closed_gops(table: PacketTable, wanted: np.ndarray, first: int) -> Segment:
    """Without presentation times: each closed GOP that holds a wanted frame, complete, since its order is not known."""
    gops = np.flatnonzero(table.facts & CLOSED)
    if not len(gops) or gops[0] != 0:
        gops = np.concatenate([[0], gops])
    shown_before = np.searchsorted(table.shown, gops)  # pictures that come out before each GOP
    holds = np.unique(np.searchsorted(shown_before, wanted, side="right") - 1)
    stops = np.append(gops[1:], len(table.facts))
    parts = [np.arange(gops[gop], stops[gop]) for gop in holds]
    lengths = np.array([len(part) for part in parts])
    pictures = np.append(shown_before[1:], len(table.shown))[holds] - shown_before[holds]
    at = np.searchsorted(shown_before[holds], wanted, side="right") - 1
    positions = wanted - shown_before[holds][at] + (np.cumsum(pictures) - pictures)[at]
    leading = np.zeros(lengths.sum(), bool)
    return Segment(first, np.concatenate(parts), np.cumsum(lengths) - lengths, positions, leading, by_count=True)


def _find_starts(table: PacketTable, targets: np.ndarray) -> np.ndarray:
    """int64 [W]: for each wanted packet, the packet at which decoding must start."""
    points = np.flatnonzero(table.facts & (CLOSED | OPEN))
    if not len(points) or points[0] != 0:
        points = np.concatenate([[0], points])  # decoders begin with the first packet, whatever it is
    at = np.searchsorted(points, targets, side="right") - 1
    while True:
        start = points[at]
        leading = ((table.facts[start] & CLOSED) == 0) & (table.pts[targets] < table.pts[start]) & (at > 0)
        if not leading.any():
            return start
        at = at - leading


def _cut(table: PacketTable, targets: np.ndarray, starts: np.ndarray, cells: int, segment_frames: int) -> list[int]:
    """Positions in targets where a new segment begins; the first is 0."""
    kept_before = np.concatenate([[0], np.cumsum((table.facts & DISPOSABLE) == 0)])  # packets that are not disposable
    cuts = [0]
    for position in range(cells, len(targets), cells):
        if position - cuts[-1] < segment_frames:
            continue
        # Packets of the segment that ends here which the next segment would decode once more.
        end, restart = int(targets[cuts[-1] : position].max()) + 1, int(starts[position:].min())
        again = max(0, int(kept_before[end] - kept_before[min(restart, end)]))
        decoded = int(kept_before[end] - kept_before[int(starts[cuts[-1]])])
        if again <= CHEAP_CUT * decoded:
            cuts.append(position)
    return cuts


def _make_segment(table: PacketTable, targets: np.ndarray, starts: np.ndarray, first: int) -> Segment:
    wanted = np.zeros(len(table.facts), bool)
    wanted[targets] = True
    by_start = np.argsort(starts, kind="stable")
    parts: list[np.ndarray] = []
    leading: list[np.ndarray] = []
    runs: list[int] = []
    count = position = 0
    while position < len(by_start):
        start = int(starts[by_start[position]])
        stop = int(targets[by_start[position]]) + 1
        position += 1
        while position < len(by_start) and starts[by_start[position]] < stop:  # runs that overlap are one run
            stop = max(stop, int(targets[by_start[position]]) + 1)
            position += 1
        keep = _needed(table, wanted, start, stop)
        if table.facts[start] & LEADING_DROPPABLE:
            keep &= (table.pts[start:stop] >= table.pts[start]) | wanted[start:stop]
        part = np.flatnonzero(keep) + start
        runs.append(count)
        count += len(part)
        parts.append(part)
        leading.append((table.pts[part] < table.pts[start]) & ~wanted[part] & bool(table.facts[start] & OPEN))
    return Segment(first, np.concatenate(parts), np.array(runs), targets, np.concatenate(leading), by_count=False)


def _needed(table: PacketTable, wanted: np.ndarray, start: int, stop: int) -> np.ndarray:
    """bool [stop - start]: the packets of a run that its wanted ones need, these and the first one among them.

    Args:
        wanted: bool [P].
        start, stop: the run's packets; decoding starts afresh at the first.
    """
    if table.references is None:
        kept: np.ndarray = ((table.facts[start:stop] & DISPOSABLE) == 0) | wanted[start:stop]
        return kept
    needed = wanted[start:stop].tolist()
    needed[0] = True
    for position in range(stop - start - 1, 0, -1):
        if needed[position]:
            for reference in table.references[start + position]:
                if reference >= start:  # what came before a start is gone from all buffers
                    needed[reference - start] = True
    return np.array(needed, bool)
