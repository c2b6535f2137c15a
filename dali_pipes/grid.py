"""Frames uint8 [H, W, 3] in, super images uint8 [L, S, S, 3] out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .sampling import super_image_count


def assemble(frames: Sequence[np.ndarray] | np.ndarray, grid_size: int, super_img_size: int) -> np.ndarray:
    """Fills frames into super images, row by row, left to right; unused cells and the margin stay black.

    Each frame is resized (bicubic, antialiased, aspect not kept) to a cell of super_img_size // grid_size pixels.

    Args:
        frames: F frames uint8 [H, W, 3], RGB, in the order of time.
        grid_size: cells per row and column, >= 1.
        super_img_size: width and height of a super image in pixels, >= grid_size.

    Returns:
        uint8 [L, S, S, 3] with L = ceil(F / grid_size^2): the partial last super image is kept.
    """
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"frames ({frame.dtype} {list(frame.shape)}) must be uint8 [H, W, 3]")
    if not 1 <= grid_size <= super_img_size:
        raise ValueError(f"grid_size ({grid_size}) must be in [1, super_img_size ({super_img_size})]")
    cell_px = super_img_size // grid_size
    cells = grid_size**2
    count = super_image_count(len(frames), grid_size)
    super_images = np.zeros((count, super_img_size, super_img_size, 3), np.uint8)
    for position, frame in enumerate(frames):
        row, column = divmod(position % cells, grid_size)
        top, left = row * cell_px, column * cell_px
        super_images[position // cells, top : top + cell_px, left : left + cell_px] = resize(frame, cell_px)
    return super_images


def assemble_overlapping(
    frames: Sequence[np.ndarray], grid_size: int, super_img_size: int, *, stride: int, count: int
) -> np.ndarray:
    """Fills frames into super images that begin every `stride` frames, see `assemble`; each frame is resized once.

    Args:
        frames: uint8 [H, W, 3] each; the first is the first of the first super image.
        grid_size, super_img_size: see `assemble`.
        stride: frames from one start to the next, 1 to grid_size^2.
        count: how many super images, each with at least one frame.

    Returns:
        uint8 [count, S, S, 3].
    """
    cells = [resize(frame, super_img_size // grid_size) for frame in frames]
    starts = range(0, count * stride, stride)
    return np.concatenate(
        [assemble(cells[start : start + grid_size**2], grid_size, super_img_size) for start in starts]
    )


def resize(image: np.ndarray, size_px: int) -> np.ndarray:
    """An image uint8 [H, W, 3] as uint8 [size_px, size_px, 3], bicubic, antialiased, nothing cropped."""
    if image.shape[:2] == (size_px, size_px):
        return image
    # Pillow's fixed-point resampling: the fastest of the exact ones, and no torch in the decoding processes.
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BICUBIC))
