"""engine/scoring/peaks.py: peaks and their reach against a plain loop over the definition."""

from __future__ import annotations

import numpy as np
from gridclip.engine.scoring.peaks import Peaks
from hypothesis import given
from hypothesis import strategies as st
from naive_moments import naive_peaks

# Few values, so that there are ties.
VIDEOS = st.lists(st.lists(st.integers(-4, 4), min_size=9, max_size=9), min_size=1, max_size=4) | st.lists(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=1), min_size=1, max_size=3
)


@given(VIDEOS)
def test_moments_are_those_of_the_loop(videos: list[list[float]]) -> None:
    similar = np.array(videos, np.float64)
    similar /= max(1.0, np.abs(similar).max())
    ranges, scores = Peaks().moments(similar)
    best_ranges, best_scores = Peaks().best(similar)
    for row, values in enumerate(similar.tolist()):
        expected = {peak: (own.start, own.stop, np.float32(values[peak])) for peak, own in naive_peaks(values)}
        found = {
            number: (*ranges[row, number].tolist(), scores[row, number])
            for number in range(len(values))
            if scores[row, number] > -np.inf
        }
        assert found == expected
        best = values.index(max(values))
        assert (*best_ranges[row].tolist(), np.float32(best_scores[row])) == expected[best]
        covered = [place for first, last, _ in expected.values() for place in range(first, last)]
        assert len(covered) == len(set(covered)), "two moments share an embedding"
