"""Super images in the host's memory in, embeddings float32 [B, D] out: passes on the CPU, in a thread of their own."""

from __future__ import annotations

import collections
import concurrent.futures
import time
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from .memory_binding import bind_memory
from .passes import DEPTH
from .runtime_errors import explain_runtime_errors

if TYPE_CHECKING:
    import torch


class CpuPasses:
    """Passes through a session on the CPU, in a thread beside the caller's; see passes.Passes.

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
        binding = bind_memory(self._session, ("cpu", 0), addresses[0], images.shape, addresses[1], embeddings.shape)
        with explain_runtime_errors():
            self._session.run_with_iobinding(binding)
        return embeddings, time.perf_counter() - began
