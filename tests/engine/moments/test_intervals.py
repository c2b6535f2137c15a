"""Bootstrap intervals against the normal approximation, and paired against unpaired."""

import numpy as np
import pytest
from gridclip.engine.moments.intervals import bootstrap, compare


def test_interval_is_near_the_normal_approximation() -> None:
    values = 100.0 * (np.arange(1000) < 300)
    found = bootstrap(values)
    half = 1.96 * 100 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.mean == pytest.approx(30)
    assert found.low == pytest.approx(30 - half, abs=0.3)
    assert found.high == pytest.approx(30 + half, abs=0.3)


def test_blocks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=50)
    whole = bootstrap(values)
    monkeypatch.setattr("gridclip.engine.moments.intervals._BLOCK", 500)
    assert bootstrap(values) == whole


def test_few_and_many_values_agree() -> None:
    hits = 100.0 * (np.arange(500) % 3 == 0)
    drawn = bootstrap(hits + np.arange(500) * 1e-9)  # so many distinct values that each is drawn
    counted = bootstrap(hits)
    assert (counted.low, counted.high) == (pytest.approx(drawn.low, abs=0.4), pytest.approx(drawn.high, abs=0.4))


def test_a_constant_has_no_width() -> None:
    assert bootstrap(np.full(10, 7.0)).low == bootstrap(np.full(10, 7.0)).high == 7


def test_pairs_decide_what_two_intervals_do_not() -> None:
    hard = np.random.default_rng(0).normal(scale=30, size=200)
    found = compare(hard, hard + 1 + np.random.default_rng(1).normal(scale=1, size=200))
    assert found.decided and found.difference.mean == pytest.approx(1, abs=0.3)
    assert bootstrap(hard).high > bootstrap(hard + 1).low
    assert not compare(hard, hard[::-1].copy()).decided


def test_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="must match"):
        compare(np.zeros(3), np.zeros(4))
