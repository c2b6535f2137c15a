"""The weights of an EVA-CLIP checkpoint in, a torch EVA-CLIP model out."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import GridClipError
from .clip_model import with_sizes
from .eva_layouts import find_layout
from .eva_model import EvaClip, EvaConfig
from .positions import resize_image_positions, resize_text_positions
from .weights import Weights, assembled, count_layers, fit_tensors

_POSITIONS = "visual.positional_embedding"
# Of length 1, which checkpoints have before the axes of `EvaClip`.
_LEADING_AXES = {"visual.class_embedding": (1, 1), _POSITIONS: (1,)}
_HEAD_WIDTH = 64

# What open_clip_config.json may say of each tower. Much of the rest leaves no trace in the weights, so a key that is
# not known here is refused, and so is another value of these.
_KNOWN_KEYS = {
    "vision_cfg": {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
_KNOWN_POOL = "token"
_KNOWN_TRUNK = r"eva02_\w+_clip_\d+"

# BAAI's checkpoints carry the tables of their rotation along; in fp16 they are exact to 5e-4.
_TABLE = re.compile(r"^visual\.(?:blocks\.\d+\.attn\.)?rope\.freqs_(cos|sin)$")
_TABLE_TOLERANCE = 1e-2


def read_config(weights: Weights) -> EvaConfig:
    """The sizes of a model, off its weights; mean, standard deviation and heads off the config beside them, if any.

    Raises:
        GridClipError: a tensor that tells them is missing, or they are of no EVA-CLIP model of the second generation.
    """
    layout = find_layout(weights.tensors)

    def tensor(name: str) -> Tensor:
        return weights.tensors[layout.parts(name)[0] or ""]

    try:
        width, _, patch_size, _ = tensor("visual.conv1.weight").shape
        grid = math.isqrt(tensor(_POSITIONS).shape[-2] - 1)
        vocab_size, text_width = tensor("token_embedding.weight").shape
        config = EvaConfig(
            image_size=grid * patch_size,
            patch_size=patch_size,
            vision_width=width,
            vision_layers=count_layers(weights.tensors, "visual.trunk.blocks." if layout.trunk else "visual.blocks."),
            vision_heads=max(1, width // _HEAD_WIDTH),
            text_width=text_width,
            text_layers=count_layers(weights.tensors, f"{layout.text}transformer.resblocks."),
            text_heads=max(1, text_width // _HEAD_WIDTH),
            context_length=len(tensor("positional_embedding")),
            vocab_size=vocab_size,
            embed_dim=len(tensor("visual.head.weight")),
            activation="gelu",
            vision_mlp_width=len(tensor("visual.blocks.0.mlp.c_fc.weight")),
            text_mlp_width=len(tensor("transformer.resblocks.0.mlp.c_fc.weight")),
        )
    except KeyError as error:
        raise GridClipError(f"{weights.path} is not an EVA02-CLIP checkpoint: missing {error.args[0]}") from None
    except (ValueError, IndexError, TypeError) as error:
        raise GridClipError(f"{weights.path} is not an EVA02-CLIP checkpoint: {error}") from None
    return _with_sidecar(weights, config)


def build_model(
    weights: Weights, config: EvaConfig, *, image_size: int | None = None, context_length: int | None = None
) -> EvaClip:
    """Make the torch model, with positions interpolated where a size differs from the checkpoint's.

    Args:
        weights: what `read_weights` found.
        config: what `read_config` says of them, with the special tokens of the vocabulary.
        image_size: side of the super images in pixels; default: the checkpoint's.
        context_length: longest text in tokens; default: the checkpoint's.

    Raises:
        GridClipError: the first tensors that do not fit are named; or a size does not suit the model.
    """
    tensors = _own_tensors(weights, config)
    config = with_sizes(config, weights.path.name, image_size=image_size, context_length=context_length)
    tensors[_POSITIONS] = resize_image_positions(tensors[_POSITIONS], config.grid)
    tensors["positional_embedding"] = resize_text_positions(tensors["positional_embedding"], config.context_length)
    return assembled(functools.partial(EvaClip, config), tensors)


def _own_tensors(weights: Weights, config: EvaConfig) -> dict[str, Tensor]:
    """The checkpoint's tensors, which must be these and no others, under the names of `EvaClip`."""
    layout, complaint = find_layout(weights.tensors), f"{weights.path} is not an EVA02-CLIP checkpoint"
    with torch.device("meta"):
        model = EvaClip(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    parts = {name: layout.parts(name) for name in shapes}
    expected = {
        part: _LEADING_AXES.get(name, ()) + ((shape[0] // len(parts[name]), *shape[1:]) if shape else ())
        for name, shape in shapes.items()
        for part in parts[name]
        if part is not None
    }
    found = {}
    for name, tensor in weights.tensors.items():
        if table := _TABLE.match(name):
            _check_table(tensor, model.visual.rotation.angles, table[1], f"{complaint}: {name}")
        elif name not in ("attn_mask", "text.attn_mask"):
            found[name] = tensor
    fitting = fit_tensors(found, expected, complaint)
    return {
        name: _joined([None if part is None else fitting[part] for part in parts[name]]).reshape(shape)
        for name, shape in shapes.items()
    }


def _joined(parts: list[Tensor | None]) -> Tensor:
    """One after the other, with zeros for those that the checkpoint does not have."""
    known = [part for part in parts if part is not None]
    return (
        known[0]
        if len(parts) == 1
        else torch.cat([torch.zeros_like(known[0]) if part is None else part for part in parts])
    )


def _check_table(table: Tensor, angles: Tensor, function: str, complaint: str) -> None:
    """Make sure that BAAI's table of cosines or sines [P, channels] is what the model's angles [1 + P, pairs] give."""
    expected = getattr(angles[1:], function)().repeat_interleave(2, dim=1)
    if table.shape != expected.shape or not torch.allclose(table.double(), expected, rtol=0, atol=_TABLE_TOLERANCE):
        raise GridClipError(f"{complaint} is of other rotary positions than those of {len(expected)} patches")


def _with_sidecar(weights: Weights, config: EvaConfig) -> EvaConfig:
    """The config with what open_clip_config.json says; raises GridClipError where that is not known here."""
    told = weights.read_config("open_clip_config.json")
    if told is None:
        return config
    try:
        return dataclasses.replace(config, **_sidecar_fields(told))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        file = weights.folder / "open_clip_config.json"
        raise GridClipError(f"{file} is not the config of an EVA02-CLIP model: {error!r}") from None


def _sidecar_fields(told: Mapping[str, Any]) -> dict[str, Any]:
    model = told["model_cfg"]
    for tower, known in _KNOWN_KEYS.items():
        for key, value in model[tower].items():
            if value and key not in known:
                raise ValueError(f"{tower}.{key} is {value!r}, which no EVA02-CLIP model has")
    vision = model["vision_cfg"]
    if not re.fullmatch(_KNOWN_TRUNK, vision["timm_model_name"]) or vision["timm_pool"] != _KNOWN_POOL:
        raise ValueError(
            f"vision_cfg is of {vision['timm_model_name']!r}, pooled by {vision['timm_pool']!r}; expected an EVA02 "
            f"model, pooled by {_KNOWN_POOL!r}"
        )
    if vision.get("timm_proj") or model.get("quick_gelu"):
        raise ValueError("vision_cfg.timm_proj and quick_gelu must be left out")
    fields: dict[str, Any] = {}
    if "heads" in model["text_cfg"]:
        fields["text_heads"] = model["text_cfg"]["heads"]
    preprocessing = told.get("preprocess_cfg", {})
    for field, key in (("image_mean", "mean"), ("image_std", "std")):
        if key in preprocessing:
            fields[field] = tuple(map(float, preprocessing[key]))
    return fields
