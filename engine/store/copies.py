"""The key columns of all rows in, out: which rows are a copy of a video, and of which level and grid size each is.

A copy is the rows of one video in one append: for each grid size, ascending, the super images in order and then, where
there are any, the cells in order. `index` begins anew for each level and grid size. At grid size 1 a super image is its
own only cell, and is stored once, as a super image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ..choices import LEVELS, Level

_WHAT: dict[Level, str] = {"super": "super images", "cell": "cells"}


@dataclasses.dataclass(frozen=True)
class View:
    """The rows of one level and grid size, which is None where nobody knows it."""

    level: Level
    grid_size: int | None

    def __str__(self) -> str:
        return _WHAT[self.level] + ("" if self.grid_size is None else f" at grid size {self.grid_size}")

    @property
    def code(self) -> int:
        """A number that grows from row to row of a copy where a view ends and the next one begins."""
        return len(LEVELS) * (self.grid_size or 0) + LEVELS.index(self.level)

    @classmethod
    def of_code(cls, code: int) -> View:
        """The view that has this code."""
        grid_size, level = divmod(code, len(LEVELS))
        return cls(LEVELS[level], grid_size or None)


def view_codes(keys: pa.Table, grid_size: int | None) -> np.ndarray:
    """int64 [rows]: the code of each row's view.

    Args:
        keys: with or, in stores from before there were levels, without the columns level and grid_size.
        grid_size: of rows without these columns, None if unknown.

    Raises:
        ValueError: a level is none.
    """
    if "level" not in keys.column_names:
        return np.full(len(keys), View("super", grid_size).code)
    levels = pa.compute.index_in(keys["level"], pa.array(LEVELS))
    if levels.null_count:
        raise ValueError(f"{levels.null_count} of {len(keys)} rows have an unknown level")
    grids = pa.compute.fill_null(keys["grid_size"], 0).to_numpy().astype(np.int64)
    codes: np.ndarray = len(LEVELS) * grids + levels.to_numpy()
    return codes


def views(codes: np.ndarray) -> list[View]:
    """The views that are there, by grid size."""
    return [View.of_code(int(code)) for code in np.unique(codes)]


def choose(found: Sequence[View], level: Level | None, grid_size: int | None) -> View | None:
    """The finest grid of what was asked for, its cells before its super images; None where there is nothing of it.

    Args:
        found: the views that are there.
        level, grid_size: what was asked for; None: any.
    """
    fitting = [
        view
        for view in found
        if grid_size in (None, view.grid_size) and (level in (None, view.level) or view == View("super", 1))
    ]
    return min(fitting, key=lambda view: (view.grid_size or 0, view.level != "cell"), default=None)


@dataclasses.dataclass(frozen=True)
class Copies:
    """The copies of videos in a table, C of them, in the order of the rows.

    Attributes:
        names: ids of the V videos.
        begins: int64 [C], first row of each copy.
        sizes: int64 [C], rows of each copy.
        video: int64 [C], whose copy it is, as a position in `names`.
        first: int64 [V], the first copy of each video of `names`, the one that is read.
    """

    names: list[str]
    begins: np.ndarray
    sizes: np.ndarray
    video: np.ndarray
    first: np.ndarray


def find_copies(keys: pa.Table, codes: np.ndarray) -> Copies | None:
    """Every copy of every video; None where the rows of a video are not in order.

    Args:
        keys: the columns video_id and index in the order of the rows.
        codes: int64 [rows], of each row's view.
    """
    encoded = keys["video_id"].combine_chunks().dictionary_encode()
    row_video = encoded.indices.to_numpy()
    index = keys["index"].to_numpy()
    # The rows of an append are contiguous, so that a row with index 0 starts one view of one copy of one video.
    parts = np.flatnonzero(index == 0)
    lengths = np.diff(np.append(parts, len(index)))
    if (
        not len(parts)
        or parts[0] != 0
        or not np.array_equal(index, np.arange(len(index)) - parts.repeat(lengths))
        or not np.array_equal(row_video, row_video[parts].repeat(lengths))
        or not np.array_equal(codes, codes[parts].repeat(lengths))
    ):
        return None
    goes_on = (np.diff(row_video[parts]) == 0) & (np.diff(codes[parts]) > 0)
    begins = parts[np.concatenate([[True], ~goes_on])]
    video = row_video[begins]
    _, first = np.unique(video, return_index=True)
    return Copies(encoded.dictionary.to_pylist(), begins, np.diff(np.append(begins, len(index))), video, first)
