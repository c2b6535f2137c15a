"""A checkpoint's file or folder in, its tensors by name out: what every family reads its model from.

Checkpoints are untrusted: nothing in them is ever run. State dicts are read with torch's weights-only loader or
safetensors; see `torchscript.py` for OpenAI's TorchScript archives.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from .. import GridClipError
from ..dali_pipes.ordinary_file import refuse_special_file
from .torchscript import is_torchscript, read_torchscript, refuse_inflating_archive

M = TypeVar("M", bound=nn.Module)

# In the order of preference when a folder holds several.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """A checkpoint in memory, of whichever family.

    Attributes:
        path: the file or folder that was asked for.
        files: the weight files that were read.
        tensors: by the names that the checkpoint gives them, without the prefixes of wrapped modules.
        wrapped: they came in the wrapping of a training run.
    """

    path: pathlib.Path
    files: tuple[pathlib.Path, ...]
    tensors: Mapping[str, Tensor]
    wrapped: bool

    @property
    def folder(self) -> pathlib.Path:
        """Where the weight files are, and the configs beside them."""
        return self.files[0].parent

    def read_config(self, name: str) -> dict[str, Any] | None:
        """A JSON config beside the weights, such as "config.json"; None where there is no such file.

        Raises:
            GridClipError: it is no JSON object.
        """
        file = self.folder / name
        if not file.is_file():
            return None
        try:
            config = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise GridClipError(f"{file} is not the config of a model: {error!r}") from None
        if not isinstance(config, dict):
            raise GridClipError(f"{file} is not the config of a model: a {type(config).__name__} instead of an object")
        return config

    def sha256(self) -> str:
        """SHA-256 of the weight file; of the concatenation where the weights are in several files."""
        digest = hashlib.sha256()
        for file in self.files:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def read_weights(path: pathlib.Path) -> Weights:
    """Read a checkpoint.

    Args:
        path: an OpenAI TorchScript archive, a `.pt`, `.bin` or `.safetensors` state dict, or a Hugging Face or
            open_clip folder.

    Raises:
        GridClipError: it cannot be read.
    """
    files = _weight_files(path)
    raw: dict[Any, Any] = {}
    for file in files:
        try:
            raw.update(_read_file(file))
        except Exception as error:  # what the readers raise for arbitrary bytes has no common base
            raise GridClipError(
                f"{file} cannot be read as a checkpoint (truncated, damaged or no weights at all?): {_brief(error)}; "
                "expected an OpenAI, open_clip or Hugging Face CLIP model"
            ) from error
    wrapped = isinstance(raw.get("state_dict"), Mapping) or any(str(key).startswith("module.") for key in raw)
    return Weights(path, files, _plain_state_dict(raw), wrapped)


def fit_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], complaint: str
) -> dict[str, Tensor]:
    """The expected tensors in fp32, after making sure that a checkpoint holds these and no others.

    Args:
        found: by name.
        expected: the shape of each.
        complaint: how the error begins, such as "x.pt is no CLIP model".

    Raises:
        GridClipError: a tensor is missing, unknown or of the wrong shape; the first three of each kind are named.
    """
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    wrong = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key])}"
        for key in expected.keys() & found.keys()
        if tuple(found[key].shape) != tuple(expected[key])
    ]
    problems = [
        f"{label} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for label, keys in (("missing", missing), ("unknown", unknown), ("wrong shape", sorted(wrong)))
        if keys
    ]
    if problems:
        raise GridClipError(f"{complaint}: {'; '.join(problems)}")
    return {key: found[key].float().contiguous() for key in expected}


def _brief(error: Exception) -> str:
    """An error's first sentence: torch goes on with advice on other ways to load the file."""
    return re.split(r"(?<=[a-z\d)])\.\s|\n", str(error))[0] or type(error).__name__


def _weight_files(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    if path.exists() and not path.is_dir():
        return (path,)
    if not path.is_dir():
        raise GridClipError(f"{path} does not exist: expected a CLIP checkpoint, a Hugging Face folder or a model name")
    for name in WEIGHT_FILES:
        file = path / name
        if file.is_file() and name.endswith(".index.json"):
            return _shards(file)
        if file.is_file():
            return (file,)
    raise GridClipError(f"{path} holds no weights: expected one of {', '.join(WEIGHT_FILES)} (a Hugging Face folder)")


def _shards(index: pathlib.Path) -> tuple[pathlib.Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GridClipError(f"{index} is not the index of a sharded checkpoint: {error!r}") from None
    files = tuple(index.parent / pathlib.PurePath(name).name for name in names)
    for file in files:
        if not file.is_file():
            raise GridClipError(f"{index} names {file.name}, which is not beside it")
    return files


def _read_file(file: pathlib.Path) -> Mapping[Any, Any]:
    refuse_special_file(file)
    with open(file, "rb") as stream:
        head = stream.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    if file.suffix == ".safetensors" or head[8:9] == b"{":
        return safetensors.torch.load_file(file)
    refuse_inflating_archive(file)
    if is_torchscript(file):
        return read_torchscript(file)
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__} instead of a state dict")
    return loaded


def _plain_state_dict(raw: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors, out of a training checkpoint's wrapping and without the prefixes that wrapped modules leave."""
    if isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    state_dict = {
        re.sub(r"^(module\.|_orig_mod\.)+", "", str(key)): value
        for key, value in raw.items()
        if isinstance(value, Tensor)
    }
    for key, tensor in state_dict.items():
        # A view that repeats its storage would take memory that the file has nothing for.
        plain = tensor.layout is torch.strided
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise GridClipError(f"{key} {tuple(tensor.shape)} is no plain tensor with all its values in the checkpoint")
    return state_dict


def count_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Layers of a transformer whose tensors are named `<prefix><layer>.<...>`."""
    return len({name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)})


def assembled(make: Callable[[], M], tensors: Mapping[str, Tensor]) -> M:
    """The module that `make` makes, with these tensors as its own; it is not to be trained."""
    with torch.device("meta"):
        model = make()
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False).eval()
