"""The name of a known model in, its checkpoint in the cache folder out: downloaded once, checked whenever it is read.

OpenAI's models have their SHA-256 here (`download.MODELS`). Those of the Hugging Face hub have not: what the hub says
of a model's files at their first download (the commit, the SHA-256 of large files, git's name of the content of small
ones) is written beside them, and later downloads and loads are held to it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .. import GridClipError
from .download import CHECKSUMS, MODELS, Checksum, cache_folder, download_file, download_openai
from .known_models import KnownModel, find_known_model, known_model
from .weights import WEIGHT_FILES

if TYPE_CHECKING:
    import huggingface_hub.hf_api

logger = logging.getLogger(__name__)

RECORD = "download.json"
_CONFIGS = ("config.json", "preprocessor_config.json", "open_clip_config.json")
_OWN_VOCABULARY = ("siglip", "metaclip2")
# The vocabulary of the other families, for repositories that hold none.
_OPENAI_REPOSITORY = "openai/clip-vit-large-patch14"
_VOCABULARY = "tokenizer.json"
_TIMEOUT_S = 20.0


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a repository on the hub.

    Attributes:
        name: of the file, in no folder.
        repository: "owner/name".
        revision: the commit.
        size: in bytes.
        checksum: as the hub says.
    """

    name: str
    repository: str
    revision: str
    size: int
    checksum: Checksum


def download_model(name: str, cache_dir: pathlib.Path | None = None) -> pathlib.Path:
    """Download a known model unless the cache folder has it already; what it has is checked.

    Args:
        name: of one of `known_models.KNOWN_MODELS`, or its repository on the hub. $HF_ENDPOINT names another hub.
        cache_dir: default: see `download.cache_folder`.

    Returns:
        The checkpoint, as `weights.read_weights` takes it: a file or a folder.

    Raises:
        GridClipError: the name is unknown, the hub cannot be reached or has no such files, what came does not have the
            right checksum, or the cache folder cannot be written.
    """
    model = known_model(name)
    if model.name in MODELS:
        return download_openai(model.name, cache_dir)
    folder = _folder(model, cache_folder(cache_dir))
    files = _read_record(folder)
    if not files:
        files = _choose_files(model)
        _write_record(files, folder)
    for file in sorted(files, key=lambda each: each.size):
        download_file(_address(file), folder / file.name, file.checksum)
    return _checkpoint(model, folder)


def find_download(model: KnownModel, cache: pathlib.Path) -> pathlib.Path | None:
    """The checkpoint of a known model in a cache folder, None where it is not there as a whole; it is not read."""
    if model.name in MODELS:
        path = cache / "checkpoints" / MODELS[model.name].rsplit("/", 1)[1]
        return path if path.is_file() else None
    folder = _folder(model, cache)
    files = _read_record(folder)
    whole = all((folder / file.name).is_file() and (folder / file.name).stat().st_size == file.size for file in files)
    return _checkpoint(model, folder) if files and whole else None


def name_of_download(model: str) -> str | None:
    """The known name that a model is given by; None for paths, among them those that are spelled like a name.

    OpenAI's names are names whatever lies in the working folder.
    """
    known = find_known_model(model)
    if known is None or (known.name not in MODELS and pathlib.Path(model).exists()):
        return None
    return known.name


def _folder(model: KnownModel, cache: pathlib.Path) -> pathlib.Path:
    return cache / "checkpoints" / model.name


def _checkpoint(model: KnownModel, folder: pathlib.Path) -> pathlib.Path:
    return folder / model.file if model.file else folder


def _choose_files(model: KnownModel) -> list[HubFile]:
    """The files of a model's repository that its family reads, with a vocabulary."""
    found = _list_files(model.place)
    names = [*_weight_names(model, found), *(name for name in _CONFIGS if name in found)]
    if _VOCABULARY in found:
        return [found[name] for name in (*names, _VOCABULARY)]
    if model.family in _OWN_VOCABULARY:
        raise GridClipError(f"{model.place} on the hub has no {_VOCABULARY}, which a model of its family needs")
    return [*(found[name] for name in names), _list_files(_OPENAI_REPOSITORY)[_VOCABULARY]]


def _weight_names(model: KnownModel, names: Iterable[str]) -> list[str]:
    """The weights' file, or the index and all its parts."""
    names = list(names)
    # In timm's repositories model.safetensors is the image tower alone, and open_clip's files are the whole model.
    usual = sorted(WEIGHT_FILES, key=lambda name: model.place.startswith("timm/") and not name.startswith("open_clip"))
    for name in (model.file,) if model.file else usual:
        if name in names:
            stem, _, suffix = name.removesuffix(".index.json").rpartition(".")
            part = re.compile(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{suffix}")
            return [name, *filter(part.fullmatch, names)] if name.endswith(".index.json") else [name]
    expected = model.file or f"any of {', '.join(WEIGHT_FILES)}"
    raise GridClipError(
        f"{model.place} on the hub does not have {expected}: fetch the model elsewhere and pass its path"
    )


def _list_files(repository: str) -> dict[str, HubFile]:
    """The files of a repository's newest commit by name, without those in folders."""
    import huggingface_hub  # with its HTTP client: a machine without a network can do without both

    hub = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        told = hub.model_info(repository, files_metadata=True, timeout=_TIMEOUT_S)
        return {
            each.rfilename: HubFile(each.rfilename, repository, str(told.sha), int(each.size or 0), _checksum(each))
            for each in told.siblings or ()
            if pathlib.PurePath(each.rfilename).name == each.rfilename
        }
    except Exception as error:  # the hub's HTTP client has errors of its own, and it changes with the version
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise GridClipError(
            f"cannot ask {hub.endpoint} for the files of {repository}: {reason}. Without a network, fetch its folder "
            "elsewhere and pass its path"
        ) from error


def _checksum(sibling: huggingface_hub.hf_api.RepoSibling) -> Checksum:
    """What the hub says of a file: a large one is under its SHA-256, a small one under git's name of its content."""
    if sibling.lfs:
        return Checksum("SHA-256", sibling.lfs["sha256"])
    return Checksum("git blob", str(sibling.blob_id))


def _address(file: HubFile) -> str:
    import huggingface_hub

    address: str = huggingface_hub.hf_hub_url(
        file.repository, file.name, revision=file.revision, endpoint=os.environ.get("HF_ENDPOINT")
    )
    return address


def _read_record(folder: pathlib.Path) -> list[HubFile]:
    """What `_write_record` wrote; empty where there is nothing, or nothing that can be read."""
    path = folder / RECORD
    if not path.is_file():
        return []
    try:
        files = [_read_file(each) for each in json.loads(path.read_text("utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("%s is damaged (%r): asking the hub again", path, error)
        return []
    return files


def _read_file(told: Mapping[str, object]) -> HubFile:
    name, repository, revision, size, kind, value = (
        told[key] for key in ("name", "repository", "revision", "size", "checksum_kind", "checksum")
    )
    if pathlib.PurePath(str(name)).name != name or kind not in CHECKSUMS or not isinstance(size, int):
        raise ValueError(f"{told} is not a file of a download")
    return HubFile(name, str(repository), str(revision), size, Checksum(str(kind), str(value)))


def _write_record(files: Iterable[HubFile], folder: pathlib.Path) -> None:
    told = [
        {
            "name": file.name,
            "repository": file.repository,
            "revision": file.revision,
            "size": file.size,
            "checksum_kind": file.checksum.kind,
            "checksum": file.checksum.value,
        }
        for file in files
    ]
    path = folder / RECORD
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps({"files": told}, indent=1) + "\n", "utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise GridClipError(f"cannot write {path}: {error}; free some space or set GRIDCLIP_CACHE") from error
