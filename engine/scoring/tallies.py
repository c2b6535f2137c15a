"""Blocks of scores in, the rank of each query's own video and the best videos of each query out, in bounded memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

# Scores nearer than this are ties: float32 sums of the same products differ by some 1e-7 with the order of adding.
TIE = 1e-6
SORTED_QUERIES = 1024  # whose scores are sorted at once


@dataclasses.dataclass(frozen=True)
class ScoreBlock:
    """Scores of some videos for some queries. Blocks come part by part of the videos, in each by query from 0 on.

    Attributes:
        videos: int64 [n], positions of the videos among the candidates.
        queries: int64 [q], consecutive positions of the queries; in the host's memory.
        scores: float32 [n, q].
    """

    videos: torch.Tensor
    queries: torch.Tensor
    scores: torch.Tensor

    @property
    def rows(self) -> slice:
        """The queries."""
        return slice(int(self.queries[0]), int(self.queries[-1]) + 1)


class Ranks:
    """Counts for each query the videos that rank before its own.

    Args:
        own: float32 [Q], the score of each query's own video.
        targets: int64 [Q], its position; on the device of `own`.
    """

    def __init__(self, own: torch.Tensor, targets: torch.Tensor) -> None:
        self._own, self._targets = own, targets
        self._ahead = torch.zeros_like(targets)

    def add(self, block: ScoreBlock) -> None:
        """Takes the next block."""
        rows = block.rows
        lead = block.scores - self._own[rows]
        videos, mine = block.videos[:, None], self._targets[rows]
        ahead = (lead > TIE) | ((lead >= -TIE) & (videos < mine))
        self._ahead[rows] += (ahead & (videos != mine)).sum(0)

    def result(self) -> np.ndarray:
        """int64 [Q], 1 is best."""
        return (self._ahead + 1).cpu().numpy()


class BestVideos:
    """Keeps the best videos of each query. Scores wait until there are many, for sorting a few of them costs as much.

    Args:
        queries: how many.
        count: videos to keep for each, >= 1.
        most_waiting: videos whose scores may wait, at least as many as a part has; they take 4 bytes a query each.
        device: where the scores are.
    """

    def __init__(self, queries: int, count: int, *, most_waiting: int, device: torch.device) -> None:
        self._scores = torch.full((queries, count), -torch.inf, device=device)
        self._videos = torch.full((queries, count), torch.iinfo(torch.int64).max, device=device)
        self._waiting = torch.empty(most_waiting, queries, device=device)
        self._names = torch.empty(most_waiting, dtype=torch.int64, device=device)
        self._open, self._used = 0, 0  # the part that is being filled in lies between them

    def add(self, block: ScoreBlock) -> None:
        """Takes the next block."""
        rows = block.rows
        if rows.start == 0:
            self._begin(block.videos)
        self._waiting[self._open : self._used, rows] = block.scores

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [Q, count], falling, and positions int64 [Q, count]; equal scores in the candidates' order."""
        self._sort()
        order = self._videos.argsort(dim=1, stable=True)
        order = order.gather(1, self._scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
        return self._scores.gather(1, order).cpu().numpy(), self._videos.gather(1, order).cpu().numpy()

    def _begin(self, videos: torch.Tensor) -> None:
        if self._used + len(videos) > len(self._waiting):
            self._sort()
        self._open, self._used = self._used, self._used + len(videos)
        self._names[self._open : self._used] = videos

    def _sort(self) -> None:
        count = self._scores.shape[1]
        waiting, names = self._waiting[: self._used], self._names[: self._used]
        for first in range(0, len(self._scores), SORTED_QUERIES):
            rows = slice(first, first + SORTED_QUERIES)
            found = torch.cat([self._scores[rows], waiting[:, rows].T], dim=1)
            self._scores[rows], places = found.topk(count, dim=1)
            new = names[(places - count).clamp_(min=0)] if self._used else self._videos[rows]
            kept = self._videos[rows].gather(1, places.clamp(max=count - 1))
            self._videos[rows] = torch.where(places < count, kept, new)
        self._used = 0
