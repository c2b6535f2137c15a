"""Several moments of one video: best first, none twice."""

from __future__ import annotations

import numpy as np
from gridclip.engine import choices
from gridclip.engine.moments.best import Moment, best_moments
from gridclip.engine.scoring.aggregates import AGGREGATES
from gridclip.engine.scoring.peaks import Peaks
from gridclip.engine.scoring.retrieval import Scoring


def test_the_best_moments_come_first_and_what_overlaps_them_is_left_out() -> None:
    query = np.array([2.0, 0.0], np.float32)
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], np.float16)
    spans = np.array([[0, 8], [2, 8], [8, 16], [np.nan, 20]], np.float64)

    found = best_moments(query, vectors, spans, Scoring(), limit=3)

    assert [(moment.start_s, moment.end_s) for moment in found] == [(0, 8), (8, 16)]
    np.testing.assert_allclose([moment.score for moment in found], [1, 0], atol=1e-3)


def test_one_moment_is_the_most_similar_embedding_and_those_beside_it_that_are_nearly_as_similar() -> None:
    spans = np.array([[0, 8], [8, 16]], np.float64)
    assert best_moments(np.array([0, 1], np.float32), np.eye(2, dtype=np.float16), spans, Scoring()) == [
        Moment(8.0, 16.0, 1.0)
    ]
    similar = np.array([0.1, 0.2, 0.75, 0.9, 0.8, 0.3, 0.2, 0.1, 0.6, 0.2])
    vectors = np.stack([similar, np.sqrt(1 - similar**2)], axis=1).astype(np.float32)
    spans = np.stack([np.arange(10) * 2.0, np.arange(10) * 2.0 + 2], axis=1)
    found = best_moments(np.array([1, 0], np.float32), vectors, spans, Scoring("max"), limit=3)
    # The median is 0.25: the bounds are 0.705 and 0.495, and below the median each stands alone.
    assert [(moment.start_s, moment.end_s) for moment in found[:2]] == [(4, 10), (16, 18)]
    np.testing.assert_allclose([moment.score for moment in found], [0.9, 0.6, 0.2], atol=1e-6)


def test_windows_and_intervals_span_several_embeddings() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0) + 0.3 * np.random.default_rng(0).random((12, 3))
    spans = np.stack([np.arange(12) * 8.0, np.arange(12) * 8.0 + 8], axis=1)
    query = vectors[4:8].mean(0).astype(np.float32)
    for aggregate in ("windows", "tf-prvr"):  # 12 embeddings are too few for the wavelet: windows join in
        first, second = best_moments(query, vectors.astype(np.float32), spans, Scoring(aggregate), limit=2)
        assert (first.start_s, first.end_s) == (32, 64)
        assert first.score > second.score and not (second.start_s >= 32 and second.end_s <= 64 and second.end_s > 56)
    spans[:5] = np.nan  # a window that begins without times is no moment
    (only,) = best_moments(query, vectors.astype(np.float32), spans, Scoring("windows"))
    assert only.start_s >= 40


def test_the_aggregates_whose_moments_are_peaks_are_those_of_the_table() -> None:
    units = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0][:20].astype(np.float32)
    peaks = {name for name, each in AGGREGATES.items() if isinstance(each.candidates(units), Peaks)}
    assert peaks == set(choices.PEAK_AGGREGATES)
