"""A TorchScript archive (what OpenAI publishes CLIP as) in, its tensors by name out, without running its code.

Such an archive is a zip: `data.pkl` pickles the module tree, `data/<key>` hold the raw storages, `code/` is a program
that `torch.jit.load` would compile. Here only the first two are read, and the pickle may name nothing but containers,
tensors and modules; a module becomes a bag of attributes.
"""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# torch stores tensors as they are, and its pickles name some thousand of them; the slack is for code, which is packed.
MOST_PICKLE_BYTES = 32 << 20
MOST_INFLATION, INFLATION_SLACK_BYTES = 4, 64 << 20


class _Module:
    """Stands for any class of the archive's own code: keeps its attributes, does nothing."""


def is_torchscript(path: pathlib.Path) -> bool:
    """Whether a file is a zip with compiled code beside its pickle, which plain `torch.save` never writes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def refuse_inflating_archive(path: pathlib.Path) -> None:
    """Raises ValueError where a zip holds far more than its size: what torch writes is hardly compressed.

    What is no zip passes.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name, size in sizes.items():
        if name.endswith(".pkl") and size > MOST_PICKLE_BYTES:
            raise ValueError(f"its {name} unpacks to {size:,} bytes, expected at most {MOST_PICKLE_BYTES:,}")
    most = MOST_INFLATION * path.stat().st_size + INFLATION_SLACK_BYTES
    if sum(sizes.values()) > most:
        raise ValueError(f"it unpacks to {sum(sizes.values()):,} bytes, expected at most {most:,} of a file this size")


def read_torchscript(path: pathlib.Path) -> dict[str, Tensor]:
    """Read an archive's tensors under the names that `state_dict()` would give them.

    Raises:
        pickle.UnpicklingError: the pickle wants something other than plain data.
        zipfile.BadZipFile, KeyError, ValueError: the archive is damaged or incomplete.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} data.pkl instead of one")
        root = pickles[0].removesuffix("data.pkl")
        module = _Unpickler(archive, root).load()
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors)
    return tensors


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", tensors)


class _Unpickler(pickle.Unpickler):
    """Unpickles a module tree; every name that is not on its short list is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}
        self._allowed: dict[tuple[str, str], Callable[..., Any] | torch.dtype] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
            ("torch.jit._pickle", "restore_type_tag"): _first,
        }
        self._allowed |= {("torch", name): dtype for name, dtype in _STORAGE_TYPES.items()}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"its pickle refers to {module}.{name}, which weights have no use for"
            ) from None

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage as a flat tensor."""
        kind, dtype, key, _device, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"its pickle holds an unknown reference {kind!r}")
        if key not in self._storages:
            raw = bytearray(self._archive.read(f"{self._root}data/{key}"))
            storage = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
            if len(storage) < numel:
                raise ValueError(f"storage {key} has {len(storage)} values instead of {numel}")
            self._storages[key] = storage
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _first(value: Any, *_: Any) -> Any:
    return value
