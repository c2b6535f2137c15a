"""A model name or checkpoint in, a model folder (ONNX graphs of images and texts, tokenizer, model.json) out."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import pathlib
import re
import tempfile
from typing import Any

import torch

from .. import GridClipError
from .download import cache_folder
from .downloads import download_model, name_of_download
from .families import find_family
from .family import LoadOptions, TorchModel
from .graph_writer import PRECISIONS
from .known_models import nearest_names
from .model_info import FILE, FORMAT, ModelInfo, read_model_info, write_model_info
from .tokenizer_files import vocabulary_file
from .verify import DiffersFromTorch, check_fused_attention, compare_with_torch, hard_to_quantise
from .weights import read_weights

logger = logging.getLogger(__name__)

# Layers with an input range of so many root mean squares stay in fp32 in an int8 graph, one after the other until the
# check passes; see `verify.hard_to_quantise`.
_OUTLIER_LIMITS = (math.inf, 60, 30, 20, 15)


def export_model(
    model: str,
    out: pathlib.Path,
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    precision: str = "fp32",
    tokenizer: pathlib.Path | None = None,
    activation: str | None = None,
    verify: bool = True,
    cache_dir: pathlib.Path | None = None,
) -> ModelInfo:
    """Write a model folder, or nothing: it is made beside `out` and gets that name when everything is right.

    Args:
        model: the name of a known model (downloaded), or the path of a checkpoint; see `weights.read_weights`.
        out: the model folder. An older model folder of that name is replaced.
        image_size: side of the super images in pixels; default: the checkpoint's.
        context_length: longest text in tokens; default: the checkpoint's.
        precision: "fp32", "fp16" (for CUDA) or "int8" (for CPUs).
        tokenizer: file or folder of the vocabulary; default: see `tokenizer_files.load_vocabulary`.
        activation: "quick_gelu" or "gelu", for checkpoints that do not say.
        verify: compare the graphs with torch and fail when they differ.
        cache_dir: for downloads; default: see `download.cache_folder`.

    Returns:
        What the folder's model.json says.

    Raises:
        GridClipError: the checkpoint is of no known family, damaged or does not suit the options, a graph differs from
            torch, or the folder cannot be written.
    """
    if precision not in PRECISIONS:
        raise GridClipError(f"precision {precision!r} is unknown: expected one of {', '.join(PRECISIONS)}")
    if out.exists() and not (out.is_dir() and (is_model_folder(out) or not any(out.iterdir()))):
        raise GridClipError(f"{out} exists and is not a model folder: choose another `out`, or remove it")
    named = name_of_download(model)
    path = _checkpoint_path(model) if named is None else download_model(named, cache_dir)
    weights = read_weights(path)
    options = LoadOptions(
        image_size=image_size, context_length=context_length, tokenizer=tokenizer, activation=activation
    )
    loaded = find_family(weights).load(weights, options)
    try:
        source_sha256 = weights.sha256()
        del weights  # the model has what it needs, often in another precision
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            folder = pathlib.Path(scratch) / out.name
            folder.mkdir()
            checks = _write_graphs(loaded, folder, precision, verify)
            loaded.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
            info = ModelInfo(
                **vars(loaded.facts),
                name=path.stem if named is None else named,
                source=path.name,
                source_sha256=source_sha256,
                precision=precision,
                fused_attention=check_fused_attention(loaded, folder),
                has_cells=loaded.cells is not None,
                cells_fused_attention=None if loaded.cells is None else loaded.cells.attention_nodes,
                fingerprint=_fingerprint(loaded, precision, checks.get("layers_kept_fp32", 0)),
                **checks,
            )
            write_model_info(info, folder)
            if out.exists():
                out.rename(pathlib.Path(scratch) / "replaced")
            folder.rename(out)
    except OSError as error:
        raise GridClipError(f"cannot write the model folder {out}: {error}") from error
    return info


def _write_graphs(model: TorchModel, folder: pathlib.Path, precision: str, verify: bool) -> dict[str, Any]:
    """Write the graphs; in int8, keep as many layers in fp32 as it takes to come close enough to torch.

    Returns:
        What model.json says of it.
    """
    limits = _OUTLIER_LIMITS if precision == "int8" and verify else _OUTLIER_LIMITS[:1]
    for limit in limits:
        kept = [] if limit == math.inf else hard_to_quantise(model, limit)
        model.write_image_graph(folder / "image.onnx", precision, kept)
        model.write_text_graph(folder / "text.onnx", precision, kept)
        if model.cells is not None:
            model.cells.write_graph(folder / "image_cells.onnx", precision, kept, weights_of=folder / "image.onnx")
        if not verify:
            return {}
        try:
            cosines = compare_with_torch(model, folder, precision)
        except DiffersFromTorch:
            if limit == limits[-1]:
                raise
            logger.warning(
                "int8 is too coarse for some layers whose inputs have outliers: keeping more of them in fp32"
            )
            continue
        checks: dict[str, Any] = {"cells_smallest_cosine": cosines.pop("image_cells", None), "smallest_cosine": cosines}
        return checks | ({"layers_kept_fp32": len(kept)} if precision == "int8" else {})
    raise AssertionError("the last limit either returns or raises")


def ensure_model_folder(
    model: str,
    cache_dir: pathlib.Path | None = None,
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    precision: str | None = None,
    tokenizer: pathlib.Path | None = None,
    activation: str | None = None,
) -> pathlib.Path:
    """The model folder of whatever a model is given as.

    Args:
        model: a model folder, which is returned as it is, or what `export_model` takes, which is exported once into
            the cache folder and found there from then on.
        cache_dir: default: see `download.cache_folder`.
        image_size, context_length, precision, tokenizer, activation: of `export_model`. A model folder must agree with
            those that are given.

    Raises:
        GridClipError: a model folder does not agree, or the export fails.
    """
    folder = pathlib.Path(model)
    settings = {
        "image_size": image_size,
        "context_length": context_length,
        "precision": precision,
        "activation": activation,
    }
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    named = name_of_download(model)
    if named is None and is_model_folder(folder):
        info = read_model_info(folder)
        if tokenizer is not None:
            raise GridClipError(f"{folder} is a model folder with a vocabulary of its own: leave out `tokenizer`")
        for name, value in given.items():
            found = getattr(info, name)
            if found is not None and found != value:
                raise GridClipError(f"{folder} is a model folder with {name} {found}, not {value}: export another")
        return folder
    key = {name: str(value) for name, value in given.items()}
    if tokenizer is not None:
        key["tokenizer"] = _identity(vocabulary_file(tokenizer))
    key["format"] = str(FORMAT)
    key["model"] = _identity(_checkpoint_path(model)) if named is None else named
    name = folder.resolve().stem if named is None else named
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    out = cache_folder(cache_dir) / "models" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{digest}"
    if not is_model_folder(out) or read_model_info(out).has_cells is None:  # None: exported before there were cells
        logger.info("exporting %s to %s", model, out)
        export_model(model, out, cache_dir=cache_dir, tokenizer=tokenizer, **given)
    return out


def is_model_folder(path: pathlib.Path) -> bool:
    """Whether a folder was written by `export_model`."""
    return (path / FILE).is_file() and (path / "image.onnx").is_file()


def _checkpoint_path(model: str) -> pathlib.Path:
    path = pathlib.Path(model).expanduser()
    if not path.exists():
        raise GridClipError(
            f"model {model!r} is neither a file or folder nor a known name: {nearest_names(model)}expected a name that "
            "`list_models` (gridclip models) has, an OpenAI or open_clip checkpoint, or a Hugging Face folder"
        )
    return path


def _identity(path: pathlib.Path) -> str:
    """A checkpoint's path and the size and time of its files: quick to tell, and different once any of them changes."""
    files = [path, path.with_suffix(".tokenizer.json")] if path.is_file() else sorted(path.iterdir())
    files = [file for file in files if file.is_file()]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{path.resolve()} {stats}"


def _fingerprint(model: TorchModel, precision: str, layers_kept_fp32: int = 0) -> str:
    """SHA-256 over everything that decides what the embeddings are: weights, sizes, activation, tokens, precision."""
    digest = hashlib.sha256(json.dumps([model.settings, precision, layers_kept_fp32], sort_keys=True).encode())
    for name, tensor in model.weights.items():
        digest.update(name.encode())
        digest.update(tensor.to(torch.float32).numpy().tobytes())
    return digest.hexdigest()
