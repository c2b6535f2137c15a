"""A model's sizes in, operations per image out; and the large matrix product whose rate is the peak to take shares of.

The share of the peak that a runtime reaches is images per second times operations per image, over the rate at which
one large matrix product runs on the same cores (or GPU) in the same run, in turns with the runtimes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ..export.clip_model import ClipConfig

CPU_SIDE = 4096  # 64 MiB a matrix in fp32: larger than most caches, about a second on two cores
CUDA_SIDE = 8192
CUDA_CALLS = 20  # one alone is too short to time


def flop_per_image(config: ClipConfig) -> int:
    """Operations of one image's pass through a ViT, a multiplication and an addition counted as two.

    With n = patches + 1 tokens, width W, hidden width H, patches of p x p pixels, E the embedding's width:

        patches * 2 * 3 p^2 W  +  layers * (2 n W (3 W + W + 2 H) + 4 n^2 W)  +  2 W E

    that is the patch projection; per layer the query, key and value, the output projection, the two layers of the MLP,
    and the two products of attention; the last projection. Norms and activations, under 1%, are left out. ViT-L/14 has
    162 GFLOP at 224 pixels and 382 at 336. It is the model's work, whoever runs it: GridCLIP's graphs need 1/36 less,
    because after the last layer's attention they go on with the class token alone.
    """
    patches = config.grid**2
    tokens, width = patches + 1, config.vision_width
    patch_projection = 2 * patches * 3 * config.patch_size**2 * width
    linear = 2 * tokens * width * (4 * width + 2 * config.vision_mlp_width)
    attention = 4 * tokens**2 * width
    return patch_projection + config.vision_layers * (linear + attention) + 2 * width * config.embed_dim


@dataclasses.dataclass(frozen=True)
class MatrixProduct:
    """What to time for the peak rate.

    Attributes:
        multiply: multiplies, and waits for the result.
        flop: operations of one call.
        side: rows and columns of the matrices.
    """

    multiply: Callable[[], None]
    flop: float
    side: int


def matrix_product(device: str, dtype: torch.dtype, side: int | None = None) -> MatrixProduct:
    """A large matrix product.

    Args:
        device: "cpu" or "cuda".
        dtype: of the matrices.
        side: default: CPU_SIDE or CUDA_SIDE.
    """
    side = side or (CPU_SIDE if device == "cpu" else CUDA_SIDE)
    calls = 1 if device == "cpu" else CUDA_CALLS
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(calls):
            torch.matmul(left, right, out=product)
        if device == "cuda":
            torch.cuda.synchronize()

    return MatrixProduct(multiply, 2.0 * side**3 * calls, side)
