"""The weights of a SigLIP or SigLIP 2 checkpoint (a Hugging Face folder) in, a torch SigLIP model out."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import GridClipError
from .positions import check_image_size, resize_patch_positions
from .siglip_model import Siglip, SiglipConfig
from .weights import Weights, assembled, count_layers, fit_tensors

_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_PATCH_POSITIONS = "vision_model.embeddings.position_embedding.weight"
_TOKENS = "text_model.embeddings.token_embedding.weight"
_TOKEN_POSITIONS = "text_model.embeddings.position_embedding.weight"

# What transformers takes for a key that a tower's config leaves out, as those of the base models do.
_DEFAULT_HEADS = 12
_DEFAULT_IMAGE_SIZE_PX = 224


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextForm:
    """What the vocabulary decides of a row of tokens; see `SiglipConfig`."""

    end_token: int
    pad_token: int
    text_cleaning: str


def vocabulary_size(weights: Weights) -> int:
    """Rows of the token embedding."""
    return _shape(weights, _TOKENS, 2)[0]


def build_model(weights: Weights, form: TextForm, image_size: int | None = None) -> Siglip:
    """Make the torch model, with image positions interpolated where the size differs from the checkpoint's.

    Args:
        weights: what `read_weights` found; config.json must be beside them.
        form: what the vocabulary says.
        image_size: side of the super images in pixels; default: the checkpoint's.

    Raises:
        GridClipError: it is no SigLIP model of a fixed resolution (the first tensor that does not fit is named), or the
            image size does not suit it.
    """
    config = _read_config(weights, form)
    found = {key: value for key, value in weights.tensors.items() if not key.endswith("position_ids")}
    expected = dict(_expected_shapes(config))
    tensors = fit_tensors(found, expected, f"{weights.path} is not a SigLIP checkpoint of a fixed resolution")
    state_dict = _own_names(tensors, config)
    if image_size is not None and image_size != config.image_size:
        check_image_size(image_size, config.patch_size, weights.path.name)
        config = dataclasses.replace(config, image_size=image_size)
        state_dict["patch_positions"] = resize_patch_positions(state_dict["patch_positions"], config.grid)
    return assembled(functools.partial(Siglip, config), state_dict)


def _read_config(weights: Weights, form: TextForm) -> SiglipConfig:
    """Sizes off the weights; what leaves no trace in them from the configs beside them."""
    told = weights.read_config("config.json")
    if told is None:
        raise GridClipError(
            f"{weights.path} has no config.json beside its weights, and a SigLIP model's heads cannot be seen in them: "
            "pass the whole Hugging Face folder"
        )
    preprocessing = weights.read_config("preprocessor_config.json") or {}
    width, _, patch_size, _ = _shape(weights, _PATCHES, 4)
    positions, _ = _shape(weights, _PATCH_POSITIONS, 2)
    context_length, text_width = _shape(weights, _TOKEN_POSITIONS, 2)
    try:
        vision, text = _tower(told, "vision_config"), _tower(told, "text_config")
        config = SiglipConfig(
            image_size=int(vision.get("image_size", _DEFAULT_IMAGE_SIZE_PX)),
            patch_size=patch_size,
            width=width,
            layers=count_layers(weights.tensors, "vision_model.encoder.layers."),
            heads=int(vision.get("num_attention_heads", _DEFAULT_HEADS)),
            mlp_width=_shape(weights, "vision_model.head.mlp.fc1.weight", 2)[0],
            text_width=text_width,
            text_layers=count_layers(weights.tensors, "text_model.encoder.layers."),
            text_heads=int(text.get("num_attention_heads", _DEFAULT_HEADS)),
            text_mlp_width=_shape(weights, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            context_length=context_length,
            vocab_size=vocabulary_size(weights),
            **dataclasses.asdict(form),
            image_mean=_channels(preprocessing, "image_mean"),
            image_std=_channels(preprocessing, "image_std"),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise GridClipError(
            f"{weights.folder / 'config.json'} is not the config of a SigLIP model: {error!r}"
        ) from None
    for tower, tower_width, heads in (("vision", width, config.heads), ("text", text_width, config.text_heads)):
        if heads < 1 or tower_width % heads:
            raise GridClipError(
                f"{weights.folder / 'config.json'} says {heads} heads in the {tower} tower, which its width "
                f"{tower_width} is no multiple of"
            )
    if config.grid != math.isqrt(positions) or config.grid**2 != positions:
        raise GridClipError(
            f"{weights.path}: {_PATCH_POSITIONS} has {positions} positions, but an image of {config.image_size} pixels "
            f"has {config.grid} x {config.grid} patches of {patch_size}"
        )
    return config


def _tower(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A tower's part of config.json, after making sure that it says nothing that is not known here."""
    tower: Mapping[str, Any] = told.get(name) or {}
    for key, known in (("hidden_act", "gelu_pytorch_tanh"), ("layer_norm_eps", 1e-6), ("vision_use_head", True)):
        if tower.get(key, known) != known:
            raise ValueError(f"{name}.{key} is {tower[key]!r}, expected {known!r}")
    return tower


def _channels(preprocessing: Mapping[str, Any], name: str) -> tuple[float, ...]:
    return tuple(float(value) for value in preprocessing.get(name, (0.5, 0.5, 0.5)))


def _shape(weights: Weights, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in weights.tensors:
        raise GridClipError(f"{weights.path} is not a SigLIP checkpoint: missing {name}")
    shape = tuple(weights.tensors[name].shape)
    if len(shape) != dimensions:
        raise GridClipError(
            f"{weights.path} is not a SigLIP checkpoint of a fixed resolution: {name} has {len(shape)} dimensions, "
            f"expected {dimensions}"
        )
    return shape


def _expected_shapes(config: SiglipConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of a Hugging Face checkpoint by name."""
    width, text_width = config.width, config.text_width
    yield from (("logit_scale", (1,)), ("logit_bias", (1,)))
    yield _PATCHES, (width, 3, config.patch_size, config.patch_size)
    yield _PATCHES.replace("weight", "bias"), (width,)
    yield _PATCH_POSITIONS, (config.grid**2, width)
    yield from _layer_shapes("vision_model.encoder.layers", config.layers, width, config.mlp_width)
    yield from _norm_shapes("vision_model.post_layernorm", width)
    yield "vision_model.head.probe", (1, 1, width)
    yield from (
        ("vision_model.head.attention.in_proj_weight", (3 * width, width)),
        ("vision_model.head.attention.in_proj_bias", (3 * width,)),
    )
    yield from _linear_shapes("vision_model.head.attention.out_proj", width, width)
    yield from _norm_shapes("vision_model.head.layernorm", width)
    yield from _linear_shapes("vision_model.head.mlp.fc1", width, config.mlp_width)
    yield from _linear_shapes("vision_model.head.mlp.fc2", config.mlp_width, width)
    yield _TOKENS, (config.vocab_size, text_width)
    yield _TOKEN_POSITIONS, (config.context_length, text_width)
    yield from _layer_shapes("text_model.encoder.layers", config.text_layers, text_width, config.text_mlp_width)
    yield from _norm_shapes("text_model.final_layer_norm", text_width)
    yield from _linear_shapes("text_model.head", text_width, width)


def _layer_shapes(prefix: str, layers: int, width: int, mlp_width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index in range(layers):
        layer = f"{prefix}.{index}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm_shapes(f"{layer}.{norm}", width)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear_shapes(f"{layer}.self_attn.{part}", width, width)
        yield from _linear_shapes(f"{layer}.mlp.fc1", width, mlp_width)
        yield from _linear_shapes(f"{layer}.mlp.fc2", mlp_width, width)


def _linear_shapes(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.weight", (outputs, inputs)), (f"{name}.bias", (outputs,)))


def _norm_shapes(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.weight", (width,)), (f"{name}.bias", (width,)))


def _own_names(tensors: Mapping[str, Tensor], config: SiglipConfig) -> dict[str, Tensor]:
    """Hugging Face's tensors under the names of `Siglip`."""
    state_dict = {
        "logit_scale": tensors["logit_scale"],
        "logit_bias": tensors["logit_bias"],
        "patch_positions": tensors[_PATCH_POSITIONS],
        "tokens.weight": tensors[_TOKENS],
        "token_positions": tensors[_TOKEN_POSITIONS],
        "pool.probe": tensors["vision_model.head.probe"],
    }
    for kind in ("weight", "bias"):
        packed = tensors[f"vision_model.head.attention.in_proj_{kind}"]
        state_dict[f"pool.query.{kind}"] = packed[: config.width]
        state_dict[f"pool.keys_values.{kind}"] = packed[config.width :]
        for own, name in (
            ("patches", "vision_model.embeddings.patch_embedding"),
            ("image_norm", "vision_model.post_layernorm"),
            ("pool.out_proj", "vision_model.head.attention.out_proj"),
            ("pool.norm", "vision_model.head.layernorm"),
            ("pool.mlp.c_fc", "vision_model.head.mlp.fc1"),
            ("pool.mlp.c_proj", "vision_model.head.mlp.fc2"),
            ("text_norm", "text_model.final_layer_norm"),
            ("text_projection", "text_model.head"),
        ):
            state_dict[f"{own}.{kind}"] = tensors[f"{name}.{kind}"]
        for own, name, layers in (
            ("image_layers", "vision_model", config.layers),
            ("text_layers", "text_model", config.text_layers),
        ):
            for index in range(layers):
                source, target = f"{name}.encoder.layers.{index}", f"{own}.resblocks.{index}"
                state_dict[f"{target}.attn.in_proj_{kind}"] = torch.cat(
                    [tensors[f"{source}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                )
                for own_part, part in (
                    ("attn.out_proj", "self_attn.out_proj"),
                    ("ln_1", "layer_norm1"),
                    ("ln_2", "layer_norm2"),
                    ("mlp.c_fc", "mlp.fc1"),
                    ("mlp.c_proj", "mlp.fc2"),
                ):
                    state_dict[f"{target}.{own_part}.{kind}"] = tensors[f"{source}.{part}.{kind}"]
    return state_dict
