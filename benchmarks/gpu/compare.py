"""Decoded frames and PyAV's of the whole file in; how near each is, and which neighbour is nearer still, out."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter
from gridclip.dali_pipes import grid
from gridclip.dali_pipes.cpu.decoding import to_rgb
from gridclip.dali_pipes.packets import scan

NEIGHBOURS = 8
MIN_PSNR_DB = 30.0  # ways to round and to scale chroma stay above, another frame of `videos` below
CEILING_DB = 99.0  # of equal pixels


@dataclasses.dataclass(frozen=True)
class Fit:
    """How decoded frames fit the expected ones.

    Attributes:
        psnr_db: float64 [n], of each frame to the one that it should be.
        nearest: int64 [n], the expected frame that each is nearest to, among its neighbours.
    """

    psnr_db: np.ndarray
    nearest: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """int64 [w], indices of the frames that are too far, or another one."""
        return np.flatnonzero((self.psnr_db < MIN_PSNR_DB) | (self.nearest != np.arange(len(self.nearest))))

    @property
    def right(self) -> bool:
        """Every frame is the one that it should be."""
        return not len(self.wrong)

    def __str__(self) -> str:
        told = f"{len(self.psnr_db)} frames, lowest {self.psnr_db.min():.1f} dB, mean {self.psnr_db.mean():.1f} dB"
        if self.right:
            return told
        first = int(self.wrong[0])
        return f"{told}; {len(self.wrong)} WRONG, e.g. frame {first} is nearest to frame {self.nearest[first]}"

    def values(self) -> dict[str, Any]:
        """For the JSON: every frame's PSNR, and the nearest neighbour of the wrong ones."""
        nearest = {int(index): int(self.nearest[index]) for index in self.wrong}
        return {"psnr_db": [round(float(value), 1) for value in self.psnr_db], "nearest_of_wrong": nearest}


def fit(made: np.ndarray, expected: np.ndarray) -> Fit:
    """Compares frames uint8 [n, S, S, 3] with as many expected ones."""
    count = len(expected)
    psnr = np.full((count, 2 * NEIGHBOURS + 1), -np.inf)
    for index in range(count):
        first, last = max(0, index - NEIGHBOURS), min(count, index + NEIGHBOURS + 1)
        errors = expected[first:last].astype(np.int16) - made[index]
        psnr[index, first - index + NEIGHBOURS : last - index + NEIGHBOURS] = to_db(np.square(errors, dtype=np.int32))
    own = psnr[:, NEIGHBOURS]
    best = psnr.argmax(axis=1) - NEIGHBOURS + np.arange(count)
    nearest = np.where(own >= psnr.max(axis=1), np.arange(count), best)  # of equally near ones, itself
    return Fit(own, nearest)


def to_db(squared_errors: np.ndarray) -> np.ndarray:
    """PSNR of each image: squared errors [n, ...] as dB, float64 [n]."""
    mean = squared_errors.reshape(len(squared_errors), -1).mean(axis=1)
    return np.minimum(CEILING_DB, 10 * np.log10(255**2 / np.maximum(mean, 1e-9)))


def psnr_db(made: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """PSNR of each image uint8 [n, S, S, 3] to the expected one, float64 [n]."""
    return to_db(np.square(made.astype(np.int32) - expected))


def decode_all(path: pathlib.Path, size_px: int) -> np.ndarray:
    """Every frame that PyAV shows of a whole file, scaled as on the CPU path, uint8 [n, size_px, size_px, 3]."""
    reformatter = VideoReformatter()
    with scan.open_video(path) as (container, stream):
        frames = [grid.resize(to_rgb(frame, reformatter), size_px) for frame in container.decode(stream)]
    return np.stack(frames)
