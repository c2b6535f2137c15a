"""The weights of a CLIP checkpoint (OpenAI, open_clip or Hugging Face) in, a torch CLIP model out."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import GridClipError
from .clip_model import ACTIVATIONS, CLIP, ClipConfig, config_from_state_dict, with_sizes
from .positions import resize_image_positions, resize_text_positions
from .weights import Weights, assembled, fit_tensors, read_weights

logger = logging.getLogger(__name__)

_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What sets a family's checkpoints apart from those of others that have the same tensors.

    Attributes:
        name: what errors call them.
        text_cfg: what a config in open_clip's layout must say of the text tower, by key; of other families, it may not.
        as_open_clip: files that do not say their activation are "gelu" unless their names do, as open_clip's are,
            whatever they are called.
    """

    name: str
    text_cfg: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    as_open_clip: bool = False


PLAIN = Kind(name="plain CLIP ViT")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A CLIP checkpoint in memory.

    Attributes:
        path: the file or folder that was asked for.
        config: sizes of the model.
        state_dict: fp32 weights under OpenAI's key names.
    """

    path: pathlib.Path
    config: ClipConfig
    state_dict: dict[str, Tensor]


def load_checkpoint(path: pathlib.Path, *, activation: str | None = None) -> Checkpoint:
    """Read a CLIP checkpoint's file or folder; see `read_checkpoint`."""
    return read_checkpoint(read_weights(path), activation=activation)


def read_checkpoint(weights: Weights, *, activation: str | None = None, kind: Kind = PLAIN) -> Checkpoint:
    """Bring a checkpoint's weights into OpenAI's layout.

    Args:
        weights: what `read_weights` found.
        activation: "quick_gelu" or "gelu". Needed only where nothing says which one the model was trained with: a
            config beside the weights says so, OpenAI's archives and plain state dicts are "quick_gelu", and files of
            open_clip are "gelu" unless "quickgelu" or "openai" is in their name.
        kind: which checkpoints are expected.

    Raises:
        GridClipError: it is not a CLIP model with a ViT image tower, or of another kind.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise GridClipError(f"activation ({activation!r}) must be one of {', '.join(ACTIVATIONS)}")
    path, state_dict = weights.path, dict(weights.tensors)
    if "text.token_embedding.weight" in state_dict:  # open_clip's CustomTextCLIP
        state_dict = {key.removeprefix("text."): value for key, value in state_dict.items()}
    sidecars = _read_sidecars(weights, kind)
    name_of: Callable[[str], str] = str
    if any(key.startswith(("vision_model.", "text_model.")) for key in state_dict):
        state_dict, name_of = _from_hugging_face(state_dict), _hugging_face_name
        activation = activation or sidecars.get("activation") or "quick_gelu"
    else:
        as_open_clip = weights.wrapped or kind.as_open_clip
        activation = activation or sidecars.get("activation") or _guess_activation(weights.files[0], as_open_clip)
    config = config_from_state_dict(state_dict, activation=activation, source=str(path), name_of=name_of)
    try:
        config = dataclasses.replace(config, **{key: value for key, value in sidecars.items() if key != "activation"})
    except (ValueError, TypeError) as error:
        raise GridClipError(f"{path}: the config beside the weights does not fit them: {error}") from None
    return Checkpoint(
        path, config, _select_weights(state_dict, config, f"{path} is not a {kind.name} checkpoint", name_of)
    )


def build_model(checkpoint: Checkpoint, *, image_size: int | None = None, context_length: int | None = None) -> CLIP:
    """Make the torch model, with positions interpolated where a size differs from the checkpoint's.

    Args:
        checkpoint: what `load_checkpoint` read.
        image_size: side of the super images in pixels; default: the checkpoint's.
        context_length: longest text in tokens; default: the checkpoint's.
    """
    config = with_sizes(checkpoint.config, checkpoint.path.name, image_size=image_size, context_length=context_length)
    state_dict = dict(checkpoint.state_dict)
    key = "visual.positional_embedding"
    state_dict[key] = resize_image_positions(state_dict[key], config.grid)
    state_dict["positional_embedding"] = resize_text_positions(
        state_dict["positional_embedding"], config.context_length
    )
    return assembled(functools.partial(CLIP, config), state_dict)


def _guess_activation(file: pathlib.Path, as_open_clip: bool) -> str:
    name = file.name.lower()
    from_open_clip = (
        as_open_clip or file.suffix == ".safetensors" or re.search("open_?clip|laion|datacomp|commonpool", name)
    )
    activation = "gelu" if from_open_clip and not re.search("quick_?gelu|openai", name) else "quick_gelu"
    if from_open_clip:
        logger.warning(
            "%s does not say its activation: taking %s (option activation changes it)", file.name, activation
        )
    return activation


def _read_sidecars(weights: Weights, kind: Kind) -> dict[str, Any]:
    """What the configs in the weights' folder say of that which the weights cannot tell, as `ClipConfig` fields."""
    fields: dict[str, Any] = {}
    for name, reader in (
        ("open_clip_config.json", functools.partial(_open_clip_fields, kind=kind)),
        ("config.json", _hugging_face_fields),
        ("preprocessor_config.json", lambda config: _mean_std(config, "image_mean", "image_std")),
    ):
        config = weights.read_config(name)
        if config is None:
            continue
        try:
            fields.update(reader(config))
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            message = f"{weights.folder / name} is not the config of a {kind.name} model: {error!r}"
            raise GridClipError(message) from None
    return fields


def _hugging_face_fields(config: dict[str, Any]) -> dict[str, Any]:
    if "vision_config" not in config or "text_config" not in config:
        return {}  # the config of something else that lives in this folder
    vision, text = config["vision_config"], config["text_config"]
    activations = {tower.get("hidden_act", "quick_gelu") for tower in (vision, text)}
    if len(activations) > 1 or not activations <= set(ACTIVATIONS):
        raise ValueError(f"hidden_act {sorted(activations)} is not one of {', '.join(ACTIVATIONS)} in both towers")
    if any(abs(tower.get("layer_norm_eps", 1e-5) - 1e-5) > 1e-9 for tower in (vision, text)):
        raise ValueError("layer_norm_eps is not 1e-5")
    fields: dict[str, Any] = {"activation": activations.pop()}
    if "num_attention_heads" in vision:
        fields["vision_heads"] = vision["num_attention_heads"]
    if "num_attention_heads" in text:
        fields["text_heads"] = text["num_attention_heads"]
    # Configs written before 2023 say 2 or nothing, whatever the vocabulary; there the end token is the last one.
    if text.get("eos_token_id", 2) != 2:
        fields["end_token"] = text["eos_token_id"]
        fields["start_token"] = text.get("bos_token_id", fields["end_token"] - 1)
    return fields


# What a tower's config in open_clip's layout may say. Much of the rest (no causal mask, another pooling, other
# epsilons) leaves no trace in the weights, so a key that is not known here is refused.
_OPEN_CLIP_KEYS = {
    "vision_cfg": {"image_size", "width", "layers", "head_width", "mlp_ratio", "patch_size", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name"},
}
_OPEN_CLIP_DEFAULTS = (("pool_type", "tok"), ("pool_type", "argmax"))


def _open_clip_fields(config: dict[str, Any], kind: Kind) -> dict[str, Any]:
    model, vision = config["model_cfg"], config["model_cfg"]["vision_cfg"]
    for key, expected in kind.text_cfg.items():
        if model["text_cfg"].get(key) != expected:
            raise ValueError(f"text_cfg.{key} is {model['text_cfg'].get(key)!r}, expected {expected!r}")
    for tower, known in _OPEN_CLIP_KEYS.items():
        told = {key: value for key, value in model[tower].items() if tower != "text_cfg" or key not in kind.text_cfg}
        for key, value in told.items():
            if value and key not in known and (key, value) not in _OPEN_CLIP_DEFAULTS:
                raise ValueError(f"{tower}.{key} is {value!r}, which no {kind.name} has")
    fields: dict[str, Any] = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    if "width" in vision:
        fields["vision_heads"] = vision["width"] // vision.get("head_width", 64)
    if "heads" in model["text_cfg"]:
        fields["text_heads"] = model["text_cfg"]["heads"]
    return fields | _mean_std(config.get("preprocess_cfg", {}), "mean", "std")


def _mean_std(config: dict[str, Any], mean: str, std: str) -> dict[str, Any]:
    if mean not in config or std not in config:
        return {}
    return {"image_mean": tuple(map(float, config[mean])), "image_std": tuple(map(float, config[std]))}


# Parts of names in Hugging Face's layout and in OpenAI's, to be replaced in this order either way.
_HUGGING_FACE_NAMES = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),  # misspelt in Hugging Face's checkpoints
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("visual_projection.weight", "visual.proj"),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_projection.weight", "text_projection"),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
)


def _hugging_face_name(name: str) -> str:
    """What a tensor of OpenAI's layout is called in Hugging Face's, for complaints; q, k and v are one here."""
    for theirs, ours in _HUGGING_FACE_NAMES:
        name = name.replace(ours, theirs)
    return name.replace(".attn.in_proj_", ".self_attn.[qkv]_proj.")


def _from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to OpenAI's keys, transpose the projections and stack each layer's q, k and v."""
    state_dict: dict[str, Tensor] = {}
    for old, tensor in weights.items():
        key = old
        for theirs, ours in _HUGGING_FACE_NAMES:
            key = key.replace(theirs, ours)
        if projection := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", key):
            parts = [weights.get(old.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            if any(part is None for part in parts):
                raise GridClipError(f"the checkpoint has {old} but not the k_proj and v_proj beside it")
            state_dict[f"{projection[1]}.attn.in_proj_{projection[2]}"] = torch.cat([p for p in parts if p is not None])
        elif ".self_attn." not in key and not key.endswith("position_ids"):
            state_dict[key] = tensor.T if key in ("visual.proj", "text_projection") else tensor
    return state_dict


def _select_weights(
    state_dict: Mapping[str, Tensor], config: ClipConfig, complaint: str, name_of: Callable[[str], str]
) -> dict[str, Tensor]:
    """The model's tensors in fp32, after making sure that the checkpoint holds these and no others.

    Args:
        state_dict: under OpenAI's key names.
        config: sizes of the model.
        complaint: how the error begins.
        name_of: what the checkpoint calls a tensor.
    """
    with torch.device("meta"):
        expected = {key: tensor.shape for key, tensor in CLIP(config).state_dict().items()}
    # Sizes that OpenAI's archives carry along as tensors, and the causal mask that some keep beside the weights.
    found = {
        key: tensor for key, tensor in state_dict.items() if key in expected or key.split(".")[-1] not in _NOT_WEIGHTS
    }
    named = {name_of(key): tensor for key, tensor in found.items()}
    fitting = fit_tensors(named, {name_of(key): shape for key, shape in expected.items()}, complaint)
    return {key: fitting[name_of(key)] for key in expected}
