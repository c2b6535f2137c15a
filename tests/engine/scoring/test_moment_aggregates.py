"""engine/windows.py and engine/tf_prvr.py: scores and moments of one video equal the loops of naive_moments."""

from __future__ import annotations

import itertools

import naive_moments
import numpy as np
import pytest
from gridclip.engine.scoring import retrieval
from gridclip.engine.scoring.aggregates import AGGREGATES
from gridclip.engine.scoring.retrieval import Scoring
from gridclip.engine.scoring.wavelet_segments import SHORTEST, intervals
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = sorted(naive_moments.MOMENTS)


def scene_video(lengths: list[int], noise: float, seed: int) -> np.ndarray:
    """float32 [L, 12] of unit length: scenes of so many embeddings each around a direction; noise 0 repeats it."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal(12)
    rows = [generator.standard_normal(12) + common for _ in lengths]
    video = np.concatenate([np.repeat(row[None], length, axis=0) for row, length in zip(rows, lengths, strict=True)])
    video += noise * generator.standard_normal(video.shape)
    units: np.ndarray = (video / np.linalg.norm(video, axis=1, keepdims=True)).astype(np.float32)
    return units


videos = st.builds(
    scene_video,
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(0, 2**16),
)


@settings(max_examples=80)
@given(own=videos, name=st.sampled_from(NAMES))
def test_a_video_scores_as_the_loop_says_and_its_best_moment_has_that_score(own: np.ndarray, name: str) -> None:
    queries = np.random.default_rng(len(own)).standard_normal((3, 12)) + own.mean(0)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    # What the kernel cuts is the vectors as it makes them unit length; cutting others could find another peak.
    units = (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)
    expected = naive_moments.MOMENTS[name](units.astype(np.float64))
    offsets = np.array([0, len(own)])
    (block,) = retrieval.score_blocks(queries, own, offsets, Scoring(name), device="cpu")
    candidates = AGGREGATES[name].candidates(units)
    scores = candidates.scores(queries @ units.T)
    for row, query in enumerate(queries.astype(np.float64)):
        best = naive_moments.best(expected, query)
        assert block.scores[0, row] == pytest.approx(best, abs=1e-5)
        assert scores[row].max() == pytest.approx(best, abs=1e-5)
        by_span = {(first, last): float(vector @ query) for first, last, vector in expected}
        assert {tuple(span) for span in candidates.spans.tolist()} == set(by_span)
        for span, score in zip(candidates.spans.tolist(), scores[row], strict=True):
            assert score == pytest.approx(by_span[tuple(span)], abs=1e-5)


@pytest.mark.parametrize("length", range(1, 61))
def test_every_length_is_cut_as_the_loop_cuts_it(length: int) -> None:
    sizes = np.random.default_rng(length).multinomial(length, [0.25] * 4)
    own = scene_video([size for size in sizes.tolist() if size], 0.3, length)
    cut = intervals(own)
    assert len(own) == length and cut.weights.shape == (len(cut.spans), length)
    places = sorted({0, length, *itertools.chain(*naive_moments.cut_places(own.astype(np.float64)))})
    assert cut.spans.tolist() == [list(pair) for pair in itertools.pairwise(places)]


def test_a_video_of_fewer_than_sixteen_embeddings_is_scored_by_windows_too() -> None:
    assert SHORTEST == 16
    lengths = np.array([1, 15, 16, 40])
    assert AGGREGATES["tf-prvr"].too_short(lengths) == 2
    assert [AGGREGATES[name].too_short(lengths) for name in ("softmax", "mean", "max", "windows")] == [0] * 4
    own = scene_video([7, 4, 4], 0.0, 1)  # its middle scene is a window of 4
    query = own[7:8]
    scored = {
        name: float(next(retrieval.score_blocks(query, own, np.array([0, 15]), Scoring(name))).scores)
        for name in ("mean", "tf-prvr")
    }
    assert scored["tf-prvr"] == pytest.approx(1, abs=1e-6) and scored["mean"] < 0.99


def test_a_video_that_stands_still_is_one_interval_which_is_its_embedding() -> None:
    own = scene_video([40], 0.0, 3)
    cut = intervals(own)
    assert cut.spans.tolist() == [[0, 40]]
    # Levels of one segment each: the graph spreads a feature over copies of itself.
    vector = cut.weights @ own
    np.testing.assert_allclose(vector[0] / np.linalg.norm(vector[0]), own[0], atol=1e-6)
