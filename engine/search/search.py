"""A store and query vectors in, the best videos with score and best moments out.

Every score that is shown is exact. Where a store has an index that fits, it names the videos that may be among the
best, and these are scored with all that came after it was made; otherwise every video is.
"""

from __future__ import annotations

import functools
import logging
from typing import Literal

import numpy as np

from ... import ArgumentError, GridClipError
from .. import choices
from ..index.candidates import Index, IndexUnreadable, Versions, has_index, index_versions
from ..moments.best import Moment, best_moments
from ..scoring.scoring import Scoring
from ..store.copies import View
from ..store.reader import SuperImageReader
from ..store.store import Store
from . import scores as search_scores
from .order import ordered_scores, placement
from .snapshot import Hit, Scored, Snapshot

__all__ = ["MOST_QUERIES", "Hit", "Searcher", "Way", "search"]

logger = logging.getLogger(__name__)

MOST_QUERIES = 64  # that are scored in one pass over the store
INDEX_FROM_ROWS = 100_000  # super images; fewer are scored as fast without an index
# Videos of the index that are scored for each one that is shown, and at least. Half as many lost 4 in 100 of the best
# 10 at a temperature of 0.05 where all videos are alike, the demo's; for vectors as in building.py they are plenty.
CANDIDATES_PER_HIT, CANDIDATES = 20, 200
WORTHWHILE = 0.2  # of all videos: where more of them were candidates, reading all in their order takes no longer

Way = Literal["exact", "ann"]  # every video is scored, or those that an index names


class Searcher:
    """A store that is held open for many queries; several threads may search at once.

    Args:
        store: holds super images; nothing is written to it.
        aggregate, temperature: see `Scoring`.
        level, grid_size: which of the store's embeddings, see `Store.read_super_images`.
        index: "exact": every video is scored; "ann": those that the store's index names (approximate nearest
            neighbours); "auto": the latter for a large store with an index that fits.
        device: torch's name of where to compute what numpy is not enough for, by default CUDA if there is one.

    Raises:
        ValueError: an argument is out of range, or no index is made for the aggregate.
        GridClipError: the store holds no videos, or none of this level and grid size, or its rows are damaged; or there
            is no index of them.
    """

    def __init__(
        self,
        store: Store,
        *,
        aggregate: str = choices.AGGREGATE,
        temperature: float = choices.TEMPERATURE,
        level: choices.Level | None = None,
        grid_size: int | None = None,
        index: choices.IndexMode = choices.INDEX,
        device: str | None = None,
    ) -> None:
        self.store = store
        self.scoring = Scoring(aggregate, temperature)
        self._device = device
        if index not in choices.INDEX_MODES:
            raise ValueError(f"index ({index!r}) must be one of {', '.join(choices.INDEX_MODES)}")
        if index == "ann" and not has_index(self.scoring):
            raise ArgumentError(f"`index='ann'`: there is no index for `aggregate={aggregate!r}`; leave it out")
        self._mode = index
        self._snapshot = self._opened(store.reader(level, grid_size))
        logger.info("searching %s, %s", self.view, self.way())

    def refresh(self) -> bool:
        """Follows the store to its newest version; whether there was one. Searches that are running keep theirs.

        Raises:
            GridClipError: the store holds no videos any more, or its rows are damaged, or the index that was demanded
                is gone; the version before stays open.
        """
        now = self._snapshot
        newest = now.reader.newest()
        if newest is now.reader and self._index_versions(newest) == now.index_versions:
            return False
        self._snapshot = self._opened(newest, before=now)
        return True

    def way(self, wanted: int = 1, unwanted: int = 0, top: int = choices.TOP) -> Way:
        """How so many sentences (or pictures) are searched for.

        Raises:
            ArgumentError: there is no index for several sentences, or unwanted ones, and one was demanded.
        """
        return self._way(self._snapshot, wanted, unwanted, top)

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
            for query, scored in zip(some, self._scored(snapshot, some, top), strict=True):
                answers.append(snapshot.hits(scored, top, functools.partial(self._moments, query, limit=moments)))
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
        if len(wanted) == 1 and (unwanted is None or not len(unwanted)):
            return self.search_many(wanted, top, moments)[0]
        _require_counts(top=top, moments=moments)
        snapshot = self._snapshot
        self._way(snapshot, len(wanted), 0 if unwanted is None else len(unwanted), top)
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
        return snapshot.hits(snapshot.scores(score), top, answer)

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

    def _opened(self, reader: SuperImageReader, before: Snapshot | None = None) -> Snapshot:
        """A version of the store with its index, where one is to be used."""
        versions = self._index_versions(reader)
        index = Index.open(reader, self.scoring) if versions else None
        if index is None and self._mode == "ann":
            raise GridClipError(
                f"the store {self.store.path} has no index of {reader.view} for {self.scoring}: run gridclip index, "
                "or leave out `index='ann'`"
            )
        return Snapshot(reader, index, versions, before)

    def _index_versions(self, reader: SuperImageReader) -> Versions:
        """Of what an index would be read from; none where none is to be used."""
        if self._mode == "exact" or (self._mode == "auto" and reader.rows <= INDEX_FROM_ROWS):
            return ()
        return index_versions(reader, self.scoring)

    def _way(self, snapshot: Snapshot, wanted: int, unwanted: int, top: int) -> Way:
        plain = wanted == 1 and not unwanted
        if self._mode == "ann":
            if not plain:
                raise ArgumentError(
                    "`index='ann'`: there is no index for several sentences in order, or unwanted ones; leave it out"
                )
            return "ann"
        if snapshot.index is None or not plain or _candidates(top) > WORTHWHILE * len(snapshot.reader.videos):
            return "exact"
        return "ann"

    def _scored(self, snapshot: Snapshot, queries: np.ndarray, top: int) -> list[Scored]:
        """For each of the queries [Q, D] the scores [n, 1] of the videos that may be among its best."""
        if self._way(snapshot, 1, 0, top) == "ann" and snapshot.index is not None:
            try:
                return self._scored_by_index(snapshot, snapshot.index, queries, top)
            except IndexUnreadable as error:
                if self._mode == "ann":
                    raise
                logger.warning("%s: every video is scored", error)
        found = snapshot.scores(functools.partial(self._scores, queries=queries))
        return [Scored(found.videos, column[:, None]) for column in found.scores.T]

    def _scored_by_index(self, snapshot: Snapshot, index: Index, queries: np.ndarray, top: int) -> list[Scored]:
        others = None
        if len(index.uncovered):
            others = snapshot.scores_of(index.uncovered, functools.partial(self._scores, queries=queries))
        answers = []
        for number, query in enumerate(queries):
            videos = index.candidates(query, _candidates(top))
            own = snapshot.scores_of_few(videos, functools.partial(self._scores, queries=query[None]))
            answers.append(own if others is None else own.with_others(others, number))
        return answers

    def _moments(self, query: np.ndarray, vectors: np.ndarray, spans: np.ndarray, *, limit: int) -> list[Moment]:
        return best_moments(query, vectors, spans, self.scoring, limit=limit)

    def _scores(self, vectors: np.ndarray, offsets: np.ndarray, *, queries: np.ndarray) -> np.ndarray:
        return search_scores.scores(vectors, offsets, queries, self.scoring, device=self._device)

    def _units(self, vectors: np.ndarray, snapshot: Snapshot) -> np.ndarray:
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
    index: choices.IndexMode = choices.INDEX,
    device: str | None = None,
) -> list[Hit]:
    """The best videos for one query, best first; see `Searcher` for the arguments and what is raised."""
    searcher = Searcher(
        store,
        aggregate=aggregate,
        temperature=temperature,
        level=level,
        grid_size=grid_size,
        index=index,
        device=device,
    )
    return searcher.search(query_vector, top, moments)


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


def _candidates(top: int) -> int:
    """How many videos of an index are scored where so many are shown."""
    return max(CANDIDATES, CANDIDATES_PER_HIT * top)


def _require_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} ({count}) must be >= 1")
