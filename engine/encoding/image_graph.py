"""A session of an image graph and what it takes beside super images in; how to run it on memory of the caller's out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnxruntime

from .runtime_errors import explain_runtime_errors


@dataclasses.dataclass(frozen=True)
class ImageGraph:
    """An image graph, loaded.

    Attributes:
        session: of the graph.
        image_size: S.
        row_shape: shape of what it gives for each super image: (D,), or (1 + cells, D).
        constants: its inputs beside "super_images" by name, the same in every pass.
    """

    session: onnxruntime.InferenceSession
    image_size: int
    row_shape: tuple[int, ...]
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def images_shape(self, rows: int) -> tuple[int, ...]:
        """Shape of its input uint8 for that many super images."""
        return rows, self.image_size, self.image_size, 3

    def embeddings_shape(self, rows: int) -> tuple[int, ...]:
        """Shape of its output float32 for that many super images."""
        return rows, *self.row_shape

    def run(self, super_images: np.ndarray) -> np.ndarray:
        """One batch uint8 [B, S, S, 3] in the host's memory, to float32 [B, *row_shape]."""
        inputs = {"super_images": np.ascontiguousarray(super_images), **self.constants}
        with explain_runtime_errors():
            embeddings: np.ndarray = self.session.run(["embeddings"], inputs)[0]
        return embeddings

    def bind(
        self, rows: int, device: tuple[str, int], images_address: int, embeddings_address: int, **constants: int
    ) -> onnxruntime.IOBinding:
        """Bind it to memory of the caller's: nothing is copied.

        Args:
            rows: super images in that memory.
            device: ONNX Runtime's name of the device whose memory it is, and its number.
            images_address, embeddings_address: of contiguous memory that outlives the binding's runs.
            constants: the addresses of copies of `constants` there, the same.
        """
        binding = self.session.io_binding()
        binding.bind_input("super_images", *device, np.uint8, self.images_shape(rows), images_address)
        for name, address in constants.items():
            constant = self.constants[name]
            binding.bind_input(name, *device, constant.dtype.type, constant.shape, address)
        binding.bind_output("embeddings", *device, np.float32, self.embeddings_shape(rows), embeddings_address)
        return binding
