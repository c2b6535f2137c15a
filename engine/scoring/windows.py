"""Videos' unit vectors and queries in, the cosine of each video's best window out: means of neighbours at all scales.

A window is 1, 2, 4, ... consecutive embeddings, as many as fit into the video. Its vector is their mean, made unit
length again, so that its cosine with a query t is (s_i + ... + s_j) / |e_i + ... + e_j| with s = E t: windows need no
rows of their own, and the sums of each scale are those of the one before, added in pairs.
"""

from __future__ import annotations

import collections.abc
import dataclasses

import numpy as np
import torch

from .aggregate import Aggregate, Group, Part
from .candidates import SMALLEST_NORM, Candidates, SpanMeans


class Windows(Aggregate):
    """The best window's cosine; the window is the moment."""

    name = "windows"

    def prepare(self, part: Part) -> Part:
        """Each group gets `window_scales` of its videos."""
        groups = [dataclasses.replace(group, factor=window_scales(group.of(part.vectors))) for group in part.groups]
        return dataclasses.replace(part, groups=groups)

    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        return torch.cat([best_window(group, similar) for group in part.groups])

    def candidates(self, units: np.ndarray) -> Candidates:
        """Every window, short ones first."""
        return SpanMeans.of_spans(units, window_spans(len(units)))


def window_spans(length: int) -> np.ndarray:
    """int64 [M, 2]: first embedding and the one behind the last of every window, the shortest first, then in time."""
    spans = []
    size = 1
    while size <= length:
        first = np.arange(length - size + 1)
        spans.append(np.stack([first, first + size], axis=1))
        size *= 2
    return np.concatenate(spans)


def window_scales(own: torch.Tensor) -> torch.Tensor:
    """1 / |sum| of the windows of two and more, scale by scale, then of the whole video.

    Args:
        own: float32 [count, L, D], unit vectors.

    Returns:
        float32 [count, M - L + 1], M as in `window_spans`.
    """
    norms = [sums.norm(dim=2) for sums in _doubled(own)]
    norms.append(own.sum(1).norm(dim=1, keepdim=True))
    return torch.cat(norms, dim=1).clamp_(min=SMALLEST_NORM).reciprocal_()


def best_window(group: Group, similar: torch.Tensor) -> torch.Tensor:
    """float32 [count, q]: the best cosine of a window, from similarities [R, q] and the group's `window_scales`."""
    assert group.factor is not None
    own = group.of(similar)
    best = own.amax(1)
    first = 0
    for sums in _doubled(own):
        scales = group.factor[:, first : first + sums.shape[1], None]
        best = torch.maximum(best, (sums * scales).amax(1))
        first += sums.shape[1]
    # Rounding must not lift a window whose embeddings cancel each other out above a perfect match.
    return best.clamp_(-1, 1)


def whole_video(group: Group, similar: torch.Tensor) -> torch.Tensor:
    """float32 [count, q]: the cosine of the mean of all embeddings, from the same."""
    assert group.factor is not None
    return (group.of(similar).sum(1) * group.factor[:, -1:]).clamp_(-1, 1)


def _doubled(values: torch.Tensor) -> collections.abc.Iterator[torch.Tensor]:
    """Sums over 2, 4, ... consecutive entries of [count, L, n] along L, each [count, L - size + 1, n]."""
    half = 1
    while 2 * half <= values.shape[1] + half - 1:
        values = values[:, :-half] + values[:, half:]
        yield values
        half *= 2
