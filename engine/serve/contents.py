"""A store that may grow in; its counts, its videos' ids and their embeddings out."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from ..jobs.failures import failures_path
from ..store.reader import SuperImageReader
from .live import Counts


class Contents:
    """The newest version of a store that was asked for; several threads may ask at once.

    Args:
        reader: of the level and grid size that are searched.
    """

    def __init__(self, reader: SuperImageReader) -> None:
        self._reader = reader

    def refresh(self) -> None:
        """Follows the store to its newest version; raises GridClipError as the reader does."""
        self._reader = self._reader.newest()

    def count(self) -> Counts:
        """Videos, their embeddings, and what the last job has lost so far."""
        reader = self._reader
        return Counts(len(reader.videos), reader.rows, _lines(failures_path(reader.path)))

    def video_ids(self) -> list[str]:
        names: list[str] = self._reader.videos.names.to_pylist()
        return names

    def read(self, video_ids: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The embeddings of videos in time order, float16 [L, D] each, and their spans, float64 [L, 2] in seconds.

        Raises:
            KeyError: the store has no such video.
        """
        reader = self._reader
        positions = []
        for video_id in video_ids:
            position = reader.videos.position(video_id)
            if position is None:
                raise KeyError(video_id)
            positions.append(position)
        if not positions:
            return []
        rows, spans = reader.read(np.array(positions))
        parts = zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
        # Copies, so that a kept video does not keep its neighbours.
        return [(rows.vectors[first:last].copy(), spans[first:last].copy()) for first, last in parts]


def _lines(path: pathlib.Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0
