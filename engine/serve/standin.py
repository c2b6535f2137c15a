"""Stands in for engine.search.Searcher until that is there."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..moments.best import Moment, best_moments
from ..retrieval import Scoring, best_videos
from ..store.store import Store


@dataclasses.dataclass(frozen=True)
class Hit:
    video_id: str
    score: float
    start_s: float | None
    end_s: float | None
    moments: list[Moment]


class Searcher:
    def __init__(self, store: Store, *, aggregate: str, temperature: float, index: str = "auto", device=None) -> None:
        self._store, self._scoring = store, Scoring(aggregate, temperature)
        self.refresh()

    def refresh(self) -> None:
        self._table = self._store.read_super_images()
        self._place = {v: i for i, v in enumerate(self._table.video_ids)}

    def search(self, query_vector: np.ndarray, top: int = 10, moments: int = 1) -> list[Hit]:
        t = self._table
        scores, best = best_videos(query_vector.reshape(1, -1), t.vectors, t.offsets, self._scoring, top=top)
        hits = []
        for score, v in zip(scores[0], best[0], strict=True):
            vectors, spans = self.video(t.video_ids[v])
            found = (
                best_moments(query_vector.reshape(-1), vectors, spans, self._scoring, limit=moments) if moments else []
            )
            first = found[0] if found else None
            hits.append(Hit(t.video_ids[v], float(score), first and first.start_s, first and first.end_s, found))
        return hits

    def video(self, video_id: str) -> tuple[np.ndarray, np.ndarray]:
        v = self._place[video_id]
        rows = slice(self._table.offsets[v], self._table.offsets[v + 1])
        return self._table.vectors[rows], np.stack([self._table.start_s[rows], self._table.end_s[rows]], axis=1)

    @property
    def video_ids(self) -> list[str]:
        return self._table.video_ids

    @property
    def super_images(self) -> int:
        return len(self._table.vectors)
