"""Sentences, a picture and a model in, what a searcher answers out: the one place where questions become vectors."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ... import ArgumentError, GridClipError
from ...dali_pipes.grid import assemble
from ...dali_pipes.sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX
from ..encoding.encoder import Encoder
from .search import Hit, Searcher, Way

MOST_PIXELS = 80_000_000  # of a picture that is read: a few kilobytes can claim to be more; Pillow warns from 89 on


@dataclasses.dataclass(frozen=True)
class Question:
    """What to search for.

    Args:
        sentences: one, or several that are to come one after the other.
        unwanted: sentences that count against a video.
        picture: a file, or its bytes; it comes before the sentences.

    Raises:
        ArgumentError: there is neither a sentence nor a picture, or a sentence is empty.
    """

    sentences: Sequence[str] = ()
    unwanted: Sequence[str] = ()
    picture: os.PathLike[str] | bytes | None = None

    def __post_init__(self) -> None:
        if not self.sentences and self.picture is None:
            raise ArgumentError("there is nothing to search for: give a sentence or a picture (`image`)")
        if any(not sentence.strip() for sentence in (*self.sentences, *self.unwanted)):
            raise ArgumentError("the sentence is empty: say what to search for")

    def to_json(self) -> dict[str, Any]:
        """What was asked, without what was not; of a picture its file."""
        told: dict[str, Any] = {"sentences": list(self.sentences)}
        if self.unwanted:
            told["unwanted"] = list(self.unwanted)
        if isinstance(self.picture, os.PathLike):
            told["image"] = os.fspath(self.picture)
        return told


def answer(searcher: Searcher, model: Encoder, question: Question, *, top: int, moments: int = 1) -> list[Hit]:
    """The best videos, best first; see `Searcher.search_terms` for the score.

    Args:
        searcher: of a store that was made with the model.
        model: makes the vectors.
        question: what to search for.
        top, moments: see `Searcher.search`.

    Raises:
        GridClipError: the picture cannot be read, or as `Searcher.search_terms` does.
    """
    texts = model.encode_texts([*question.sentences, *question.unwanted])
    wanted, unwanted = texts[: len(question.sentences)], texts[len(question.sentences) :]
    if question.picture is not None:
        # 1 where the store was filled with features, whose sampling is not known.
        image = still(question.picture, grid_size=searcher.view.grid_size or 1, super_img_size=model.info.image_size)
        wanted = np.concatenate([model.encode_images(image[None]), wanted])
    return searcher.search_terms(wanted, unwanted, top, moments)


def way(searcher: Searcher, question: Question, top: int) -> Way:
    """How a question is searched for: every video is scored, or those that an index names; see `Searcher.way`."""
    return searcher.way(len(question.sentences) + (question.picture is not None), len(question.unwanted), top)


def still(picture: os.PathLike[str] | bytes, *, grid_size: int, super_img_size: int) -> np.ndarray:
    """The super image of a video that shows a picture and nothing else: uint8 [S, S, 3].

    That is nearer to what a store holds than the picture alone, which has other sizes and no cells.

    Args:
        picture: a file, or its bytes, in any format that Pillow reads.
        grid_size: cells per row and column.
        super_img_size: S, in pixels.

    Raises:
        GridClipError: it is no picture, damaged, or larger than MOST_PIXELS.
    """
    name = "the picture" if isinstance(picture, bytes) else str(pathlib.Path(picture))
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise GridClipError(
                    f"{name} has {opened.width:,} x {opened.height:,} pixels, at most {MOST_PIXELS:,} are read: "
                    "give a smaller copy"
                )
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except GridClipError:
        raise
    except Exception as error:  # what Pillow's readers raise on damaged files is of every kind
        raise GridClipError(f"{name} cannot be read as a picture: {error}; give a JPEG or PNG file") from error
    frame = np.asarray(upright.resize((DECODE_WIDTH_PX, DECODE_HEIGHT_PX), Image.Resampling.BICUBIC))
    super_image: np.ndarray = assemble([frame] * grid_size**2, grid_size, super_img_size)[0]
    return super_image
