"""Position embeddings of one size in, those of another out, interpolated."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import GridClipError

logger = logging.getLogger(__name__)


def check_image_size(image_size: int, patch_size: int, name: str) -> None:
    """Raises GridClipError, of the checkpoint of that name, where no whole patches fill images of so many pixels."""
    if image_size < patch_size or image_size % patch_size:
        raise GridClipError(
            f"image size {image_size} does not suit {name}: expected a multiple of its patch size {patch_size}"
        )


def resize_image_positions(positions: Tensor, grid: int) -> Tensor:
    """Class token row and [g * g, width] rows to `grid` patches a side, bicubic and antialiased as in open_clip."""
    return torch.cat([positions[:1], resize_patch_positions(positions[1:], grid)])


def resize_patch_positions(positions: Tensor, grid: int) -> Tensor:
    """[g * g, width] rows to [grid * grid, width], as `resize_image_positions`."""
    old = round(len(positions) ** 0.5)
    if grid == old:
        return positions
    logger.info("interpolating the image positions from %dx%d to %dx%d patches", old, old, grid, grid)
    image = positions.T.reshape(1, -1, old, old)
    image = F.interpolate(image, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return image.flatten(2)[0].T


def resize_text_positions(positions: Tensor, context_length: int) -> Tensor:
    """[T, width] rows to `context_length`: linear for a longer context; a shorter one keeps the first, unchanged.

    Positions count from the start token, so texts that fit into a shorter context keep exactly their embeddings.
    """
    if context_length <= len(positions):
        return positions[:context_length]
    logger.info("interpolating the text positions from %d to %d tokens", len(positions), context_length)
    return F.interpolate(positions.T[None], size=context_length, mode="linear", align_corners=False)[0].T.contiguous()
