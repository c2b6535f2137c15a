"""The cache folder in, which models are known and which are there out, as a table for people or JSON for programs."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from .. import GridClipError
from .download import MODELS, cache_folder
from .downloads import find_download
from .known_models import KNOWN_MODELS, KnownModel
from .model_info import ModelInfo, read_model_info


@dataclasses.dataclass(frozen=True)
class CachedModel:
    """A model folder that was exported into the cache folder.

    Attributes:
        path: the folder.
        info: what its model.json says.
    """

    path: pathlib.Path
    info: ModelInfo


@dataclasses.dataclass(frozen=True)
class ModelListing:
    """Which models are known, and which are at hand; `str()` of it is a table.

    Attributes:
        known: the published models that are known to fit.
        downloaded: by name, the checkpoints of these that are in the cache folder; they are checked when they are used.
        exported: the model folders in the cache folder.
        cache: the cache folder.
    """

    known: Sequence[KnownModel]
    downloaded: dict[str, pathlib.Path]
    exported: Sequence[CachedModel]
    cache: pathlib.Path

    def to_json(self) -> dict[str, Any]:
        """All of it, ready for json.dump."""
        known = [
            {
                **dataclasses.asdict(model),
                "checksum": "pinned" if model.name in MODELS else "of the first download",
                "downloaded": str(self.downloaded[model.name]) if model.name in self.downloaded else None,
            }
            for model in self.known
        ]
        exported = [{"path": str(model.path), **model.info.to_json()} for model in self.exported]
        return {"cache": str(self.cache), "known": known, "exported": exported}

    def __str__(self) -> str:
        rows = [("model", "family", "licence", "million", "wide", "pixels", "MSR-VTT R@1", "here")]
        for model in self.known:
            recall = "" if model.msr_vtt_recall_at_1 is None else f"{model.msr_vtt_recall_at_1:.1f}"
            licence = model.licence if model.licence_source else f"{model.licence} (unchecked)"
            sizes = (str(model.parameters), str(model.embed_dim), str(model.image_size))
            here = "downloaded" if model.name in self.downloaded else ""
            rows.append((model.name, model.family, licence, *sizes, recall, here))
        lines = _table(rows)
        sources = sorted({model.source for model in self.known if model.source})
        pinned = ", ".join(model.name for model in self.known if model.name in MODELS)
        lines += [
            "",
            f"MSR-VTT R@1: zero-shot text to video, as published ({'; '.join(sources)}); not of super images.",
            "(unchecked): what is said of the model; the licence itself was not read.",
            f"Each is downloaded by its name. Checksums: of {pinned} known before; of the others what the hub",
            "says at the first download, to which all later ones are held.",
        ]
        lines += ["", f"Exported, in {self.cache}:"]
        for cached in self.exported:
            info = cached.info
            lines.append(f"  {cached.path.name}: {info.family}, {info.precision}, {info.image_size} pixels")
        return "\n".join(lines if self.exported else [*lines, "  none"])


def list_models(cache_dir: pathlib.Path | None = None) -> ModelListing:
    """What is known, and what is in the cache folder; nothing is downloaded, and no weights are read.

    Args:
        cache_dir: default: see `download.cache_folder`.
    """
    cache = cache_folder(cache_dir)
    found = {model.name: find_download(model, cache) for model in KNOWN_MODELS}
    return ModelListing(
        known=KNOWN_MODELS,
        downloaded={name: path for name, path in found.items() if path is not None},
        exported=tuple(_exported(cache / "models")),
        cache=cache,
    )


def _exported(folder: pathlib.Path) -> list[CachedModel]:
    """Damaged folders are passed over: they are made again when they are asked for."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            found.append(CachedModel(path, read_model_info(path)))
        except GridClipError:
            continue
    return found


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
