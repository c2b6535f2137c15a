"""Tests of engine/search.py: order, scores and best moments of a hand-made store."""

import subprocess
import sys

import lance
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.scoring.retrieval import best_videos
from gridclip.engine.scoring.scoring import Scoring
from gridclip.engine.search.search import Searcher, search
from gridclip.engine.store import reader
from gridclip.engine.store.store import Store, VideoEmbedding
from gridclip.engine.store.tables import vector_column


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


def random_store(path, videos=40, seed=0):
    generator = np.random.default_rng(seed)
    store = Store.open(path, create=True)
    embeddings = []
    for video in range(videos):
        length = int(generator.integers(1, 9))
        vectors = generator.standard_normal((length, 16)).astype(np.float32)
        start_s = np.arange(length) * 8.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        embeddings.append(VideoEmbedding(f"v{video:03d}", start_s, start_s + 8, vectors))
    store.append_videos(embeddings[: videos // 2])
    store.append_videos(embeddings[videos // 2 :])
    return store


@pytest.mark.parametrize("aggregate", ["softmax", "mean", "max"])
@pytest.mark.parametrize("rows", [10, 4096])
def test_it_finds_what_the_kernels_find(tmp_path, monkeypatch, aggregate, rows):
    monkeypatch.setattr(reader, "ROWS", rows)
    store = random_store(tmp_path / "s")
    table = store.read_super_images()
    queries = np.random.default_rng(1).standard_normal((70, 16)).astype(np.float32)
    scores, best = best_videos(queries, table.vectors, table.offsets, Scoring(aggregate, 0.5), top=7, device="cpu")
    searcher = Searcher(store, aggregate=aggregate, temperature=0.5)
    answers = searcher.search_many(queries, top=7)
    for number, hits in enumerate(answers):
        assert [hit.video_id for hit in hits] == [table.video_ids[video] for video in best[number]]
        np.testing.assert_allclose([hit.score for hit in hits], scores[number], atol=1e-6)
    again = searcher.search(queries[3], top=7)  # from what was kept
    assert [hit.video_id for hit in again] == [hit.video_id for hit in answers[3]]


def test_equal_scores_come_in_the_order_of_the_ids(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    names = ["d", "b", "\U0001f600", "a", "\uffff", "c"]
    store.append_videos([VideoEmbedding(name, None, None, np.eye(2, dtype=np.float32)[:1]) for name in names])
    for top in (1, 3, 6):
        assert [hit.video_id for hit in search(store, np.ones(2), top)] == sorted(names)[:top]


def test_several_moments_of_a_video(store):
    hits = {hit.video_id: hit for hit in search(store, np.array([0.9, 0.3, 0]), 3, moments=5)}
    assert hits["whole"].moments == [] and hits["whole"].start_s is None
    hit = hits["late"]
    assert [(moment.start_s, moment.end_s) for moment in hit.moments] == [(8.0, 12.5), (0.0, 8.0)]
    assert (hit.start_s, hit.end_s) == (8.0, 12.5)
    assert hit.moments[0].score == pytest.approx(0.9 / np.hypot(0.9, 0.3), abs=1e-3)
    with pytest.raises(ValueError, match="moments"):
        search(store, np.ones(3), moments=0)


def test_first_this_then_that(store):
    turns = np.eye(3)
    searcher = Searcher(store)
    forwards, backwards = (searcher.search_terms(turns[order], top=3) for order in ([1, 0], [0, 1]))
    assert forwards[0].video_id == "late" and forwards[0].score == pytest.approx(1, abs=1e-3)
    assert [(moment.start_s, moment.end_s) for moment in forwards[0].moments] == [(0.0, 8.0), (8.0, 12.5)]
    assert next(hit.score for hit in backwards if hit.video_id == "late") == pytest.approx(0, abs=1e-3)
    one = searcher.search_terms(turns[:1], top=3)
    assert [hit.video_id for hit in one] == [hit.video_id for hit in searcher.search(turns[0], 3)]


def test_what_is_not_wanted_costs_its_score(store):
    searcher = Searcher(store, aggregate="max")
    wanted, unwanted = np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0], [-1.0, 0, 0]])
    hits = searcher.search_terms(wanted, unwanted, top=3)
    assert [(hit.video_id, round(hit.score, 3)) for hit in hits] == [("whole", 1), ("late", 0), ("other", 0)]


def test_the_embeddings_of_a_video(store):
    searcher = Searcher(store)
    vectors, spans = searcher.video("late")
    np.testing.assert_array_equal(vectors, np.eye(3)[[1, 0]])
    np.testing.assert_array_equal(spans, [[0, 8], [8, 12.5]])
    with pytest.raises(KeyError):
        searcher.video("nowhere")


def test_appended_videos_are_found_after_a_refresh(store):
    searcher = Searcher(store)
    assert not searcher.refresh()
    store.append_videos([VideoEmbedding("new", None, None, np.array([[0, 0.8, 0.6]], np.float32))])
    query = np.array([0, 0.8, 0.6])
    assert searcher.search(query, 1)[0].video_id != "new"
    assert searcher.refresh() and searcher.videos == 4
    assert searcher.search(query, 1)[0].video_id == "new"


def test_vectors_that_are_not_finite_are_told(tmp_path):
    store = random_store(tmp_path / "s")
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table()
    vectors = np.stack(table["vector"].to_pylist()).astype(np.float16)
    vectors[[3, 4, 50]] = np.nan
    lance.write_dataset(table.set_column(4, "vector", vector_column(vectors)), path, mode="overwrite")
    with pytest.raises(GridClipError) as of_the_table:
        store.read_super_images()
    with pytest.raises(GridClipError) as of_the_search:
        search(store, np.ones(16))
    assert str(of_the_search.value) == str(of_the_table.value)
    with pytest.raises(GridClipError, match="the query's vector holds values that are not finite"):
        search(store, np.full(16, np.nan))


@pytest.mark.parametrize("aggregate", ["softmax", "mean", "max"])
def test_a_search_for_a_few_sentences_needs_no_torch(store, aggregate):
    program = (
        "import sys, numpy\n"
        "from gridclip.engine.search.search import search\n"
        "from gridclip.engine.store.store import Store\n"
        f"search(Store.open({str(store.path)!r}), numpy.ones(3), aggregate={aggregate!r}, moments=3)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
