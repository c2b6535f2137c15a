"""Frame numbers that count what an edit list hides, as decord's do, in; the frames that decord gives for them out.

An edit list of an mp4 file hides pictures at the start that later ones need (a cut inside a GOP). decord numbers them,
but its decoder leaves them out, so that which picture it gives for a number depends on how it gets there: frame numbers
of the same GOP are reached by counting decoded pictures on, those of another one by seeking to its keyframe. Here are
its rules (`SeekAccurate` of its video reader), for frames that are read in ascending order.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..bitstream.facts import CUT_OFF, HIDDEN
from .scan import PacketTable, VideoStream


def counted(summary: VideoStream) -> VideoStream:
    """The summary with what an edit list hides among its frames."""
    return dataclasses.replace(summary, frame_count=summary.frame_count + summary.cut_off, cut_off=0)


def given_by_decord(table: PacketTable, numbers: np.ndarray) -> np.ndarray:
    """Indices of shown frames, int64 [n], ascending, that decord gives for frame numbers.

    Where a part of more than a sampling period is hidden, decord goes back in time at the first seek; here the frame
    before stays instead, for everything after this goes one way.

    Args:
        table: of the video.
        numbers: int64 [n], ascending, among all frames that are shown or cut off by an edit list.
    """
    hidden = table.facts & HIDDEN
    if not (hidden == CUT_OFF).any():
        return numbers
    numbered = np.flatnonzero((hidden == 0) | (hidden == CUT_OFF))
    keys = np.flatnonzero(table.keyframes[numbered])
    by_time = numbered[np.argsort(table.pts[numbered], kind="stable")] if table.ordered else numbered
    shown_before = np.concatenate([[0], np.cumsum(hidden[by_time] == 0)])  # by frame number
    number = shown = 0  # the next frame of the decoder: decord's number for it, and which shown one it is
    given = np.zeros(len(numbers), np.int64)
    for place, wanted in enumerate(numbers.tolist()):
        key = _key_before(keys, wanted)
        if wanted != number and (key != _key_before(keys, number) or wanted < number):
            number, shown = key, int(shown_before[key])
        shown += wanted - number
        given[place] = shown
        number, shown = wanted + 1, shown + 1
    return np.maximum.accumulate(given.clip(max=len(table.shown) - 1))


def _key_before(keys: np.ndarray, number: int) -> int:
    """The last keyframe up to a frame; the first frame where there is none."""
    place = int(np.searchsorted(keys, number, side="right"))
    return int(keys[place - 1]) if place else 0
