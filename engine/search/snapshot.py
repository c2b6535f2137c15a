"""One version of a store in, scores of its videos and the best of them out.

Videos are read a few thousand super images at a time, so that memory does not grow with the store; those of a small
store are kept in memory after its first search.
"""

from __future__ import annotations

import collections.abc
import dataclasses

import numpy as np
import pyarrow as pa

from ..index.candidates import Index, Versions
from ..moments.best import Moment
from ..store.reader import Rows, SuperImageReader

KEPT_BYTES = 192 << 20  # of float16 vectors that a searcher keeps in memory: 130,000 super images that are 768 wide
ROWS_AT_ONCE = 1024  # that are read of videos that lie apart: with more, new memory costs more than Lance's calls

# Vectors float16 [R, D] of whole videos and their offsets in, scores float32 [n, Q] out; NaN: a vector is not finite.
Scorer = collections.abc.Callable[[np.ndarray, np.ndarray], np.ndarray]
# Vectors [L, D] and spans in seconds [L, 2] of one video in, its moments out.
Answer = collections.abc.Callable[[np.ndarray, np.ndarray], list[Moment]]


@dataclasses.dataclass(frozen=True)
class Hit:
    """A video that answers a query.

    Attributes:
        video_id: the video's id.
        score: cosine of the query and the video's aggregate, -1 to 1; of several sentences see `Searcher.search_terms`.
        start_s: start of the best moment in seconds, None where the store has no times.
        end_s: end of the best moment in seconds, None where the store has no times.
        moments: as many as were asked for, best first; several sentences have one each, in their order.
    """

    video_id: str
    score: float
    start_s: float | None
    end_s: float | None
    moments: list[Moment] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Videos, positions int64 [n], and their scores float32 [n, Q]."""

    videos: np.ndarray
    scores: np.ndarray

    def with_others(self, others: Scored, query: int) -> Scored:
        """Together with other videos; of their scores those of one query."""
        scores = np.concatenate([self.scores, others.scores[:, query, None]])
        return Scored(np.concatenate([self.videos, others.videos]), scores)


class Snapshot:
    """One version of a store, its index where there is one to be used, and what was read of it, where that is little.

    Args:
        reader: of the version.
        index: of the same version; None: every video is scored.
        versions: of what the index was looked for in.
        before: what was kept of it goes on to be kept where the rows are the same.
    """

    def __init__(
        self, reader: SuperImageReader, index: Index | None, versions: Versions, before: Snapshot | None = None
    ) -> None:
        self.reader, self.index, self.index_versions = reader, index, versions
        self._kept: dict[range, Rows] = {}
        if before is not None and reader.has_rows_of(before.reader):
            self._kept = before._kept

    def scores(self, scorer: Scorer) -> Scored:
        """Of all videos; raises GridClipError where the store is damaged, or a vector is not finite."""
        return self._scores(list(self.reader.blocks()), self.reader.rows, scorer)

    def scores_of(self, videos: np.ndarray, scorer: Scorer) -> Scored:
        """Of some videos, positions int64 [n >= 1], rising, many of which follow each other; as `scores`."""
        rows = int(self.reader.videos.sizes[videos].sum())
        return self._scores(list(self.reader.blocks_of(videos)), rows, scorer)

    def scores_of_few(self, videos: np.ndarray, scorer: Scorer) -> Scored:
        """Of a few videos that lie apart, positions int64 [n], rising; as `scores`."""
        parts = []
        for some in np.split(videos, self._cuts(videos)):
            rows = self.reader.read_vectors(some)
            parts.append(scorer(rows.vectors, rows.offsets))
        return self._checked(videos, np.concatenate(parts))

    def _cuts(self, videos: np.ndarray) -> np.ndarray:
        """Where to cut videos, int64 [n], into parts of `ROWS_AT_ONCE` rows and a video."""
        parts = np.cumsum(self.reader.videos.sizes[videos]) // ROWS_AT_ONCE
        cuts: np.ndarray = np.flatnonzero(np.diff(parts)) + 1
        return cuts

    def hits(self, scored: Scored, top: int, answer: Answer) -> list[Hit]:
        """The best videos for one query; equal scores in the order of their ids.

        Args:
            scored: of all videos, or of those that may be among the best; Q = 1.
            top: how many.
            answer: what finds the moments of a video.
        """
        names = self.reader.videos.names.take(pa.array(scored.videos))
        scores = scored.scores[:, 0]
        best = best_positions(scores, names, top)
        rows, spans = self.reader.read(scored.videos[best])
        found = []
        for number, position in enumerate(best.tolist()):
            own = slice(rows.offsets[number], rows.offsets[number + 1])
            moments = answer(rows.vectors[own], spans[own])
            start_s, end_s = (moments[0].start_s, moments[0].end_s) if moments else (None, None)
            found.append(Hit(names[position].as_py(), float(scores[position]), start_s, end_s, moments))
        return found

    def _scores(self, blocks: list[range], rows: int, scorer: Scorer) -> Scored:
        keeps = rows * self.reader.width * np.dtype(np.float16).itemsize <= KEPT_BYTES
        parts = [(part.videos, scorer(part.vectors, part.offsets)) for part in self._read(blocks, keeps=keeps)]
        videos, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        return self._checked(videos, scores)

    def _read(self, blocks: list[range], *, keeps: bool) -> collections.abc.Iterator[Rows]:
        """Runs of videos, first those that are kept, then the others from the store."""
        held = {block: rows for block in blocks if (rows := self._kept.get(block)) is not None}
        yield from held.values()
        missing = [block for block in blocks if block not in held]
        for block, rows in zip(missing, self.reader.read_blocks(missing), strict=True):
            if keeps:
                self._kept[block] = rows
            yield rows

    def _checked(self, videos: np.ndarray, scores: np.ndarray) -> Scored:
        bad = np.flatnonzero(np.isnan(scores).any(axis=1))
        if len(bad):
            raise self.reader.not_finite(videos[bad])
        return Scored(videos, scores)


def best_positions(scores: np.ndarray, names: pa.Array, top: int) -> np.ndarray:
    """int64 [min(top, V)]: positions of the largest scores [V], falling; equal ones in the order of their names."""
    count = min(top, len(scores))
    lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= lowest)
    by_name = np.argsort(np.array(names.take(pa.array(candidates)).to_pylist(), object), kind="stable")
    candidates = candidates[by_name]
    best: np.ndarray = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return best
