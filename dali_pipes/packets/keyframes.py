"""Wanted frames and a packet table in, the nearest keyframes out: fewer packets to decode, for frames a little off."""

from __future__ import annotations

import numpy as np

from ..bitstream.facts import CLOSED, OPEN
from .scan import PacketTable


def nearest_keyframes(table: PacketTable, wanted: np.ndarray, max_shift_s: float) -> np.ndarray:
    """int64 [n]: for each wanted frame the nearest keyframe, if one is shown within max_shift_s of it, else itself.

    The order stays ascending: if a frame moves past another, that one is nearer to the same keyframe and moves, too.
    Several wanted frames may move to one keyframe, which is then shown in several cells. Of two keyframes equally far
    away the earlier one is taken. Where the stream cannot be analysed, nothing moves.

    Args:
        table: the video's packets; keyframes are the points at which a decoder can start.
        wanted: int64 [n], ascending indices in presentation order.
        max_shift_s: seconds, >= 0.
    """
    if not (table.prunable and table.ordered):
        return wanted
    keyframes = np.flatnonzero(table.facts[table.shown] & (CLOSED | OPEN))
    if not len(keyframes):
        return wanted
    times_s = table.times_s
    after = np.searchsorted(keyframes, wanted).clip(max=len(keyframes) - 1)
    before = (after - 1).clip(min=0)
    ahead_s = np.abs(times_s[keyframes[after]] - times_s[wanted])
    behind_s = np.abs(times_s[wanted] - times_s[keyframes[before]])
    nearest = np.where(behind_s <= ahead_s, keyframes[before], keyframes[after])
    return np.where(np.minimum(behind_s, ahead_s) <= max_shift_s, nearest, wanted)
