"""Angles of positions in, rotated queries and keys of attention out: rotary position embedding.

After Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021); for images, half of a head's
channels turn with the column and half with the row.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Rotation:
    """How far each pair of neighbouring channels of a head turns, at each position.

    Attributes:
        angles: float [L, channels of a head / 2], in radians.
    """

    angles: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Queries or keys float [B, heads, L, channels] to the same, rotated."""
        cos, sin = self.angles.cos().to(x), self.angles.sin().to(x)
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


def grid_rotation(channels: int, grid: int, *, first: int, before: int, base: float = 10000.0) -> Rotation:
    """The rotation of grid x grid patches, row by row: columns turn the first half of the channels, rows the second.

    Args:
        channels: of a head, a multiple of 4.
        grid: patches per row and column.
        first: number of the first row and column.
        before: tokens before the patches, which do not turn.
        base: wavelengths grow from 2 pi to 2 pi * base.
    """
    steps = torch.arange(grid) + first
    return patch_rotation(channels, steps.repeat(grid), steps.repeat_interleave(grid), before=before, base=base)


def patch_rotation(
    channels: int, first_half: Tensor, second_half: Tensor, *, before: int, base: float = 10000.0
) -> Rotation:
    """The rotation of patches by two coordinates, each of which turns a half of the channels.

    Args:
        channels, before, base: as for `grid_rotation`.
        first_half: [P], each patch's coordinate that turns the first half of the channels.
        second_half: [P], the other one.
    """
    pairs = channels // 4
    frequencies = base ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    patches = torch.cat([coordinate[:, None] * frequencies for coordinate in (first_half, second_half)], dim=1)
    return Rotation(torch.cat([patches.new_zeros(before, 2 * pairs), patches]))
