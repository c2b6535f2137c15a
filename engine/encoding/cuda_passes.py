"""Super images in a GPU's or the host's memory in, their embeddings float32 out: passes on one of torch's streams."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import onnxruntime
import torch

from .image_graph import ImageGraph
from .passes import DEPTH


@dataclasses.dataclass
class _Slot:
    """The memory of one batch.

    Attributes:
        images: uint8 [B, S, S, 3] on the GPU; the same addresses in every pass, as CUDA graphs need.
        host_images: the same in page-locked memory, for rows that come from the CPU.
        embeddings: float32 [B, *row_shape] on the GPU.
        host_embeddings: the same in page-locked memory.
        began, ended: events around the pass.
        held: tensors of others that are still being copied.
        rows: rows that count.
    """

    images: torch.Tensor
    host_images: torch.Tensor
    embeddings: torch.Tensor
    host_embeddings: torch.Tensor
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions
    began: torch.cuda.Event
    ended: torch.cuda.Event
    held: list[torch.Tensor] = dataclasses.field(default_factory=list)
    rows: int = 0


class CudaPasses:
    """Passes through a graph whose compute stream is `stream`; see passes.Passes.

    Every pass has the full batch size, the last one padded with what its memory held before: fixed shapes keep ONNX
    Runtime's kernels and memory as they are, and one CUDA graph serves all passes of a slot.

    Args:
        graph: the image graph, its session made with user_compute_stream.
        stream: that stream.
        batch_size: rows of a batch, >= 1.
        cuda_graph: the session was made with enable_cuda_graph; each slot gets a graph of its own.
    """

    def __init__(self, graph: ImageGraph, stream: torch.cuda.Stream, batch_size: int, *, cuda_graph: bool) -> None:
        self.batch_size, self.depth, self.busy_s = batch_size, DEPTH, 0.0
        self._graph = graph
        self._stream = stream
        torch.cuda.set_device(stream.device)  # page-locked memory is taken in the context of the current GPU
        self._constants = {
            name: torch.as_tensor(constant, device=stream.device) for name, constant in graph.constants.items()
        }
        self._free = [self._slot(number, cuda_graph) for number in range(self.depth + 1)]
        self._filling = self._free.pop()
        self._flying: collections.deque[_Slot] = collections.deque()
        self._warm_up(2 if cuda_graph else 1)

    def _warm_up(self, runs: int) -> None:
        """Runs every slot: kernels are chosen and memory is taken before DALI takes the rest.

        The second run of a slot records its CUDA graph, which fails if another thread allocates memory meanwhile.
        """
        for slot in [*self._free, self._filling]:
            for _ in range(runs):
                self._graph.session.run_with_iobinding(slot.binding, slot.options)
        self._stream.synchronize()

    def _slot(self, number: int, cuda_graph: bool) -> _Slot:
        device, rows = self._stream.device, self.batch_size
        images_shape, embeddings_shape = self._graph.images_shape(rows), self._graph.embeddings_shape(rows)
        images = torch.zeros(images_shape, dtype=torch.uint8, device=device)
        embeddings = torch.zeros(embeddings_shape, dtype=torch.float32, device=device)
        options = onnxruntime.RunOptions()
        # Whoever needs the embeddings waits for the slot's event, not for the whole device after every pass.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if cuda_graph:
            options.add_run_config_entry("gpu_graph_id", str(number + 1))
        return _Slot(
            images=images,
            host_images=torch.zeros(images_shape, dtype=torch.uint8, pin_memory=True),
            embeddings=embeddings,
            host_embeddings=torch.zeros(embeddings_shape, dtype=torch.float32, pin_memory=True),
            binding=self._graph.bind(
                rows,
                ("cuda", device.index),
                images.data_ptr(),
                embeddings.data_ptr(),
                **{name: constant.data_ptr() for name, constant in self._constants.items()},
            ),
            options=options,
            began=torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            ended=torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
        )

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    @property
    def ready(self) -> bool:
        return bool(self._flying) and self._flying[0].ended.query()  # type: ignore[no-untyped-call]

    def put(self, images: np.ndarray | torch.Tensor, row: int) -> None:
        slot = self._filling
        target = slice(row, row + len(images))
        if isinstance(images, torch.Tensor) and images.is_cuda:
            source = images
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        else:
            slot.host_images[target] = torch.as_tensor(images)
            source = slot.host_images[target]
        with torch.cuda.stream(self._stream):
            slot.images[target].copy_(source, non_blocking=True)
        slot.held.append(source)  # DALI must not have its memory back before the copy has run

    def launch(self, rows: int) -> None:
        assert self.in_flight < self.depth
        slot, self._filling = self._filling, self._free.pop()
        slot.rows = rows
        with torch.cuda.stream(self._stream):
            slot.began.record(self._stream)
            self._graph.session.run_with_iobinding(slot.binding, slot.options)
            slot.host_embeddings.copy_(slot.embeddings, non_blocking=True)
            slot.ended.record(self._stream)
        self._flying.append(slot)

    def collect(self) -> np.ndarray:
        slot = self._flying[0]
        slot.ended.synchronize()
        self._flying.popleft()
        self.busy_s += slot.began.elapsed_time(slot.ended) / 1000
        slot.held.clear()
        self._free.append(slot)
        return slot.host_embeddings[: slot.rows].numpy().copy()

    def close(self) -> None:
        self._stream.synchronize()
