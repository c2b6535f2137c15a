"""An indexed store and a query in, the videos that may answer it best out: those to be scored, and nothing shown.

What is near a query depends on how a video is scored: for the mean and at temperatures of about 1, it is a video whose
mean is near, for the max one with a near super image, and at small temperatures either. The other aggregates have no
index. Videos that came after the index was made are named apart: they are scored one and all.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import logging

import lance
import numpy as np

from ... import GridClipError
from ..scoring.scoring import Scoring
from ..store import tables
from ..store.reader import SuperImageReader
from .means import open_means, positions_of_means
from .vectors import Rows, nearest

logger = logging.getLogger(__name__)

Versions = tuple[tuple[str, int], ...]  # tables, and which version of each

MEANS_FROM = 0.5  # temperature of the softmax: from here on means alone are asked
ROWS_PER_VIDEO = 3  # super images that are asked for first, for each video that is wanted
MORE = 4  # times as many, where they are of too few videos


class IndexUnreadable(GridClipError):
    """The index is damaged; the store may be whole."""


def has_index(scoring: Scoring) -> bool:
    """Whether there can be an index for a way to score."""
    return bool(_parts(scoring))


def index_versions(reader: SuperImageReader, scoring: Scoring) -> Versions:
    """Of the newest tables that an index for a reader would be read from; another one after each `gridclip index`."""
    held = tables.Tables(reader.path)
    found = [(reader.dataset.uri, reader.dataset.version)] if _parts(scoring) else []
    if _of_means in _parts(scoring) and (means := open_means(held, reader)) is not None:
        found.append((means.uri, means.version))
    return tuple(found)


class Index:
    """What of a store's index fits one version of its videos and one way to score them.

    Attributes:
        uncovered: int64 [n], positions of the videos that it lacks, rising.
    """

    def __init__(self, reader: SuperImageReader, parts: collections.abc.Sequence[_Part]) -> None:
        self._reader, self._parts = reader, parts
        self._covered = np.logical_and.reduce([part.covered for part in parts])
        self.uncovered = np.flatnonzero(~self._covered)

    @classmethod
    def open(cls, reader: SuperImageReader, scoring: Scoring) -> Index | None:
        """None where a part is missing that this way to score needs, or has none of the videos."""
        held = tables.Tables(reader.path)
        parts: list[_Part] = []
        try:
            for make in _parts(scoring):
                part = make(held, reader)
                if part is None or not part.covered.any():
                    return None
                parts.append(part)
        except (OSError, ValueError, GridClipError) as error:
            logger.warning("the index of the store %s cannot be read: %s", reader.path, error)
            return None
        return cls(reader, parts) if parts else None

    def candidates(self, query: np.ndarray, count: int) -> np.ndarray:
        """int64 [n]: positions of about `count` videos that the index has, rising.

        Args:
            query: float32 [D].
            count: from each part of the index, as far as it has so many.

        Raises:
            IndexUnreadable: it is damaged.
        """
        with _reading(self._reader):
            found = np.unique(np.concatenate([part.candidates(query, count) for part in self._parts]))
        both: np.ndarray = found[self._covered[found]]  # one part may have videos that another one lacks
        return both


@dataclasses.dataclass(frozen=True)
class _Part:
    """One indexed table.

    Attributes:
        dataset, rows: of one version.
        owners: rows int64 [n] in, positions of their videos out, -1 where they have none.
        covered: bool [V], which of the videos it has.
        rows_per_video: that are asked for first.
    """

    dataset: lance.LanceDataset
    rows: Rows
    owners: collections.abc.Callable[[np.ndarray], np.ndarray]
    covered: np.ndarray
    rows_per_video: int

    def candidates(self, query: np.ndarray, count: int) -> np.ndarray:
        """int64: positions of the `count` videos whose rows seem nearest."""
        asked = count * self.rows_per_video
        while True:
            rows = nearest(self.dataset, query, asked, self.rows)
            owners = self.owners(rows)
            videos, first = np.unique(owners[owners >= 0], return_index=True)
            if len(videos) >= count or len(rows) < asked:
                return videos[np.argsort(first)][:count]
            asked *= MORE


Opener = collections.abc.Callable[[tables.Tables, SuperImageReader], _Part | None]  # None where there is none


def _parts(scoring: Scoring) -> list[Opener]:
    if scoring.aggregate == "mean":
        return [_of_means]
    if scoring.aggregate == "max":
        return [_of_super_images]
    if scoring.aggregate != "softmax":
        return []
    return [_of_means] if scoring.temperature >= MEANS_FROM else [_of_means, _of_super_images]


def _of_means(held: tables.Tables, reader: SuperImageReader) -> _Part | None:
    means = open_means(held, reader)
    rows = None if means is None else Rows.of(means)
    if means is None or rows is None:
        return None
    owners = positions_of_means(held, means, reader)
    covered = np.zeros(len(reader.videos), bool)
    known = np.flatnonzero(owners >= 0)
    covered[owners[known[rows.are_covered(known)]]] = True
    return _Part(means, rows, owners.__getitem__, covered, rows_per_video=1)


def _of_super_images(held: tables.Tables, reader: SuperImageReader) -> _Part | None:
    rows = Rows.of(reader.dataset)
    if rows is None:
        return None
    videos = reader.videos
    covered = rows.are_covered(videos.begins) & rows.are_covered(videos.begins + videos.sizes - 1)
    return _Part(reader.dataset, rows, reader.owners, covered, ROWS_PER_VIDEO)


@contextlib.contextmanager
def _reading(reader: SuperImageReader) -> collections.abc.Iterator[None]:
    try:
        yield
    except (OSError, ValueError, GridClipError) as error:
        raise IndexUnreadable(
            f"the index of the store {reader.path} cannot be read: {error}; search without it, `index='exact'`, or "
            "make it anew with gridclip index"
        ) from error
