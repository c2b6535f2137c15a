"""engine/moments/suppression.py against a loop over one query's moments."""

from __future__ import annotations

import numpy as np
from gridclip.engine.moments.metrics import iou
from gridclip.engine.moments.suppression import best_apart
from hypothesis import given
from hypothesis import strategies as st

spans = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=15)


@given(spans=spans, queries=st.integers(1, 4), seed=st.integers(0, 999), limit=st.integers(1, 6), lost=st.booleans())
def test_the_best_stay_and_rule_out_what_overlaps(
    spans: list[tuple[int, int]], queries: int, seed: int, limit: int, lost: bool
) -> None:
    times = np.array([(start, start + length) for start, length in spans], np.float64)
    if lost:
        times[0, 1] = np.nan
    scores = np.random.default_rng(seed).integers(0, 5, (queries, len(spans))).astype(np.float32)  # with ties
    found = best_apart(scores, np.broadcast_to(times, (queries, *times.shape)), limit)
    assert found.shape[0] == queries and found.shape[1] <= limit
    for row, own in zip(found, scores, strict=True):
        kept: list[int] = []
        for number in sorted(range(len(spans)), key=lambda n: -own[n]):
            timed = np.isfinite(times[number]).all()
            if timed and len(kept) < limit and all(iou(times[number], times[other]) < 0.5 for other in kept):
                kept.append(number)
        assert [number for number in row.tolist() if number >= 0] == kept
