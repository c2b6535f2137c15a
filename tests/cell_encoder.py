"""An encoder whose vectors of super images and cells a test can compute by hand: mean colours, as fake_model's."""

from __future__ import annotations

import fake_model
import numpy as np
from gridclip.engine.encoding.encoder import Encoder


class CellPasses:
    """What passes.Passes asks for, on the spot: the super image's vector, then its cells', row by row."""

    depth = 2
    busy_s = 0.0

    def __init__(self, batch_size: int, cells: int) -> None:
        self.batch_size, self._cells = batch_size, cells
        self._images = np.zeros((batch_size, fake_model.SIZE_PX, fake_model.SIZE_PX, 3), np.uint8)
        self._done: list[np.ndarray] = []

    @property
    def in_flight(self) -> int:
        return len(self._done)

    @property
    def ready(self) -> bool:
        return len(self._done) > 1  # the newest one takes its time

    def put(self, images, row: int) -> None:
        self._images[row : row + len(images)] = np.asarray(images)

    def launch(self, rows: int) -> None:
        self._done.append(embeddings(self._images[:rows], self._cells))

    def collect(self) -> np.ndarray:
        return self._done.pop(0)

    def close(self) -> None:
        pass


class CellEncoder(Encoder):
    """fake_model's encoder, with cells."""

    def image_passes(self, batch_size: int, cells: int | None = None):
        return super().image_passes(batch_size) if cells is None else CellPasses(batch_size, cells)


def embeddings(images: np.ndarray, cells: int) -> np.ndarray:
    """float32 [B, 1 + cells^2, 3]."""
    side = images.shape[1] // cells
    pictures = [images] + [
        images[:, top * side : (top + 1) * side, left * side : (left + 1) * side]
        for top in range(cells)
        for left in range(cells)
    ]
    with np.errstate(invalid="ignore"):  # a black cell has no direction
        vectors = [fake_model.image_embedding(picture) for picture in pictures]
    return np.nan_to_num(np.stack(vectors, axis=1)).astype(np.float32)
