"""A value per query in, the uncertainty of their mean out: bootstrap intervals, and paired ones for two evaluations."""

from __future__ import annotations

import dataclasses

import numpy as np

SAMPLES = 2000
LEVEL = 95.0  # percent
SEED = 0  # the same numbers for the same input
_BLOCK = 1 << 24  # drawn indices at once
_FEW = 64  # distinct values up to which it is drawn how often each of them comes, which has the same distribution


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the percentile bootstrap interval around it (Efron, 1979), in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap(values: np.ndarray, *, samples: int = SAMPLES, level: float = LEVEL, seed: int = SEED) -> Interval:
    """The interval of a mean over queries: queries are drawn again with replacement.

    Args:
        values: float [Q >= 1], one per query (0 or 100 for R@K in percent).
        samples: how often all queries are drawn, >= 1.
        level: of the interval, percent, in (0, 100).
        seed: of the drawing.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values {list(values.shape)} must be [Q >= 1]")
    if samples < 1 or not 0 < level < 100:
        raise ValueError(f"samples ({samples}) must be >= 1, level ({level}) in (0, 100)")
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW:  # hits and misses, mostly
        means = generator.multinomial(len(values), counts / len(values), size=samples) @ distinct / len(values)
    else:
        means = _drawn_means(values, samples, generator)
    low, high = np.percentile(means, [(100 - level) / 2, (100 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def _drawn_means(values: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    """float64 [samples]: the means of as many values as there are, drawn with replacement."""
    step = max(1, _BLOCK // len(values))
    return np.concatenate(
        [
            values[generator.integers(len(values), size=(min(step, samples - done), len(values)))].mean(axis=1)
            for done in range(0, samples, step)
        ]
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same queries.

    Attributes:
        first, second: their means.
        difference: second less first, with its interval.
        decided: the interval leaves out 0: at this level the two differ.
    """

    first: float
    second: float
    difference: Interval

    @property
    def decided(self) -> bool:
        return self.difference.low > 0 or self.difference.high < 0


def compare(first: np.ndarray, second: np.ndarray, *, samples: int = SAMPLES, level: float = LEVEL) -> Comparison:
    """Paired bootstrap: the same queries are drawn for both, so what makes a query hard for both cancels out.

    Args:
        first, second: float [Q], of the same queries in the same order.
        samples, level: see `bootstrap`.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"first {list(np.shape(first))} and second {list(np.shape(second))} must match")
    before, after = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return Comparison(
        float(before.mean()), float(after.mean()), bootstrap(after - before, samples=samples, level=level)
    )
