"""Generated frames in a cache of refined frames; a module of its own, so that other processes can import it."""

from __future__ import annotations

import pathlib

import numpy as np
from gridclip.dali_pipes.contract import VideoFile
from gridclip.engine.refinement.cache import FrameCache
from gridclip.engine.refinement.score import Frames

MADE_WITH = {"model": "m", "sampling": {"fps": 0.5}}


def frames(first: int, count: int, width: int = 8) -> Frames:
    positions = np.arange(first, first + count)
    vectors = np.random.default_rng(first).standard_normal((count, width)).astype(np.float16)
    return Frames(positions, vectors, np.stack([positions * 2.0, positions * 2.0 + 2], axis=1), 1000)


def cache_of(folder: pathlib.Path, most_frames: int = 1000, made_with=MADE_WITH) -> FrameCache:
    return FrameCache(folder, made_with, most_frames=most_frames)


def add(folder: pathlib.Path, video: VideoFile, first: int) -> None:
    for number in range(5):
        cache_of(folder).add([(video, frames(first + 2 * number, 2))])
