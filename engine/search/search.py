"""A store and query vectors in, the best videos with score and best moments out.

Every score that is shown is exact. A store is read a few thousand super images at a time, so that memory does not grow
with it; a small one is kept in memory after its first search.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import logging

import numpy as np
import pyarrow as pa

from ... import GridClipError
from .. import choices
from ..moments.best import Moment, best_moments
from ..scoring.scoring import Scoring
from ..store.copies import View
from ..store.reader import Rows, SuperImageReader
from ..store.store import Store
from . import scores as search_scores
from .order import ordered_scores, placement

logger = logging.getLogger(__name__)

KEPT_BYTES = 192 << 20  # of float16 vectors that a searcher keeps in memory: 130,000 super images that are 768 wide
MOST_QUERIES = 64  # that are scored in one pass over the store

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


class Searcher:
    """A store that is held open for many queries; several threads may search at once.

    Args:
        store: holds super images; nothing is written to it.
        aggregate, temperature: see `Scoring`.
        level, grid_size: which of the store's embeddings, see `Store.read_super_images`.
        device: torch's name of where to compute what numpy is not enough for, by default CUDA if there is one.

    Raises:
        ValueError: an argument is out of range.
        GridClipError: the store holds no videos, or none of this level and grid size, or its rows are damaged.
    """

    def __init__(
        self,
        store: Store,
        *,
        aggregate: str = choices.AGGREGATE,
        temperature: float = choices.TEMPERATURE,
        level: choices.Level | None = None,
        grid_size: int | None = None,
        device: str | None = None,
    ) -> None:
        self.store = store
        self.scoring = Scoring(aggregate, temperature)
        self._device = device
        self._snapshot = _Snapshot(store.reader(level, grid_size))
        logger.info("searching %s", self._snapshot.reader.view)

    def refresh(self) -> bool:
        """Follows the store to its newest version; whether there was one. Searches that are running keep theirs.

        Raises:
            GridClipError: the store holds no videos any more, or its rows are damaged; the version before stays open.
        """
        newest = self._snapshot.reader.newest()
        if newest is self._snapshot.reader:
            return False
        self._snapshot = _Snapshot(newest)
        return True

    @property
    def view(self) -> View:
        """The level and grid size of the embeddings that are searched."""
        return self._snapshot.reader.view

    @property
    def videos(self) -> int:
        """How many videos are searched."""
        return len(self._snapshot.reader.videos)

    def search(self, query_vector: np.ndarray, top: int = choices.TOP, moments: int = 1) -> list[Hit]:
        """The best videos for a query, best first.

        Args:
            query_vector: float [D] or [1, D], from the store's model.
            top: how many videos, >= 1.
            moments: how many moments of each, >= 1; those that overlap a better one are left out.

        Raises:
            ValueError: a number is out of range.
            GridClipError: the vector has another width than the store's, or one of both is not finite.
        """
        return self.search_many(np.asarray(query_vector).reshape(1, -1), top, moments)[0]

    def search_many(self, query_vectors: np.ndarray, top: int = choices.TOP, moments: int = 1) -> list[list[Hit]]:
        """The best videos of each of several queries, [Q, D], in one pass over the store; else as `search`."""
        _require_counts(top=top, moments=moments)
        snapshot = self._snapshot
        queries = self._units(query_vectors, snapshot)
        answers = []
        for first in range(0, len(queries), MOST_QUERIES):
            some = queries[first : first + MOST_QUERIES]
            found = snapshot.scores(functools.partial(self._scores, queries=some))
            for query, scores in zip(some, found.T, strict=True):
                answers.append(snapshot.hits(scores, top, functools.partial(self._moments, query, limit=moments)))
        return answers

    def search_terms(
        self,
        wanted: np.ndarray,
        unwanted: np.ndarray | None = None,
        top: int = choices.TOP,
        moments: int = 1,
    ) -> list[Hit]:
        """The best videos for several sentences in time order, and against others.

        The score is that of `wanted`, less choices.UNWANTED_WEIGHT times the largest score of `unwanted` where that is
        above 0. One wanted sentence scores as in `search`; several score as the best placement of each on a later super
        image than the one before, see search_order.py, and each hit then has one moment for each of them, in order.

        Args:
            wanted: float [M, D], M >= 1.
            unwanted: float [N, D].
            top, moments: as in `search`, as are the errors; `moments` is for one wanted sentence.
        """
        _require_counts(top=top, moments=moments)
        snapshot = self._snapshot
        first, against = self._units(wanted, snapshot), None
        if unwanted is not None and len(unwanted):
            against = self._units(unwanted, snapshot)

        def score(vectors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
            one = len(first) == 1
            scores = self._scores(vectors, offsets, queries=first) if one else _ordered(vectors, offsets, first)
            if against is not None:
                worst = self._scores(vectors, offsets, queries=against).max(axis=1, keepdims=True)
                scores = scores - np.float32(choices.UNWANTED_WEIGHT) * np.maximum(worst, 0)
            return scores

        if len(first) == 1:
            answer = functools.partial(self._moments, first[0], limit=moments)
        else:
            answer = functools.partial(_placed_moments, first)
        return snapshot.hits(snapshot.scores(score)[:, 0], top, answer)

    def video(self, video_id: str) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings of a video in time order, float16 [L, D], and their spans in seconds, float64 [L, 2].

        Times that the store does not know are NaN.

        Raises:
            KeyError: the store has no such video.
        """
        snapshot = self._snapshot
        position = snapshot.reader.videos.position(video_id)
        if position is None:
            raise KeyError(video_id)
        rows, spans = snapshot.reader.read(np.array([position]))
        return rows.vectors, spans

    def _moments(self, query: np.ndarray, vectors: np.ndarray, spans: np.ndarray, *, limit: int) -> list[Moment]:
        return best_moments(query, vectors, spans, self.scoring, limit=limit)

    def _scores(self, vectors: np.ndarray, offsets: np.ndarray, *, queries: np.ndarray) -> np.ndarray:
        return search_scores.scores(vectors, offsets, queries, self.scoring, device=self._device)

    def _units(self, vectors: np.ndarray, snapshot: _Snapshot) -> np.ndarray:
        """float32 [Q, D] of unit length, checked."""
        queries = np.asarray(vectors, np.float32)
        if not np.isfinite(queries).all():
            raise GridClipError(
                "the query's vector holds values that are not finite, so that it has no scores: the model "
                "gives such values for this sentence; try another one, or export the model in fp32"
            )
        if queries.shape[1] != snapshot.reader.width:
            raise GridClipError(
                f"the query is {queries.shape[1]} wide, the store {self.store.path} has {snapshot.reader.width}"
                ": use the model that the store was made with"
            )
        return search_scores.unit(queries)


def search(
    store: Store,
    query_vector: np.ndarray,
    top: int = choices.TOP,
    *,
    moments: int = 1,
    aggregate: str = choices.AGGREGATE,
    temperature: float = choices.TEMPERATURE,
    level: choices.Level | None = None,
    grid_size: int | None = None,
    device: str | None = None,
) -> list[Hit]:
    """The best videos for one query, best first; see `Searcher` for the arguments and what is raised."""
    searcher = Searcher(
        store,
        aggregate=aggregate,
        temperature=temperature,
        level=level,
        grid_size=grid_size,
        device=device,
    )
    return searcher.search(query_vector, top, moments)


class _Snapshot:
    """One version of a store, and what was read of it, where that is little."""

    def __init__(self, reader: SuperImageReader) -> None:
        self.reader = reader
        self._kept: list[Rows] | None = None
        self._keeps = reader.rows * reader.width * np.dtype(np.float16).itemsize <= KEPT_BYTES

    def scores(self, scorer: Scorer) -> np.ndarray:
        """float32 [V, Q]: the scores of all videos.

        Raises:
            GridClipError: the store is damaged, or a vector is not finite.
        """
        found = np.concatenate([scorer(rows.vectors, rows.offsets) for rows in self._all_rows()])
        bad = np.flatnonzero(np.isnan(found).any(axis=1))
        if len(bad):
            raise self._not_finite(bad)
        return found

    def hits(self, scores: np.ndarray, top: int, answer: Answer) -> list[Hit]:
        """The best videos by scores [V]; equal scores in the order of their ids.

        Args:
            scores: float32 [V].
            top: how many.
            answer: what finds the moments of a video.
        """
        videos = self.reader.videos
        best = best_positions(scores, videos.names, top)
        rows, spans = self.reader.read(best)
        found = []
        for number, position in enumerate(best.tolist()):
            own = slice(rows.offsets[number], rows.offsets[number + 1])
            moments = answer(rows.vectors[own], spans[own])
            start_s, end_s = (moments[0].start_s, moments[0].end_s) if moments else (None, None)
            found.append(Hit(videos.names[position].as_py(), float(scores[position]), start_s, end_s, moments))
        return found

    def _all_rows(self) -> collections.abc.Iterator[Rows]:
        """All videos, a few at a time, as far as they are not kept from the store."""
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for rows in self.reader.read_blocks(self.reader.blocks()):
            if self._keeps:
                kept.append(rows)
            yield rows
        if self._keeps:
            self._kept = kept

    def _not_finite(self, videos: np.ndarray) -> GridClipError:
        rows, _ = self.reader.read(videos)
        bad = int((~np.isfinite(rows.vectors).all(axis=1)).sum())
        names = sorted(self.reader.videos.names.take(pa.array(videos)).to_pylist())
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return GridClipError(
            f"{bad:,} vectors of {len(videos):,} videos of the store {self.reader.path} are not finite ({shown}), so "
            "that they have no scores: embed again with `overwrite=True`"
        )


def best_positions(scores: np.ndarray, names: pa.Array, top: int) -> np.ndarray:
    """int64 [min(top, V)]: positions of the largest scores [V], falling; equal ones in the order of their names."""
    count = min(top, len(scores))
    lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= lowest)
    by_name = np.argsort(np.array(names.take(pa.array(candidates)).to_pylist(), object), kind="stable")
    candidates = candidates[by_name]
    best: np.ndarray = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return best


def _ordered(vectors: np.ndarray, offsets: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """float32 [n, 1]: how well videos show the sentences [M, D] one after the other."""

    def work(run: search_scores.Run) -> np.ndarray:
        return ordered_scores(run.cosines(sentences), run.offsets)[:, None]

    return search_scores.by_runs(vectors, offsets, work)


def _placed_moments(sentences: np.ndarray, vectors: np.ndarray, spans: np.ndarray) -> list[Moment]:
    """One moment for each sentence, in their order; none where the video has no times."""
    similar = search_scores.cosines(search_scores.unit(vectors), sentences)
    places = placement(similar)
    if not np.isfinite(spans[places]).all():
        return []
    return [
        Moment(float(spans[place, 0]), float(spans[place, 1]), float(similar[place, number]))
        for number, place in enumerate(places)
    ]


def _require_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} ({count}) must be >= 1")
