"""Super images in the host's memory in, their embeddings float32 out: passes on the CPU, in a thread of their own."""

from __future__ import annotations

import collections
import concurrent.futures
import time
from typing import TYPE_CHECKING

import numpy as np

from .image_graph import ImageGraph
from .passes import DEPTH
from .runtime_errors import explain_runtime_errors

if TYPE_CHECKING:
    import torch


class CpuPasses:
    """Passes through a graph on the CPU, in a thread beside the caller's; see passes.Passes.

    Args:
        graph: the image graph.
        batch_size: rows of a batch, >= 1; a shorter last batch runs as it is.
    """

    def __init__(self, graph: ImageGraph, batch_size: int) -> None:
        self.batch_size, self.depth, self.busy_s = batch_size, DEPTH, 0.0
        self._graph = graph
        self._free = [np.zeros(graph.images_shape(batch_size), np.uint8) for _ in range(self.depth + 1)]
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
        embeddings = np.empty(self._graph.embeddings_shape(len(images)), np.float32)
        constants = {name: constant.ctypes.data for name, constant in self._graph.constants.items()}
        binding = self._graph.bind(len(images), ("cpu", 0), images.ctypes.data, embeddings.ctypes.data, **constants)
        with explain_runtime_errors():
            self._graph.session.run_with_iobinding(binding)
        return embeddings, time.perf_counter() - began
