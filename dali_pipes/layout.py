"""The times of a video's wanted frames and its sampling in, which super images they make, of every grid size, out.

Where a video is laid out in several grid sizes, its super images are counted through: block after block of wanted
frames, and in each block those of one grid size after the other. A block is as long as it takes for all grids to begin
anew, so that decoding can go on there with nothing of what came before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from .sampling import Sampling, super_image_count


@dataclasses.dataclass(frozen=True)
class Part:
    """The super images of one grid size that begin in a run of wanted frames.

    Attributes:
        grid_size: cells per row.
        first: index of the first of them among the video's super images of this grid size.
        count: how many, >= 1.
    """

    grid_size: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class SuperImageSize:
    """How large a model takes its super images. Models that take others get theirs from the same decoded frames.

    Attributes:
        laid_out_px: side at which cells are laid out: Sampling.super_img_size.
        image_size: side to which the super image is then resized, in pixels.
    """

    laid_out_px: int
    image_size: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The super images of one video.

    Args:
        bounds_s: float64 [F + 1], seconds from the video's start at which each wanted frame begins to stand for the
            video, and the end of the last one.
        sampling: how frames are laid out.
    """

    bounds_s: np.ndarray
    sampling: Sampling

    @property
    def frames(self) -> int:
        """Wanted frames of the video."""
        return len(self.bounds_s) - 1

    @property
    def total(self) -> int:
        """Super images of the video, of all grid sizes."""
        return self.before(self.frames)

    def count(self, grid_size: int) -> int:
        """Super images of one grid size."""
        return super_image_count(self.frames, grid_size, self.sampling.stride_of(grid_size))

    def before(self, frame: int) -> int:
        """Super images, of all grid sizes, that begin before this wanted frame."""
        return sum(part.count for part in self.parts(0, frame))

    def parts(self, begin: int, end: int) -> tuple[Part, ...]:
        """The super images that begin in the wanted frames from `begin` (where a block begins) to before `end`."""
        found = []
        for grid_size in self.sampling.grid_sizes:
            stride = self.sampling.stride_of(grid_size)
            first = begin // stride
            count = min(self.count(grid_size), -(-end // stride)) - first
            if count > 0:
                found.append(Part(grid_size, first, count))
        return tuple(found)

    def frame_of(self, first: int) -> int:
        """The wanted frame at which the block begins before which there are `first` super images of all grid sizes.

        Where the video has no more than `first`, that is its end.
        """
        frame = 0
        while self.before(frame) < first and frame < self.frames:
            frame += self.sampling.block
        return frame

    def spans_s(self, parts: Iterable[Part]) -> tuple[np.ndarray, np.ndarray]:
        """Seconds at which each super image of some parts starts and ends, float64 [L] each.

        It stands for the part of the video that its frames stand for.
        """
        begins, ends = [], []
        for part in parts:
            first_frames = (part.first + np.arange(part.count)) * self.sampling.stride_of(part.grid_size)
            begins.append(first_frames)
            ends.append(np.minimum(first_frames + part.grid_size**2, self.frames))
        return self.bounds_s[np.concatenate(begins)], self.bounds_s[np.concatenate(ends)]
