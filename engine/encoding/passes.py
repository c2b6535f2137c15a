"""Super images of many videos in, embeddings float32 [B, D] out: passes of one batch size, several of them in flight.

A batch is filled while others are in the model, so the encoder need not wait for whoever fills it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime

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
        """The embeddings of the oldest pass, float32 [rows, D]; waits for it."""

    def close(self) -> None:
        """Drops what is in flight."""


class CpuPasses:
    """Passes through a session on the CPU, in a thread beside the caller's.

    Args:
        session: of the image graph.
        batch_size: rows of a batch, >= 1; a shorter last batch runs as it is.
        image_size: S.
        embed_dim: D.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, batch_size: int, *, image_size: int, embed_dim: int
    ) -> None:
        self.batch_size, self.depth, self.busy_s = batch_size, DEPTH, 0.0
        self._session = session
        self._embed_dim = embed_dim
        shape = (batch_size, image_size, image_size, 3)
        self._free = [np.zeros(shape, np.uint8) for _ in range(self.depth + 1)]
        self._filling = self._free.pop()
        self._flying: collections.deque[tuple[concurrent.futures.Future[tuple[np.ndarray, float]], np.ndarray]]
        self._flying = collections.deque()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="encoder")

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    @property
    def ready(self) -> bool:
        return bool(self._flying) and self._flying[0][0].done()

    def put(self, images: np.ndarray | torch.Tensor, row: int) -> None:
        self._filling[row : row + len(images)] = np.asarray(images)

    def launch(self, rows: int) -> None:
        assert self.in_flight < self.depth
        self._flying.append((self._thread.submit(self._run, self._filling[:rows]), self._filling))
        self._filling = self._free.pop()

    def collect(self) -> np.ndarray:
        pending, images = self._flying[0]
        embeddings, seconds = pending.result()
        self._flying.popleft()
        self._free.append(images)
        self.busy_s += seconds
        return embeddings

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        began = time.perf_counter()
        embeddings = np.empty((len(images), self._embed_dim), np.float32)
        addresses = images.ctypes.data, embeddings.ctypes.data
        binding = bound(self._session, ("cpu", 0), addresses[0], images.shape, addresses[1], embeddings.shape)
        self._session.run_with_iobinding(binding)
        return embeddings, time.perf_counter() - began


def bound(
    session: onnxruntime.InferenceSession,
    device: tuple[str, int],
    images_address: int,
    images_shape: tuple[int, ...],
    embeddings_address: int,
    embeddings_shape: tuple[int, ...],
) -> onnxruntime.IOBinding:
    """The image graph bound to memory of the caller's: uint8 images in, float32 embeddings out, nothing is copied.

    Args:
        device: ONNX Runtime's name of the device whose memory it is, and its number.
        images_address, embeddings_address: of contiguous memory that outlives the binding's runs.
    """
    binding = session.io_binding()
    binding.bind_input("super_images", *device, np.uint8, images_shape, images_address)
    binding.bind_output("embeddings", *device, np.float32, embeddings_shape, embeddings_address)
    return binding
