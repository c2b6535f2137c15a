"""Moments in time order, beside all choices tried one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gridclip.engine.serve.in_order import moments_in_order


@pytest.mark.parametrize("seed", range(30))
def test_the_best_of_all_ordered_choices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, length = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    queries = rng.normal(size=(count, 5)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    vectors = rng.normal(size=(length, 5)).astype(np.float16)
    spans = np.stack([np.arange(length), np.arange(length) + 1.0], axis=1)
    if length > 2:
        spans[1] = np.nan
    units = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = queries @ units.T
    timed = [place for place in range(length) if np.isfinite(spans[place]).all()]
    choices = list(itertools.combinations(timed, count))
    found = moments_in_order(queries, vectors, spans)
    if not choices:
        assert found == []
        return
    best = max(choices, key=lambda places: sum(cosines[row, place] for row, place in enumerate(places)))
    assert [moment.start_s for moment in found] == [float(place) for place in best]
    assert [moment.score for moment in found] == pytest.approx(
        [cosines[row, place] for row, place in enumerate(best)], abs=1e-5
    )
