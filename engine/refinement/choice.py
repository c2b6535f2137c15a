"""One query and the coarse embeddings of one video in; which of the video's wanted frames to look at again out."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...dali_pipes.sampling import Sampling, super_image_count
from ..moments.best import score_moments, seconds
from ..moments.suppression import best_apart
from ..scoring.scoring import Scoring
from ..store.copies import View

MOMENTS = 1  # best moments of a video around which is looked
MARGIN = 1  # coarse embeddings on either side of a moment
MOST_FRAMES = 64  # of a video for one query: beyond that the middle of a moment


@dataclasses.dataclass(frozen=True)
class Coarse:
    """Which wanted frames the coarse embeddings of a video hold.

    Args:
        view: the level and grid size of the embeddings, whose grid size is known and more than 1.
        sampling: of the store.
    """

    view: View
    sampling: Sampling

    @property
    def stride(self) -> int:
        """Wanted frames from one embedding to the next."""
        return 1 if self.view.level == "cell" else self.sampling.stride_of(self.view.grid_size or 1)

    @property
    def frames(self) -> int:
        """Wanted frames of one embedding."""
        return 1 if self.view.level == "cell" else (self.view.grid_size or 1) ** 2

    def rows(self, wanted: int) -> int:
        """Embeddings of a video with so many wanted frames."""
        if self.view.level == "cell":
            return wanted
        return super_image_count(wanted, self.view.grid_size or 1, self.stride)


def frames_to_look_at(
    query: np.ndarray, units: np.ndarray, spans: np.ndarray, scoring: Scoring, coarse: Coarse
) -> np.ndarray:
    """The wanted frames around the best moments of a video, MARGIN embeddings before and behind included.

    Args:
        query: float32 [D], of unit length.
        units: float32 [L, D], the coarse embeddings in time order, of unit length.
        spans: float64 [L, 2], their seconds.
        scoring: says what a moment is.

    Returns:
        int64 [n], ascending, n <= MOST_FRAMES, positions among the wanted frames of the video. Its last super image may
        hold fewer than the others: a few positions may lie behind the video's end.
    """
    ranges, scores = score_moments(query[None], units, scoring)
    best = best_apart(scores, seconds(ranges, spans), MOMENTS)[0]
    found = np.zeros(0, np.int64)
    for first, last in ranges[0, best[best >= 0]].tolist():
        first, last = max(0, first - MARGIN), min(len(units), last + MARGIN)
        around = np.arange(first * coarse.stride, (last - 1) * coarse.stride + coarse.frames)
        new = np.setdiff1d(around, found)
        room = min(len(new), MOST_FRAMES - len(found))
        skipped = (len(new) - room) // 2
        found = np.union1d(found, new[skipped : skipped + room])
    return found
