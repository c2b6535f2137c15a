"""Addresses of super images and of room for embeddings in, ONNX Runtime's binding to them out."""

from __future__ import annotations

import numpy as np
import onnxruntime


def bind_memory(
    session: onnxruntime.InferenceSession,
    device: tuple[str, int],
    images_address: int,
    images_shape: tuple[int, ...],
    embeddings_address: int,
    embeddings_shape: tuple[int, ...],
) -> onnxruntime.IOBinding:
    """Bind the image graph to memory of the caller's: uint8 images in, float32 embeddings out, nothing is copied.

    Args:
        device: ONNX Runtime's name of the device whose memory it is, and its number.
        images_address, embeddings_address: of contiguous memory that outlives the binding's runs.
    """
    binding = session.io_binding()
    binding.bind_input("super_images", *device, np.uint8, images_shape, images_address)
    binding.bind_output("embeddings", *device, np.float32, embeddings_shape, embeddings_address)
    return binding
