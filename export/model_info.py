"""A model folder's model.json in, one frozen ModelInfo out, and the other way round.

export writes it and engine reads it, both through this module: it knows nothing of either, nor of torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .. import GridClipError
from ..dali_pipes.ordinary_file import refuse_special_file

FILE = "model.json"
FORMAT = 1
GRAPHS = ("image", "text")
POOLINGS = ("end_token", "last_token", "first_token", "mean")
TEXT_CLEANINGS = ("clip", "siglip", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What has to be known of a model to feed its graphs; its family says it.

    Super images go in as uint8 RGB, whatever the family: scaling, mean and standard deviation are in the image graph.

    Attributes:
        image_size: side of the super images in pixels.
        embed_dim: width of the embeddings.
        context_length: longest text in tokens, start and end token included.
        start_token: id of the token before each text; None where there is none.
        end_token: id of the token after each text.
        family: the name of the encoder family in `families.FAMILIES`.
        causal_text: a token of a text sees only those before it.
        pooling: which position of the text tower becomes the embedding: the "end_token" (its first), the "last_token"
            of the padded row, the "first_token", or the "mean" of all.
        pad_token: id of the token that fills a row up.
        text_cleaning: what happens to a text before its tokenizer: "clip" mends Unicode, resolves HTML entities, joins
            white space and turns to lower case, as OpenAI does; "siglip" turns to lower case, removes ASCII punctuation
            and joins white space; "none" leaves it to the tokenizer's own normaliser.
        patch_size: side of a patch in pixels; None where unknown.
        vocab_size: tokens that the model has embeddings for; None where unknown.
        activation: of the MLPs, such as "quick_gelu"; None where unknown.
        logit_scale: factor of the cosine in training (not its logarithm); None where unknown.
        logit_bias: what is added to the scaled cosine, in models that were trained to give a match its own probability
            (sigmoid loss); None in all others.
    """

    image_size: int
    embed_dim: int
    context_length: int
    start_token: int | None
    end_token: int
    # Folders from before there were families do not say these, and all of them are CLIP's.
    family: str = "clip"
    causal_text: bool = True
    pooling: str = "end_token"
    pad_token: int = 0
    text_cleaning: str = "clip"
    patch_size: int | None = None
    vocab_size: int | None = None
    activation: str | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None

    @property
    def ignores_padding(self) -> bool:
        """What follows the end token changes nothing, so that a batch of texts may be cut after its longest."""
        return self.causal_text and self.pooling == "end_token"

    def allows_cells(self, cells: int) -> bool:
        """Whether super images can be made of cells x cells: two or more, and a patch or more for each."""
        return self.patch_size is not None and 2 <= cells <= self.image_size // self.patch_size

    def cell_patches(self, cells: int) -> np.ndarray:
        """Which patches belong to which cell of a super image: those whose centre lies in it.

        Where a cell's side is no multiple of the patch's, cells differ in their number of patches, and patches on a
        border hold pixels of their neighbours, too.

        Args:
            cells: cells per row and column of the super image, in [2, patches per row].

        Returns:
            bool [cells * cells, P]: cells row by row, left to right, and patches, too. A patch in the margin that is
            left where `cells` does not divide the image size belongs to none.

        Raises:
            ValueError: `cells` is out of range: at 1 the super image is its frame, and beyond the other end a cell has
                no patch.
        """
        if self.patch_size is None:
            raise ValueError("a model whose patch_size is unknown has no cells")
        patches = self.image_size // self.patch_size
        if not self.allows_cells(cells):
            raise ValueError(
                f"cells ({cells}) must be in [2, {patches}]: one cell is the super image itself, and the model "
                f"{self.family} sees {patches} x {patches} patches"
            )
        centres_px = (np.arange(patches) + 0.5) * self.patch_size
        along = centres_px // (self.image_size // cells) == np.arange(cells)[:, None]  # [cells, patches]
        both: np.ndarray = along[:, None, :, None] & along[None, :, None, :]
        return both.reshape(cells * cells, patches * patches)

    def make_token_row(self, ids: Sequence[int], longest: int | None = None) -> list[int]:
        """One row of the text graph's input: start token, text, end token, padding.

        Args:
            ids: of the text alone; cut to fit, the end token is kept.
            longest: most tokens, start and end included; default, and at most, context_length.

        Returns:
            `longest` ids where padding changes nothing, else always context_length: the model knows no other rows.
        """
        longest = self.context_length if longest is None else longest
        start = [] if self.start_token is None else [self.start_token]
        row = [*start, *ids[: longest - len(start) - 1], self.end_token]
        return row + [self.pad_token] * ((longest if self.ignores_padding else self.context_length) - len(row))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo(ModelFacts):
    """All that model.json says: the facts of the model, and how this folder was made.

    Attributes:
        name: what to call the model.
        precision: "fp32", "fp16" or "int8".
        fingerprint: SHA-256 over all that decides what the embeddings are; a store takes those of one fingerprint.
        source: name of the checkpoint's file or folder; None where unknown.
        source_sha256: of the checkpoint's weight files; None where unknown.
        fused_attention: attention nodes of the "image" and the "text" graph that run fused; None where unknown.
        smallest_cosine: between each graph and torch, at export; None where they were not compared.
        has_cells: the folder has a graph that embeds the cells of a super image, too. False: its family has no way to;
            None: it was exported before there were such graphs.
        cells_fused_attention: attention nodes of the graph with cells that run fused; None where unknown.
        cells_smallest_cosine: as smallest_cosine, of the graph with cells.
        layers_kept_fp32: linear layers that int8 left in fp32; None for other precisions, and where nothing was
            compared.
        others: keys that this version does not know. They are kept and written back: a newer version may add keys
            under the same format as long as older ones may go without them.
    """

    name: str
    precision: str
    fingerprint: str
    source: str | None = None
    source_sha256: str | None = None
    fused_attention: Mapping[str, int] | None = None
    smallest_cosine: Mapping[str, float] | None = None
    has_cells: bool | None = None
    cells_fused_attention: int | None = None
    cells_smallest_cosine: float | None = None
    layers_kept_fp32: int | None = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, content: object) -> ModelInfo:
        """The information in what model.json holds.

        Raises:
            ValueError: the format is another one, a key is missing, or a value is not what it should be.
        """
        found = content.get("format") if isinstance(content, dict) else None
        if not isinstance(content, dict) or type(found) is not int or found != FORMAT:  # true is 1, too
            raise ValueError(f"has format {_show(found)}, expected {FORMAT}")
        told = {name: value for name, value in content.items() if value is not None or name not in _OPTIONAL}
        # A folder that says some of its family's facts and not the others was damaged: CLIP's may be wrong for it.
        needed = _REQUIRED + (_FAMILY_FACTS if told.keys() & set(_FAMILY_FACTS) else ())
        missing = [name for name in needed if name not in told]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        for name, check in _CHECKS.items():
            if name in told and not check.holds(told[name]):
                raise ValueError(f"has {name} {_show(told[name])}, expected {check.expected}")
        known = {name: told[name] for name in _CHECKS if name in told}
        return cls(**known, others={key: content[key] for key in content if key not in _CHECKS and key != "format"})

    def to_json(self) -> dict[str, Any]:
        """What model.json holds; unknown values are left out."""
        values = {name: getattr(self, name) for name in _CHECKS}
        told = {name: value for name, value in values.items() if value is not None or name not in _OPTIONAL}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in told.items()}
        return {"format": FORMAT, **plain, **self.others}


def read_model_info(model_dir: pathlib.Path) -> ModelInfo:
    """What a model folder's model.json says.

    Raises:
        GridClipError: `model_dir` is no model folder, one of another format, or damaged.
    """
    path = model_dir / FILE
    try:
        refuse_special_file(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{model_dir} is not a model folder (it has no {FILE}): make one with gridclip export"
        raise GridClipError(message) from error
    except (OSError, ValueError, RecursionError) as error:
        raise GridClipError(f"{path} cannot be read: {error}; export the model again") from error
    try:
        return ModelInfo.from_json(content)
    except ValueError as error:
        raise GridClipError(f"{path} {error}: export the model again") from None


def write_model_info(info: ModelInfo, model_dir: pathlib.Path) -> None:
    """Write model.json, after making sure that it can be read back.

    Raises:
        GridClipError: a value is not what it should be.
        OSError: the file cannot be written.
    """
    content = info.to_json()
    try:
        ModelInfo.from_json(content)
    except ValueError as error:
        raise GridClipError(f"the model {info.name} {error}") from None
    (model_dir / FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@dataclasses.dataclass(frozen=True)
class _Check:
    """What a value must be, and how to tell."""

    expected: str
    holds: Callable[[Any], bool]


def _whole_number(least: int, most: int) -> _Check:
    return _Check(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def _or_null(check: _Check) -> _Check:
    return _Check(f"{check.expected}, or null", lambda value: value is None or check.holds(value))


def _one_of(names: Collection[str]) -> _Check:
    return _Check(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def _per_graph(check: _Check) -> _Check:
    return _Check(
        f"{check.expected} for each of {', '.join(GRAPHS)}",
        lambda value: (
            isinstance(value, Mapping) and value.keys() == set(GRAPHS) and all(map(check.holds, value.values()))
        ),
    )


_TEXT = _Check("text", lambda value: isinstance(value, str))
_TRUTH = _Check("true or false", lambda value: isinstance(value, bool))
_NUMBER = _Check("a finite number", lambda value: type(value) in (int, float) and -math.inf < value < math.inf)
_TOKEN = _whole_number(0, 2**31)
# Every key but "format", in the order of writing. A larger image or text than these is taken for damage, long before
# memory runs out.
_CHECKS: Mapping[str, _Check] = {
    "name": _TEXT,
    "family": _TEXT,
    "source": _TEXT,
    "source_sha256": _TEXT,
    "precision": _TEXT,
    "image_size": _whole_number(1, 8192),
    "patch_size": _whole_number(1, 8192),
    "embed_dim": _whole_number(1, 65536),
    "context_length": _whole_number(2, 65536),
    "vocab_size": _whole_number(1, 2**31),
    "start_token": _or_null(_TOKEN),
    "end_token": _TOKEN,
    "pad_token": _TOKEN,
    "causal_text": _TRUTH,
    "pooling": _one_of(POOLINGS),
    "text_cleaning": _one_of(TEXT_CLEANINGS),
    "activation": _TEXT,
    "logit_scale": _NUMBER,
    "logit_bias": _NUMBER,
    "fused_attention": _per_graph(_whole_number(0, 65536)),
    "fingerprint": _TEXT,
    "smallest_cosine": _per_graph(_NUMBER),
    # Not in the mappings above: versions from before there were cells refuse a third graph there.
    "has_cells": _TRUTH,
    "cells_fused_attention": _whole_number(0, 131072),
    "cells_smallest_cosine": _NUMBER,
    "layers_kept_fp32": _whole_number(0, 65536),
}
_FIELDS = {field.name: field.default for field in dataclasses.fields(ModelInfo) if field.name in _CHECKS}
_REQUIRED = tuple(name for name in _CHECKS if _FIELDS[name] is dataclasses.MISSING)
_OPTIONAL = frozenset(name for name in _CHECKS if _FIELDS[name] is None)
_FAMILY_FACTS = tuple(name for name in _CHECKS if name not in _REQUIRED and name not in _OPTIONAL)


def _show(value: object) -> str:
    return repr(value)[:40]
