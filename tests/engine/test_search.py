"""Tests of engine/search.py: order, scores and best moments of a hand-made store."""

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.search import search
from gridclip.engine.store.store import Store, VideoEmbedding


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    turns = np.eye(3, dtype=np.float32)
    store.append_videos(
        [
            VideoEmbedding("late", np.array([0.0, 8.0]), np.array([8.0, 12.5]), turns[[1, 0]]),
            VideoEmbedding("whole", None, None, turns[[0]]),
            VideoEmbedding("other", np.array([0.0]), np.array([8.0]), turns[[2]]),
        ]
    )
    return store


def test_best_videos_with_their_best_moment(store):
    hits = search(store, np.array([2.0, 0.0, 0.0]), 2)
    assert [(hit.video_id, hit.start_s, hit.end_s) for hit in hits] == [("whole", None, None), ("late", 8.0, 12.5)]
    assert hits[0].score == pytest.approx(1)
    assert hits[1].score == pytest.approx(np.e / np.hypot(np.e, 1), abs=1e-6)
    assert search(store, np.array([[1.0, 0.0, 0.0]]), 2, temperature=0.01)[1].score == pytest.approx(1)


def test_there_are_no_more_hits_than_videos(store):
    assert [hit.video_id for hit in search(store, np.array([0.1, 0.2, 0.9]), 50)] == ["other", "late", "whole"]


def test_a_query_of_another_width_is_refused(store):
    with pytest.raises(GridClipError, match="the query is 4 wide, the store .* has 3"):
        search(store, np.ones(4))
    with pytest.raises(ValueError, match="top"):
        search(store, np.ones(3), 0)
