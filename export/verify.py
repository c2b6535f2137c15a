"""A torch model and its exported graphs in, the smallest cosine between their embeddings out.

The images are four super images (2 x 2 frames, 336 pixels, JPEG quality 75) in `verify_images/`, cut from the videos
"crystal" and "rabbit320" of MDN's learning area (github.com/mdn/learning-area), which are in the public domain (CC0).
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from .. import GridClipError
from .family import TorchCells, TorchModel
from .graph_writer import count_fused_attention
from .model_info import ModelFacts

logger = logging.getLogger(__name__)

# Cells per row and column of the check: the second one has cells with unequal numbers of patches at most sizes.
CELLS = (2, 3)

# Rounding alone costs about 1e-6 (fp32) or 1e-4 (fp16); 8-bit activations cost up to some percent.
SMALLEST_COSINE = {"fp32": 0.999, "fp16": 0.999, "int8": 0.98}

CAPTIONS = (
    "a man is seen speaking to the camera while holding a tennis racket",
    "two children play in the snow and throw snowballs at each other",
    "a rabbit comes out of its burrow and stretches",
    "she adds the chopped onions to the pan, then stirs.",
    "crystal",
    (
        "the camera pans over a large crowd that watches a parade of people who dance and play drums in colourful "
        "costumes along a wide street, and in the end several of them wave at the camera, turn around and slowly walk "
        "away"
    ),
)


class DiffersFromTorch(GridClipError):
    """An exported graph is not the model that it was made from."""


def compare_with_torch(model: TorchModel, folder: pathlib.Path, precision: str) -> dict[str, float]:
    """Compare the graphs of a model folder with the torch model.

    Returns:
        The smallest cosine under "image" and "text", and under "image_cells" where there is such a graph.

    Raises:
        DiffersFromTorch: a cosine is too small for the precision.
    """
    cosines = {}
    with torch.inference_mode():
        images = verify_images(model.facts.image_size)
        expected = F.normalize(model.embed_images(torch.from_numpy(images)), dim=-1)
        cosines["image"] = _smallest_cosine(folder / "image.onnx", expected, super_images=images)
        token_ids = verify_token_ids(model)
        expected = F.normalize(model.embed_texts(torch.from_numpy(token_ids)), dim=-1)
        cosines["text"] = _smallest_cosine(folder / "text.onnx", expected, token_ids=token_ids)
        if model.cells is not None:
            cosines["image_cells"] = _smallest_cells_cosine(model.facts, model.cells, folder, images)
    logger.info("smallest cosine to torch: %s", ", ".join(f"{name} {cosine:.6f}" for name, cosine in cosines.items()))
    for graph, cosine in cosines.items():
        if not cosine >= SMALLEST_COSINE[precision]:  # also catches NaN
            raise DiffersFromTorch(
                f"the {precision} {graph} graph differs from torch: smallest cosine {cosine:.6f}, expected at least "
                f"{SMALLEST_COSINE[precision]}; no model folder was written. Export with a finer precision (fp32)"
            )
    return cosines


def hard_to_quantise(model: TorchModel, limit: float) -> list[torch.Tensor]:
    """The weights of linear layers whose inputs have outliers, which 8 bits per value would drown the rest with.

    One scale serves all values that enter a layer, so the rounding error grows with their range; what it does to the
    result depends on their root mean square. Normal values have a ratio of about 10.

    Args:
        model: the torch model; the images and captions of the check go through it.
        limit: ratio of range to root mean square from which on a layer is hard.
    """
    ratios: dict[torch.Tensor, float] = {}

    def record(weight: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            spread = (inputs[0].max() - inputs[0].min()) / inputs[0].square().mean().sqrt()
            ratios[weight] = max(float(spread), ratios.get(weight, 0.0))

        return hook

    hooks = [layer.register_forward_pre_hook(record(weight)) for layer, weight in model.linear_layers()]
    try:
        with torch.inference_mode():
            model.embed_images(torch.from_numpy(verify_images(model.facts.image_size)))
            model.embed_texts(torch.from_numpy(verify_token_ids(model)))
    finally:
        for hook in hooks:
            hook.remove()
    return [weight for weight, ratio in ratios.items() if ratio >= limit]


def check_fused_attention(model: TorchModel, folder: pathlib.Path) -> dict[str, int]:
    """Count the fused attention nodes of both graphs, and make sure that every layer has one, also in that with cells.

    Returns:
        The counts of "image" and "text".
    """
    counts = {name: count_fused_attention(folder / f"{name}.onnx") for name in ("image", "text")}
    layers = dict(model.attention_layers)
    if counts != layers:
        raise GridClipError(f"the graphs have {counts} fused attention nodes, expected one per layer: {layers}")
    if model.cells is not None:
        count = count_fused_attention(folder / "image_cells.onnx")
        if count != model.cells.attention_nodes:
            raise GridClipError(
                f"the graph with cells has {count} fused attention nodes, expected {model.cells.attention_nodes}"
            )
    return counts


def verify_images(image_size: int) -> np.ndarray:
    """The four super images, uint8 [4, S, S, 3]."""
    files = sorted((pathlib.Path(__file__).parent / "verify_images").glob("*.jpg"))
    size = (image_size, image_size)
    return np.stack(
        [np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC)) for file in files]
    )


def verify_token_ids(model: TorchModel) -> np.ndarray:
    """CAPTIONS as token ids, int64 [6, context_length]; long ones are truncated, the end token kept."""
    encodings = model.tokenizer.encode_batch(list(CAPTIONS), add_special_tokens=False)
    return np.array([model.facts.make_token_row(encoding.ids) for encoding in encodings], np.int64)


def _smallest_cells_cosine(facts: ModelFacts, model: TorchCells, folder: pathlib.Path, images: np.ndarray) -> float:
    path, cosines = folder / "image_cells.onnx", []
    for cells in CELLS:
        if facts.allows_cells(cells):
            expected = F.normalize(model.embed(torch.from_numpy(images), cells), dim=-1)
            patches = facts.cell_patches(cells)
            cosines.append(_smallest_cosine(path, expected, super_images=images, cell_patches=patches))
    return min(cosines)


def _smallest_cosine(path: pathlib.Path, expected: torch.Tensor, **inputs: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, inputs)
    # Both have unit length already; a graph that does not normalise must not pass for one that does.
    return float((torch.from_numpy(embeddings) * expected).sum(dim=-1).min())
