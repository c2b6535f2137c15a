"""Tests of engine/search_scores.py and search_order.py: against loops in float64 and against every placement."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gridclip.engine.scoring.retrieval import score_blocks
from gridclip.engine.scoring.scoring import Scoring
from gridclip.engine.search import scores as search_scores
from gridclip.engine.search.order import ordered_scores, placement
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = [1, 3, 400, 2, 1, 17, 1300, 5]  # of several runs, one longer than a run
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
SCORINGS = [
    Scoring("softmax", 1.0),
    Scoring("softmax", 0.02),
    Scoring("softmax", 1e-40),
    Scoring("mean"),
    Scoring("max"),
]


def random_vectors(rows: int, width: int = 24, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, width)) + 0.7
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def by_definition(rows: np.ndarray, query: np.ndarray, scoring: Scoring) -> float:
    """In float64, with the weighted sum itself."""
    rows = rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similar = rows @ query
    if scoring.aggregate == "max":
        return float(similar.max())
    weights = np.ones(len(rows))
    if scoring.aggregate == "softmax":
        weights = np.exp((similar - similar.max()) / scoring.temperature)
    total = weights @ rows
    return float(total @ query / np.linalg.norm(total))


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
@pytest.mark.parametrize("count", [1, 3, 20])
def test_scores_are_the_definitions(scoring: Scoring, count: int) -> None:
    vectors = random_vectors(OFFSETS[-1])
    queries = search_scores.unit(random_vectors(count, seed=1).astype(np.float32))
    found = search_scores.scores(vectors, OFFSETS, queries, scoring, device="cpu")
    expected = [
        [by_definition(vectors[first:last], query.astype(np.float64), scoring) for query in queries]
        for first, last in itertools.pairwise(OFFSETS)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_numpy_and_the_kernels_agree_where_videos_cancel_themselves_out(scoring: Scoring) -> None:
    vectors = np.array([[1, 0], [-1, 0], [0, 0], [0, 0], [1, 0], [0, 1]], np.float16)
    offsets, query = np.array([0, 2, 4, 6]), np.array([[0.6, 0.8]], np.float32)
    (block,) = score_blocks(query, vectors, offsets, scoring, device="cpu")
    kernel = np.empty((3, 1), np.float32)
    kernel[block.videos.numpy()] = block.scores.numpy()
    found = search_scores.scores(vectors, offsets, query, scoring)
    np.testing.assert_allclose(found[1:], kernel[1:], atol=1e-6)
    assert np.isfinite(found).all() and (np.abs(found) <= 1).all()


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_video_with_a_vector_that_is_not_finite_has_no_score(scoring: Scoring, count: int, bad: float) -> None:
    vectors = random_vectors(OFFSETS[-1])
    vectors[100, 3] = bad
    queries = search_scores.unit(random_vectors(count, seed=1))
    found = search_scores.scores(vectors, OFFSETS, queries, scoring, device="cpu")
    assert np.isnan(found).any(axis=1).tolist() == [length == 400 for length in LENGTHS]


def test_every_float16_is_widened_exactly() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    widened, finite = np.empty(halves.shape, np.float32), np.isfinite(halves)
    search_scores._widen_halves(halves, widened)
    np.testing.assert_array_equal(widened[finite], halves[finite].astype(np.float32))
    assert (np.abs(widened[~finite]) >= search_scores.INFINITE).all()
    assert np.abs(widened[finite]).max() < search_scores.INFINITE


def test_long_vectors_are_made_unit_length_and_zeros_stay() -> None:
    vectors = np.array([[60000, 60000, 60000, 60000], [0, 0, 0, 0], [1e-7, 0, 0, 0]], np.float16)
    np.testing.assert_allclose(search_scores.unit(vectors), [[0.5] * 4, [0] * 4, [1, 0, 0, 0]], atol=1e-6)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    sentences=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_placement_is_the_best_of_all(lengths: list[int], sentences: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    similar = generator.integers(-4, 5, (offsets[-1], sentences)).astype(np.float32) / 4  # with ties
    found = ordered_scores(similar, offsets)
    for video, (first, last) in enumerate(itertools.pairwise(offsets)):
        own, length = similar[first:last], last - first
        choose = itertools.combinations if length >= sentences else itertools.combinations_with_replacement
        totals = {
            places: sum(own[place, number] for number, place in enumerate(places))
            for places in choose(range(length), sentences)
        }
        assert found[video] == pytest.approx(max(totals.values()) / sentences)
        placed = tuple(placement(own).tolist())
        assert totals[placed] == max(totals.values())
