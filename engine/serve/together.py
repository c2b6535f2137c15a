"""Query vectors of many threads in, each one's best videos out: whoever waits is answered in one pass over the store.

A pass reads every vector of the store (see `Searcher`), which costs about the same for one query as for some dozen, and
uses all cores. So passes run one after the other, and each takes all the queries that came during the one before.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading

import numpy as np

from ..search.search import MOST_QUERIES, Hit, Searcher


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A query, float32 [D], and where its hits go."""

    vector: np.ndarray
    top: int
    moments: int
    answer: concurrent.futures.Future[list[Hit]] = dataclasses.field(default_factory=concurrent.futures.Future)


class Together:
    """A searcher that several threads share."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._lock = threading.Lock()
        self._passing = threading.Lock()
        # One thread makes all passes: each thread of the C library keeps freed memory of its own.
        self._maker = concurrent.futures.ThreadPoolExecutor(1, "pass")
        self._waiting: list[_Asked] = []

    def search(self, vector: np.ndarray, top: int, moments: int) -> list[Hit]:
        """As `Searcher.search`, for float32 [D]; an error of one of those that are answered together is everybody's."""
        asked = _Asked(vector, top, moments)
        with self._lock:
            self._waiting.append(asked)
        while not asked.answer.done():
            with self._passing:
                if not asked.answer.done():
                    self._maker.submit(self._pass).result()
        return asked.answer.result()

    def search_terms(self, wanted: np.ndarray, unwanted: np.ndarray | None, top: int, moments: int) -> list[Hit]:
        """As `Searcher.search_terms`."""
        with self._passing:
            return self._maker.submit(self._searcher.search_terms, wanted, unwanted, top, moments).result()

    def _pass(self) -> None:
        """Answers those who have waited longest."""
        with self._lock:
            some, self._waiting = self._waiting[:MOST_QUERIES], self._waiting[MOST_QUERIES:]
        try:
            vectors = np.stack([asked.vector for asked in some])
            top, moments = max(asked.top for asked in some), max(asked.moments for asked in some)
            found = self._searcher.search_many(vectors, top, moments)
        except Exception as error:  # noqa: BLE001 - it is raised by those who asked
            for asked in some:
                asked.answer.set_exception(error)
            return
        for asked, hits in zip(some, found, strict=True):
            # The best ones of more are the best ones of fewer, videos and moments alike.
            asked.answer.set_result(
                [dataclasses.replace(hit, moments=hit.moments[: asked.moments]) for hit in hits[: asked.top]]
            )
