"""Queries of many threads are answered as each alone would be, in fewer passes, and errors reach who asked."""

from __future__ import annotations

import concurrent.futures
import pathlib
import threading

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.search.search import Searcher
from gridclip.engine.serve.together import Together
from gridclip.engine.store.rows import VideoEmbedding
from gridclip.engine.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(0)
    opened = Store.open(tmp_path_factory.mktemp("together") / "store", create=True)
    videos = []
    for number in range(50):
        vectors = rng.normal(size=(int(rng.integers(1, 9)), 16))
        starts = np.arange(len(vectors)) * 8.0
        videos.append(
            VideoEmbedding(f"v{number:02}", starts, starts + 8, vectors / np.linalg.norm(vectors, axis=1)[:, None])
        )
    opened.append_videos(videos)
    return opened


def test_each_is_answered_as_alone_in_fewer_passes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(store, temperature=0.1)
    rng = np.random.default_rng(1)
    asked = [
        (rng.normal(size=16).astype(np.float32), int(rng.integers(1, 60)), int(rng.integers(1, 5))) for _ in range(90)
    ]
    expected = [searcher.search(*each) for each in asked]
    alone, first, passes = searcher.search_many, threading.Event(), []

    def slowly(vectors: np.ndarray, top: int, moments: int) -> object:
        passes.append(len(vectors))
        first.wait(10)
        return alone(vectors, top, moments)

    monkeypatch.setattr(searcher, "search_many", slowly)
    together = Together(searcher)
    with concurrent.futures.ThreadPoolExecutor(90) as pool:
        answers = [pool.submit(together.search, *each) for each in asked]
        while len(together._waiting) < 90 - (passes[0] if passes else 90):
            pass
        first.set()
        found = [answer.result(30) for answer in answers]
    assert sum(passes) == 90 and max(passes) <= 64 and len(passes) <= 4
    for hits, alone_hits in zip(found, expected, strict=True):
        assert [hit.video_id for hit in hits] == [hit.video_id for hit in alone_hits]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone_hits], abs=1e-6)
        spans = [[(moment.start_s, moment.end_s) for moment in hit.moments] for hit in hits]
        assert spans == [[(moment.start_s, moment.end_s) for moment in hit.moments] for hit in alone_hits]


def test_an_error_reaches_who_asked_and_the_next_is_answered(store: Store, tmp_path: pathlib.Path) -> None:
    together = Together(Searcher(store))
    with pytest.raises(GridClipError, match="not finite"):
        together.search(np.full(16, np.nan, np.float32), 1, 1)
    assert len(together.search(np.ones(16, np.float32), 3, 1)) == 3
    assert len(together.search_terms(np.ones((2, 16), np.float32), None, 3, 1)) == 3
