"""Moments ranked and measured on small stores, against loops over queries, videos and super images."""

import naive_moments
import numpy as np
import pytest
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.moments import metrics, ranking
from gridclip.engine.moments.evaluation import depth, evaluate_moments
from gridclip.engine.scoring.retrieval import Scoring, best_videos
from gridclip.engine.store.store import QueryTable, SuperImageTable


def table(lengths: list[int], dim: int = 8, seed: int = 0, span_s: float = 4.0) -> SuperImageTable:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = rng.normal(size=(offsets[-1], dim)).astype(np.float16)
    start_s = np.concatenate([np.arange(length) * span_s for length in lengths])
    return SuperImageTable([f"v{n}" for n in range(len(lengths))], offsets, vectors, start_s, start_s + span_s)


def measure(queries: QueryTable, targets: np.ndarray, videos: SuperImageTable, scoring: Scoring, **options):
    """evaluate_moments with the best videos as an evaluation finds them: for queries that have a video."""
    best = np.full((len(targets), min(depth(videos), len(videos.video_ids))), -1)
    scores = np.full(best.shape, -np.inf, np.float32)
    rows = targets >= 0
    scores[rows], best[rows] = best_videos(
        queries.vectors[rows], videos.vectors, videos.offsets, scoring, top=best.shape[1], device="cpu"
    )
    return evaluate_moments(queries, targets, videos, scoring, best=best, best_scores=scores, **options)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def video_score(query: np.ndarray, rows: np.ndarray, temperature: float) -> float:
    units = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    similar = units @ (query / np.linalg.norm(query))
    weights = np.exp(similar / temperature)
    return cosine(query, weights / weights.sum() @ units)


@pytest.fixture
def videos() -> SuperImageTable:
    return table([3, 1, 7, 4, 5])


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)


def test_own_moments_are_peaks_sorted_by_cosine(videos: SuperImageTable, vectors: np.ndarray) -> None:
    targets = np.array([2, 0, 1, 2, 4, 3])
    found, scores = ranking.rank_own_moments(vectors, targets, videos, Scoring())
    for row, video in enumerate(targets):
        rows = range(videos.offsets[video], videos.offsets[video + 1])
        similar = [cosine(vectors[row], videos.vectors[i]) for i in rows]
        expected = sorted(
            ((similar[peak], own) for peak, own in naive_moments.naive_peaks(similar)), key=lambda each: -each[0]
        )
        there = found.videos[row] >= 0
        assert there.sum() == len(expected) and (found.videos[row][there] == video).all()
        assert scores[row][there].tolist() == pytest.approx([score for score, _ in expected], abs=1e-5)
        spans = [[videos.start_s[rows[own.start]], videos.end_s[rows[own.stop - 1]]] for _, own in expected]
        assert found.spans[row][there].tolist() == spans


@pytest.mark.parametrize("name", ["windows", "tf-prvr"])
def test_moments_are_the_aggregates_own_and_none_comes_twice(name: str) -> None:
    videos, targets = table([3, 1, 40, 4, 20]), np.array([2, 0, 1, 2, 4, 3])
    queries = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    own, own_scores = ranking.rank_own_moments(queries, targets, videos, Scoring(name))
    all_found, video_scores = ranking.rank_moments(queries, videos, Scoring(name), device="cpu")
    units = videos.vectors.astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    for row, video in enumerate(targets):
        query = queries[row].astype(np.float64) / np.linalg.norm(queries[row])
        rows = units[videos.offsets[video] : videos.offsets[video + 1]].astype(np.float64)
        moments = [
            (float(vector @ query), [4.0 * first, 4.0 * last])
            for first, last, vector in naive_moments.MOMENTS[name](rows)
        ]
        expected: list[tuple[float, list[float]]] = []
        for score, span in sorted(moments, reverse=True):
            if all(metrics.iou(np.array(span), np.array(kept)) < 0.5 for _, kept in expected):
                expected.append((score, span))
        count = min(len(expected), 100)
        assert (own.videos[row, :count] == video).all() and (own.videos[row, count:] == -1).all()
        assert own.spans[row, :count].tolist() == [span for _, span in expected[:count]]
        np.testing.assert_allclose(own_scores[row, :count], [score for score, _ in expected[:count]], atol=1e-5)
        (column,) = np.flatnonzero(all_found.videos[row] == video)
        assert all_found.spans[row, column].tolist() == expected[0][1]
        assert video_scores[row, column] == pytest.approx(expected[0][0], abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_moments_of_all_videos_follow_the_videos(
    videos: SuperImageTable, vectors: np.ndarray, temperature: float
) -> None:
    found, scores = ranking.rank_moments(vectors, videos, Scoring("softmax", temperature), depth=3)
    for row, query in enumerate(vectors):
        ranges = [slice(a, b) for a, b in zip(videos.offsets[:-1], videos.offsets[1:], strict=True)]
        by_score = sorted(range(5), key=lambda v: -video_score(query, videos.vectors[ranges[v]], temperature))[:3]
        assert found.videos[row].tolist() == by_score
        assert (np.diff(scores[row]) <= 0).all()
        for column, video in enumerate(by_score):
            similar = [cosine(query, vector) for vector in videos.vectors[ranges[video]]]
            _, own = max(naive_moments.naive_peaks(similar), key=lambda each: similar[each[0]])
            times = videos.start_s[ranges[video]][own.start], videos.end_s[ranges[video]][own.stop - 1]
            assert found.spans[row, column].tolist() == list(times)


def test_a_store_that_is_right_reaches_the_ceiling() -> None:
    videos = table([4, 4, 4])
    picked = [(0, 1), (1, 3), (2, 0)]
    rows = [video * 4 + number for video, number in picked]
    queries = [Query(n, f"v{video}", "x", number * 4.0, number * 4.0 + 4) for n, (video, number) in enumerate(picked)]
    result = measure(QueryTable(queries, videos.vectors[rows]), np.array([0, 1, 2]), videos, Scoring("max"))
    assert result is not None and result.miou == pytest.approx(100) and result.oracle == pytest.approx(100)
    assert result.svmr[0.7][1] == result.vcmr[0.7][1] == 100
    assert result.mean_ap[0.95] == 100 and result.without_times == 0
    content = result.to_json()
    assert content["vcmr"]["0.5"]["10"] == 100 and content["miou"] == pytest.approx(100)


def test_the_ceiling_is_that_of_the_sampling() -> None:
    videos = table([2])
    query = Query(0, "v0", "x", 2.0, 6.0)  # of [0, 4), [4, 8) and [0, 8): the last is best, 4 / 8
    result = measure(QueryTable([query], videos.vectors[:1]), np.array([0]), videos, Scoring())
    assert result is not None and result.oracle == pytest.approx(50)
    assert result.miou == pytest.approx(100 * 2 / 6)


def test_queries_and_videos_without_times_are_left_out_and_counted() -> None:
    videos = table([2, 3, 2])
    videos.start_s[2:5] = np.nan  # the second video's
    queries = [
        Query(0, "v0", "x", 0.0, 4.0),
        Query(1, "v1", "y", 0.0, 4.0),
        Query(2, "v2", "z"),
        Query(3, "gone", "w", 0.0, 4.0),
        Query(4, "v2", "u", 4.0, 0.0),  # ends before it starts, as some of ActivityNet's do
    ]
    vectors = videos.vectors[[0, 2, 5, 0, 5]]
    result = measure(QueryTable(queries, vectors), np.array([0, 1, 2, -1, 2]), videos, Scoring("max"))
    assert result is not None and (result.queries, result.without_times) == (2, 2)
    assert result.miou == pytest.approx(100)
    assert measure(QueryTable(queries[2:3], vectors[2:3]), np.array([2]), videos, Scoring()) is None


def test_recall_is_that_of_the_metrics(videos: SuperImageTable, vectors: np.ndarray) -> None:
    targets = np.array([2, 0, 1, 2, 4, 3])
    queries = [Query(n, f"v{t}", "x", 1.0, 6.0) for n, t in enumerate(targets)]
    result = measure(QueryTable(queries, vectors), targets, videos, Scoring(), topk=(1, 2))
    assert result is not None
    hits = 0
    for row, target in enumerate(targets):
        rows = range(videos.offsets[target], videos.offsets[target + 1])
        best = max(rows, key=lambda i: cosine(vectors[row], videos.vectors[i]))
        span = np.array([videos.start_s[best], videos.end_s[best]])
        hits += metrics.iou(span, np.array([1.0, 6.0])) >= 0.3
    assert result.svmr[0.3][1] == pytest.approx(100 * hits / 6)
    assert "mIoU" in str(result) and "own video, IoU 0.3" in str(result)
