"""Tests of engine/retrieval.py against a plain float64 loop over queries and videos."""

import itertools
import math

import naive_moments
import numpy as np
import pytest
import torch
from gridclip.engine import choices
from gridclip.engine.scoring import retrieval, tallies
from gridclip.engine.scoring.retrieval import BlockSize, Scoring
from hypothesis import given, settings
from hypothesis import strategies as st


def loop_scores(queries, vectors, offsets, aggregate="softmax", temperature=1.0):
    """float64 [Q, V] straight from the definition, one query and one video at a time."""
    result = np.empty((len(queries), len(offsets) - 1))
    for row, query in enumerate(queries.astype(np.float64)):
        query = query / np.linalg.norm(query)
        for video in range(len(offsets) - 1):
            own = vectors[offsets[video] : offsets[video + 1]].astype(np.float64)
            own = own / np.linalg.norm(own, axis=1, keepdims=True)
            similar = own @ query
            if aggregate in naive_moments.SCORES:
                result[row, video] = naive_moments.SCORES[aggregate](own, query)
                continue
            if aggregate == "max":
                result[row, video] = similar.max()
                continue
            weights = np.full(len(own), 1 / len(own))
            if aggregate == "softmax":
                weights = np.exp((similar - similar.max()) / temperature)
                weights /= weights.sum()
            mixed = weights @ own
            result[row, video] = query @ mixed / np.linalg.norm(mixed)
    return result


def kernel_scores(queries, vectors, offsets, scoring):
    """float32 [Q, V] from the blocks; every pair must be there exactly once."""
    result = np.full((len(queries), len(offsets) - 1), np.nan, np.float32)
    for block in retrieval.score_blocks(queries, vectors, offsets, scoring, device="cpu"):
        cells = np.ix_(block.queries.numpy(), block.videos.numpy())
        assert np.isnan(result[cells]).all()
        result[cells] = block.scores.numpy().T
    assert not np.isnan(result).any()
    return result


def make(lengths, queries=5, width=16, seed=0, dtype=np.float32):
    """Vectors with a common part, as CLIP embeddings have, so that no aggregate vanishes."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    common = generator.standard_normal(width)
    vectors = (generator.standard_normal((offsets[-1], width)) + common).astype(dtype)
    return (generator.standard_normal((queries, width)) + 0.3 * common).astype(dtype), vectors, offsets


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(retrieval, "CPU_BLOCK", BlockSize(8, 4))
    monkeypatch.setattr(retrieval, "PAIR_ROWS", 3)


RAGGED = [3, 1, 40, 2, 3, 3, 17, 1, 9, 9, 3]  # 40 and 17 are longer than the vectors are wide


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("aggregate", "temperature"),
    [
        ("softmax", 1.0),
        ("softmax", 0.1),
        ("softmax", 0.02),
        ("softmax", 100.0),
        ("mean", 1.0),
        ("max", 1.0),
        ("windows", 1.0),
        ("tf-prvr", 1.0),
    ],
)
@pytest.mark.parametrize("blocks", [BlockSize(8, 4), retrieval.CPU_BLOCK])
def test_scores_equal_the_loop(monkeypatch, aggregate, temperature, dtype, blocks):
    monkeypatch.setattr(retrieval, "CPU_BLOCK", blocks)
    queries, vectors, offsets = make(RAGGED, queries=11, dtype=dtype)
    scores = kernel_scores(queries, vectors, offsets, Scoring(aggregate, temperature))
    np.testing.assert_allclose(scores, loop_scores(queries, vectors, offsets, aggregate, temperature), atol=1e-5)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    queries=st.integers(1, 9),
    width=st.integers(2, 24),
    seed=st.integers(0, 2**16),
    temperature=st.floats(0.02, 1e6),
    aggregate=st.sampled_from(choices.AGGREGATES),
    rows=st.integers(1, 40),
    step=st.integers(1, 10),
)
def test_scores_equal_the_loop_for_any_lengths(lengths, queries, width, seed, temperature, aggregate, rows, step):
    data = make(lengths, queries, width, seed)
    expected = loop_scores(*data, aggregate, temperature)
    smallest = min(_smallest_norm(*data, temperature), 1) if aggregate != "max" else 1
    if aggregate in naive_moments.SCORES:
        smallest = min(smallest, *(naive_moments.smallest_mean(data[1][a:b]) for a, b in itertools.pairwise(data[2])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CPU_BLOCK", BlockSize(rows, step))
        scores = kernel_scores(*data, Scoring(aggregate, temperature))
    # In two or three dimensions vectors can cancel out; the rounding error grows with 1 / norm^2.
    np.testing.assert_allclose(scores, expected, atol=max(1e-5, 2e-6 / smallest**2))


def _smallest_norm(queries, vectors, offsets, temperature):
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    norms = []
    for first, last in itertools.pairwise(offsets):
        norms.append(np.linalg.norm(units[first:last].mean(0)))
        for query in queries / np.linalg.norm(queries, axis=1, keepdims=True):
            weights = np.exp(units[first:last] @ query / temperature - 1 / temperature)
            norms.append(np.linalg.norm(weights @ units[first:last]) / weights.sum())
    return max(min(norms), 1e-3)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1.2e-38, 1e-30, 1e-6, 1e30, 1e300])
def test_extreme_temperatures_neither_overflow_nor_vanish(temperature):
    queries, vectors, offsets = make(RAGGED, queries=7)
    scores = kernel_scores(queries, vectors, offsets, Scoring("softmax", temperature))
    limit = loop_scores(queries, vectors, offsets, "max" if temperature < 1 else "mean")
    np.testing.assert_allclose(scores, limit, atol=1e-5)


def test_the_limit_of_tiny_temperatures_is_the_mean_of_the_super_images_that_are_equally_good():
    vectors = np.array([[0.6, 0.8, 0], [0.6, -0.8, 0], [0, 0, 1]], np.float32)
    scores = kernel_scores(np.array([[1.0, 0, 0]], np.float32), vectors, np.array([0, 3]), Scoring("softmax", 1e-46))
    assert scores[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("aggregate", choices.AGGREGATES)
def test_vectors_that_are_not_finite_are_named_and_never_ranked(small_blocks, aggregate, value):
    queries, vectors, offsets = make(RAGGED, queries=11)
    scoring, targets = Scoring(aggregate), np.arange(11)
    calls = (
        lambda: retrieval.ranks(queries, targets, vectors, offsets, scoring, device="cpu"),
        lambda: retrieval.best_videos(queries, vectors, offsets, scoring, top=3, device="cpu"),
        lambda: list(retrieval.score_blocks(queries, vectors, offsets, scoring, device="cpu")),
    )
    for row, message in ((offsets[4] + 1, "video 4 has super images"), (offsets[11] - 1, "video 10 has super images")):
        kept, vectors[row, 3] = vectors[row, 3], value
        for call in calls:
            with pytest.raises(ValueError, match=f"{message} whose vectors are not finite"):
                call()
        vectors[row, 3] = kept
    queries[8, 2] = value
    for call in calls:
        with pytest.raises(ValueError, match="the vector of query .* is not finite"):
            call()


def test_videos_whose_super_images_cancel_out_stay_between_minus_one_and_one():
    vector = np.array([[0.6, 0.8, 0.0]], np.float32)
    queries = np.array([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]], np.float32)
    scores = kernel_scores(queries, np.concatenate([vector, -vector, vector]), np.array([0, 2, 3]), Scoring())
    assert np.abs(scores).max() <= 1
    assert scores[1, 1] == pytest.approx(1) and scores[0, 1] == pytest.approx(0, abs=1e-6)
    zero = kernel_scores(queries, np.zeros((3, 3), np.float32), np.array([0, 2, 3]), Scoring())
    np.testing.assert_array_equal(zero, 0)


def loop_ranks(scores, targets):
    """Ranks by the stated rule from float64 scores."""
    result = []
    for row, target in zip(scores, targets, strict=True):
        rank = 1
        for video, score in enumerate(row):
            if video != target:
                tied = abs(score - row[target]) <= tallies.TIE
                rank += (tied and video < target) or (not tied and score > row[target])
        result.append(rank)
    return result


@pytest.mark.parametrize("aggregate", choices.AGGREGATES)
def test_ranks_equal_the_loop(small_blocks, aggregate):
    queries, vectors, offsets = make(RAGGED, queries=23, seed=3)
    targets = np.random.default_rng(0).integers(0, len(RAGGED), 23)
    found = retrieval.ranks(queries, targets, vectors, offsets, Scoring(aggregate), device="cpu")
    assert found.dtype == np.int64
    assert found.tolist() == loop_ranks(loop_scores(queries, vectors, offsets, aggregate), targets)


def test_videos_with_equal_super_images_tie_and_rank_in_the_order_of_candidates(small_blocks):
    queries, vectors, _ = make([6], queries=4)
    copies = np.concatenate([vectors, vectors, vectors[::-1], vectors])  # equal scores but for the rounding
    found = retrieval.ranks(queries, np.array([3, 0, 2, 1]), copies, np.arange(0, 25, 6), Scoring(), device="cpu")
    assert found.tolist() == [4, 1, 3, 2]


def test_a_model_that_cannot_tell_videos_apart_ranks_as_chance_does():
    queries = np.ones((10, 4), np.float32)
    found = retrieval.ranks(queries, np.arange(10), np.ones((10, 4), np.float32), np.arange(11), Scoring())
    assert found.tolist() == list(range(1, 11))


@pytest.mark.parametrize("top", [1, 3, 11, 50])
def test_best_videos_equal_the_sorted_loop(small_blocks, top):
    queries, vectors, offsets = make(RAGGED, queries=6, seed=5)
    scores, videos = retrieval.best_videos(queries, vectors, offsets, Scoring(), top=top, device="cpu")
    expected = loop_scores(queries, vectors, offsets)
    order = np.argsort(-expected, axis=1)[:, :top]
    assert videos.tolist() == order.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), atol=1e-5)


def test_best_videos_with_equal_scores_come_in_the_order_of_candidates(small_blocks):
    vectors = np.ones((12, 4), np.float32)
    _, videos = retrieval.best_videos(np.ones((1, 4), np.float32), vectors, np.arange(13), Scoring(), top=12)
    assert videos.tolist() == [list(range(12))]


def test_one_pass_finds_out_what_single_calls_do(small_blocks, monkeypatch):
    queries, vectors, offsets = make(RAGGED * 3, queries=23, seed=3)
    targets = np.random.default_rng(0).integers(0, 33, 23)
    wanted = [
        retrieval.Wanted(Scoring(aggregate, temperature), top)
        for aggregate, temperature, top in (
            ("softmax", 1.0, 5),
            ("softmax", 0.01, 0),
            ("mean", 1.0, 50),
            ("max", 1.0, 1),
            ("windows", 1.0, 33),
            ("tf-prvr", 1.0, 7),
        )
    ]
    found = retrieval.rank_videos(queries, targets, vectors, offsets, wanted, device="cpu")
    for each, ranking in zip(wanted, found, strict=True):
        expected = loop_scores(queries, vectors, offsets, each.scoring.aggregate, each.scoring.temperature)
        assert ranking.ranks.tolist() == loop_ranks(expected, targets)
        order = np.argsort(-expected, axis=1)[:, : each.top]
        assert ranking.videos.tolist() == order.tolist()
        np.testing.assert_allclose(ranking.scores, np.take_along_axis(expected, order, 1), atol=1e-5)


@pytest.mark.parametrize("most_waiting", [3, 4, 10, 40])
def test_the_best_are_kept_however_many_scores_wait(monkeypatch, most_waiting):
    monkeypatch.setattr(tallies, "SORTED_QUERIES", 4)
    scores = torch.from_numpy(np.random.default_rng(0).permutation(40 * 9).reshape(40, 9).astype(np.float32))
    best = tallies.BestVideos(9, 6, most_waiting=most_waiting, device=torch.device("cpu"))
    for videos in torch.randperm(40, generator=torch.Generator().manual_seed(0)).split(3):
        for queries in torch.arange(9).split(5):
            best.add(tallies.ScoreBlock(videos, queries, scores[videos][:, queries]))
    found, videos = best.result()
    expected = torch.sort(scores, dim=0, descending=True)
    assert videos.tolist() == expected.indices[:6].T.tolist() and found.tolist() == expected.values[:6].T.tolist()


def test_memory_stays_bounded_by_the_block_not_by_queries_times_videos(monkeypatch):
    monkeypatch.setattr(retrieval, "CPU_BLOCK", BlockSize(16, 8))
    queries, vectors, offsets = make([1] * 50 + [5] * 20 + [64], queries=40)
    for block in retrieval.score_blocks(queries, vectors, offsets, Scoring(), device="cpu"):
        assert block.scores.numel() <= 16 * 8
        if 70 in block.videos:  # 64 super images are more than 16 rows, so that it meets fewer queries at once
            assert len(block.queries) == 2


def test_no_queries_are_no_error():
    _, vectors, offsets = make([2, 3])
    none = np.zeros((0, 16), np.float32)
    assert list(retrieval.score_blocks(none, vectors, offsets, Scoring(), device="cpu")) == []
    assert retrieval.ranks(none, np.zeros(0, int), vectors, offsets, Scoring(), device="cpu").shape == (0,)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature .* must be a finite number > 0"):
        Scoring("softmax", temperature)


def test_wrong_arguments_are_refused():
    queries, vectors, _ = make([2, 3])
    with pytest.raises(ValueError, match="aggregate .'median'. must be one of softmax, mean, max, windows, tf-prvr"):
        Scoring("median")
    with pytest.raises(ValueError, match="video 1 has no super images"):
        list(retrieval.score_blocks(queries, vectors, np.array([0, 2, 2, 5]), Scoring()))
    with pytest.raises(ValueError, match="top .0. must be >= 1"):
        retrieval.best_videos(queries, vectors, np.array([0, 2, 5]), Scoring(), top=0)


@pytest.mark.may_skip
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("aggregate", choices.AGGREGATES)
def test_cuda_agrees_with_the_loop(aggregate):
    queries, vectors, offsets = make(RAGGED, queries=11)
    targets = np.arange(11)
    expected = loop_scores(queries, vectors, offsets, aggregate)
    (found,) = retrieval.rank_videos(
        queries, targets, vectors, offsets, [retrieval.Wanted(Scoring(aggregate), 11)], device="cuda"
    )
    assert found.ranks.tolist() == loop_ranks(expected, targets)
    np.testing.assert_allclose(found.scores, np.take_along_axis(expected, found.videos, 1), atol=1e-5)
