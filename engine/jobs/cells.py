"""What was asked for, a model, a sampling and a store in, whether the job makes vectors of cells out."""

from __future__ import annotations

import pathlib

from ...dali_pipes.sampling import Sampling
from ...export.model_info import ModelInfo
from ..store.record import RECORD_FILE
from ..store.store import Store


def makes_cells(
    asked: bool | None, sampling: Sampling | None, model: ModelInfo, store_path: pathlib.Path, *, overwrite: bool
) -> bool:
    """What was asked for; where nothing was, what the store began with, and else yes where it is possible.

    So a job that is resumed goes on as it began, and a new one leaves cells out only where they cannot be had.

    Args:
        asked: None: nothing.
        sampling: of the job; None: nobody knows when the frames in its super images are.
        model: of the job.
        store_path: whether the store is there or not.
        overwrite: what it holds is to be removed.

    Raises:
        GridClipError: the store's record cannot be read.
    """
    if asked is not None:
        return asked
    if not overwrite and (store_path / RECORD_FILE).is_file():
        recorded = Store.open(store_path).sampling
        if recorded is not None:
            return bool(recorded.get("cells"))
    grid_sizes = () if sampling is None or model.has_cells is not True else sampling.grids_with_cells
    return bool(grid_sizes) and all(map(model.allows_cells, grid_sizes))
