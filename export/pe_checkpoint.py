"""The weights of a PE-Core checkpoint under Meta's names in, a torch PE-Core model out."""

from __future__ import annotations

import functools
import math
import re

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import GridClipError
from .clip_model import with_sizes
from .pe_model import PeConfig, PeCore
from .positions import resize_text_positions
from .weights import Weights, assembled, count_layers, fit_tensors

_POSITIONS = "visual.positional_embedding"
_CLASS_TOKEN = "visual.class_embedding"

# Heads are 64 wide in all models but the largest, PE-Core-G14-448.
_HEAD_WIDTHS = {1536: 96}
# The configs of the models say it, not the weights: pixels scaled to -1..1.
_HALF = (0.5, 0.5, 0.5)

_POOL_NAMES = (
    (r"^visual\.attn_pool\.attn\.out_proj\.", "visual.attn_pool.out_proj."),
    (r"^visual\.attn_pool\.layernorm\.", "visual.attn_pool.norm."),
)


def read_config(weights: Weights) -> PeConfig:
    """The sizes of a model, off its weights.

    Raises:
        GridClipError: a tensor that tells them is missing, or they are of no PE-Core model.
    """
    tensors = weights.tensors
    try:
        width, _, patch_size, _ = tensors["visual.conv1.weight"].shape
        class_token = _CLASS_TOKEN in tensors
        grid = math.isqrt(len(tensors[_POSITIONS]) - class_token)
        vocab_size, text_width = tensors["token_embedding.weight"].shape
        return PeConfig(
            image_size=grid * patch_size,
            patch_size=patch_size,
            vision_width=width,
            vision_layers=count_layers(tensors, "visual.transformer.resblocks."),
            vision_heads=max(1, width // _HEAD_WIDTHS.get(width, 64)),
            text_width=text_width,
            text_layers=count_layers(tensors, "transformer.resblocks."),
            text_heads=max(1, text_width // 64),
            context_length=len(tensors["positional_embedding"]),
            vocab_size=vocab_size,
            embed_dim=tensors["visual.proj"].shape[1],
            activation="gelu",
            vision_mlp_width=len(tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
            text_mlp_width=len(tensors["transformer.resblocks.0.mlp.c_fc.weight"]),
            image_mean=_HALF,
            image_std=_HALF,
            class_token=class_token,
            pool_mlp_width=len(tensors["visual.attn_pool.mlp.c_fc.weight"]),
        )
    except KeyError as error:
        raise GridClipError(f"{weights.path} is not a PE-Core checkpoint: missing {error.args[0]}") from None
    except (ValueError, IndexError) as error:
        raise GridClipError(f"{weights.path} is not a PE-Core checkpoint: {error}") from None


def build_model(
    weights: Weights, config: PeConfig, *, image_size: int | None = None, context_length: int | None = None
) -> PeCore:
    """Make the torch model, with positions interpolated where a size differs from the checkpoint's.

    Args:
        weights: what `read_weights` found.
        config: what `read_config` says of them, with the special tokens of the vocabulary.
        image_size: side of the super images in pixels; default: the checkpoint's.
        context_length: longest text in tokens; default: the checkpoint's.

    Raises:
        GridClipError: the first tensors that do not fit are named; or a size does not suit the model.
    """
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in PeCore(config).state_dict().items()}
    tensors = fit_tensors(_own_names(weights), shapes, f"{weights.path} is not a PE-Core checkpoint")
    old_grid = config.grid
    config = with_sizes(config, weights.path.name, image_size=image_size, context_length=context_length)
    if config.grid != old_grid:
        tensors[_POSITIONS] = _resize_positions(tensors[_POSITIONS], old_grid, config.grid)
    tensors["positional_embedding"] = resize_text_positions(tensors["positional_embedding"], config.context_length)
    return assembled(functools.partial(PeCore, config), tensors)


def _resize_positions(positions: Tensor, old: int, grid: int) -> Tensor:
    """Positions for grid x grid patches, bilinear as in the model's own code; rotations are computed anew."""
    before = len(positions) - old**2
    image = positions[before:].T.reshape(1, -1, old, old)
    image = F.interpolate(image, size=(grid, grid), mode="bilinear", align_corners=False)
    return torch.cat([positions[:before], image.flatten(2)[0].T])


def _own_names(weights: Weights) -> dict[str, Tensor]:
    """Meta's names, but with the pooling's projections apart: its query does not depend on the image."""
    state_dict: dict[str, Tensor] = {}
    for old, tensor in weights.tensors.items():
        if packed := re.fullmatch(r"visual\.attn_pool\.attn\.in_proj_(weight|bias)", old):
            width = len(tensor) // 3
            state_dict[f"visual.attn_pool.query.{packed[1]}"] = tensor[:width]
            state_dict[f"visual.attn_pool.keys_values.{packed[1]}"] = tensor[width:]
            continue
        key = old
        for pattern, replacement in _POOL_NAMES:
            key = re.sub(pattern, replacement, key)
        if key != "attn_mask":
            state_dict[key] = tensor
    return state_dict
