"""A video in, a stream copy of it out, some of its packets lost or damaged."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from types import MappingProxyType

import av


def copied(
    source: pathlib.Path,
    target: pathlib.Path,
    *,
    first: int = 0,
    zeroed: tuple[int, ...] = (),
    emptied: tuple[int, ...] = (),
    replaced: Mapping[int, bytes] = MappingProxyType({}),
) -> pathlib.Path:
    """A stream copy from packet `first` on; some hold other bytes.

    Args:
        zeroed: packets of which the second half is zeros.
        emptied: packets that are zeros.
        replaced: what others hold instead.
    """
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for position, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            if position < first:
                continue
            data = bytes(packet)
            kept = 0 if position in emptied else len(data) // 2 if position in zeroed else len(data)
            copy = av.Packet(replaced.get(position, data[:kept] + bytes(len(data) - kept)))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            new.mux_one(copy)
    return target
