"""The contract of passes: super images of many videos in, their embeddings float32 out, several batches in flight.

A batch is filled while others are in the model, so the encoder need not wait for whoever fills it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

DEPTH = 2


class Passes(Protocol):
    """Fill a batch with put(), start it with launch(), get its embeddings with collect(), in the order of launches.

    Attributes:
        batch_size: rows of a batch.
        depth: passes that may be in flight when launch() is called, plus one.
        busy_s: seconds that the model has spent on the passes that were collected.
    """

    batch_size: int
    depth: int
    busy_s: float

    @property
    def in_flight(self) -> int:
        """Passes launched and not collected."""

    @property
    def ready(self) -> bool:
        """collect() would not wait."""

    def put(self, images: np.ndarray | torch.Tensor, row: int) -> None:
        """Copies uint8 [B, S, S, 3] into the batch that is being filled, from `row` on."""

    def launch(self, rows: int) -> None:
        """Starts the pass of the first `rows` rows; the next put() begins another batch. Needs in_flight < depth."""

    def collect(self) -> np.ndarray:
        """The embeddings of the oldest pass, float32 [rows, D], with cells [rows, 1 + cells, D]; waits for it."""

    def close(self) -> None:
        """Drops what is in flight."""
