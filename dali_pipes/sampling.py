"""Frame counts and rates in, the indices of the wanted frames out."""

from __future__ import annotations

import dataclasses

import numpy as np

DECODE_WIDTH_PX, DECODE_HEIGHT_PX = 446, 336  # the reference decodes every frame at this size, whatever its aspect


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How videos become super images; part of a store's fingerprint.

    Args:
        fps: wanted frames per second of video, > 0.
        grid_size: cells per row and column of a super image, >= 1.
        super_img_size: width and height of a super image in pixels, >= grid_size.
        min_frames: wanted frames of a video shorter than one period (0 or 1).
        max_shift_s: seconds by which a wanted frame may move to a keyframe, >= 0; None: it stays where it is.

    Raises:
        ValueError: a value is out of range.
    """

    fps: float = 0.5
    grid_size: int = 2
    super_img_size: int = 336
    min_frames: int = 1
    max_shift_s: float | None = None

    def __post_init__(self) -> None:
        if not (self.fps > 0 and np.isfinite(self.fps)):
            raise ValueError(f"fps ({self.fps}) must be a finite number > 0")
        if self.grid_size < 1:
            raise ValueError(f"grid_size ({self.grid_size}) must be >= 1")
        if self.super_img_size < self.grid_size:
            raise ValueError(f"super_img_size ({self.super_img_size}) must be >= grid_size ({self.grid_size})")
        if self.min_frames not in (0, 1):
            raise ValueError(f"min_frames ({self.min_frames}) must be 0 or 1")
        if self.max_shift_s is not None and not (self.max_shift_s >= 0 and np.isfinite(self.max_shift_s)):
            raise ValueError(f"max_shift_s ({self.max_shift_s}) must be a finite number >= 0")

    @property
    def cells(self) -> int:
        """Wanted frames per super image."""
        return self.grid_size**2


def wanted_frames(frame_count: int, avg_fps: float, *, fps: float, min_frames: int = 1) -> np.ndarray:
    """Indices of the wanted frames, int64 [n], ascending: the reference's formula.

    n = int(frame_count * fps / avg_fps), indices numpy.linspace(0, frame_count, n, endpoint=False, dtype=int).

    Args:
        frame_count: video packets in the video stream, >= 0.
        avg_fps: average frame rate of the stream, frames per second.
        fps: wanted frames per second.
        min_frames: 1 returns the first frame of a video shorter than one period (unless it has none); 0 returns none.
    """
    if frame_count <= 0 or not avg_fps > 0:
        return np.zeros(0, np.int64)
    wanted = int(frame_count * fps / avg_fps)
    if wanted == 0:
        return np.zeros(min(min_frames, frame_count), np.int64)
    indices = np.linspace(0, frame_count, wanted, endpoint=False, dtype=int)
    return indices.astype(np.int64)


def super_image_count(frame_count: int, grid_size: int) -> int:
    """Super images that hold frame_count wanted frames, the partial last one kept."""
    return -(-frame_count // grid_size**2)
