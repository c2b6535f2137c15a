"""Videos' unit vectors and queries in, the score of each video's best interval out: TF-PRVR, without training."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from .aggregate import Aggregate, Group, Part
from .candidates import Candidates, Mixtures, SpanMeans
from .wavelet_segments import SHORTEST, Intervals, intervals
from .windows import best_window, whole_video, window_scales, window_spans


class TfPrvr(Aggregate):
    """The best interval's product with the query, see wavelet_segments; the interval is the moment.

    Videos of fewer than SHORTEST embeddings have no wavelet levels and would be one interval, the mean of all. For them
    the windows of `windows` join in. A window's score is a cosine, an interval's is less, for its vector is a mixture
    and not of unit length: where a store has short and long videos, the short ones can rank higher than they should.
    """

    name = "tf-prvr"

    def prepare(self, part: Part) -> Part:
        """Each group gets weights float32 [count, K, L] of its intervals, or `window_scales` where videos are short."""
        groups = [dataclasses.replace(group, factor=_factor(group.of(part.vectors))) for group in part.groups]
        return dataclasses.replace(part, groups=groups)

    def scores(self, part: Part, similar: torch.Tensor, temperature: float) -> torch.Tensor:
        """See `Aggregate.scores`."""
        return torch.cat([_best(group, similar) for group in part.groups])

    def candidates(self, units: np.ndarray) -> Candidates:
        """Every interval; of a short video every window and the whole."""
        length = len(units)
        if length < SHORTEST:
            spans = window_spans(length)
            if (spans[-1] != [0, length]).any():  # the longest window is the whole where their lengths are equal
                spans = np.concatenate([spans, [[0, length]]])
            return SpanMeans.of_spans(units, spans)
        cut = intervals(units)
        return Mixtures(cut.spans, cut.weights)

    def too_short(self, lengths: np.ndarray) -> int:
        """Videos without a wavelet level."""
        return int((lengths < SHORTEST).sum())


def _factor(own: torch.Tensor) -> torch.Tensor:
    if own.shape[1] < SHORTEST:
        return window_scales(own)
    cut = [intervals(units) for units in own.cpu().numpy()]
    most = max(len(video.spans) for video in cut)
    return torch.from_numpy(np.stack([_filled(video, most) for video in cut])).to(own.device)


def _filled(video: Intervals, count: int) -> np.ndarray:
    """float32 [count, L]: the weights, the first interval's repeated where there are fewer: no maximum changes."""
    return np.concatenate([video.weights, np.repeat(video.weights[:1], count - len(video.weights), axis=0)])


def _best(group: Group, similar: torch.Tensor) -> torch.Tensor:
    """float32 [count, q]."""
    assert group.factor is not None
    if group.length < SHORTEST:
        return torch.maximum(best_window(group, similar), whole_video(group, similar))
    return torch.bmm(group.factor, group.of(similar)).amax(1)
