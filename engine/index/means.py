"""The videos of a store's reader in, a table of their means out: a row a video, in a dataset beside the super images.

A video's mean is that of its unit vectors, made unit length: what it is searched by at temperature 1, where the
weights of its super images hardly differ. The means are of one table of super images, which they name: where a store
was cleared and filled again, they are not read. In one table the rows of a video never change.
"""

from __future__ import annotations

import logging
import uuid

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ... import GridClipError
from ..scoring.candidates import SMALLEST_NORM
from ..search.scores import Run, by_runs
from ..store import care, tables
from ..store.reader import SuperImageReader

logger = logging.getLogger(__name__)

VIDEOS_PER_COMMIT = 32_768  # 48 MiB of means that are 768 wide
MOST_FRAGMENTS = 32  # data files, one of every append, before they are joined
TABLE_ID = "gridclip.table"  # key of the configuration of a table of super images: a name that no other table has
MEANS_OF = "gridclip.means_of"  # key of the configuration of a table of means: the name of their super images


def name_table(held: tables.Tables) -> None:
    """Gives the super images a name, where they have none."""
    dataset = held.dataset(tables.SUPER_IMAGES)
    if dataset is not None and TABLE_ID not in dataset.config():
        with held.indexing():
            dataset.update_config({TABLE_ID: uuid.uuid4().hex})


def open_means(held: tables.Tables, reader: SuperImageReader) -> lance.LanceDataset | None:
    """The newest means of a reader's view; None where there are none, or they are of other super images."""
    table_id = reader.dataset.config().get(TABLE_ID)
    if table_id is None:
        return None
    try:
        means = held.dataset(tables.video_means(reader.view))
    except GridClipError as error:
        logger.warning("%s: gridclip index makes it anew", error)
        return None
    if means is None or means.config().get(MEANS_OF) != table_id:
        return None
    return means if means.schema.field("vector").type == reader.dataset.schema.field("vector").type else None


def positions_of_means(held: tables.Tables, means: lance.LanceDataset, reader: SuperImageReader) -> np.ndarray:
    """int64 [M]: which of the reader's videos each mean is of, -1 where it has no such video."""
    names = held.read_columns(means, ["video_id"])["video_id"]
    found = pc.index_in(names, reader.videos.names).fill_null(-1)
    positions: np.ndarray = found.to_numpy().astype(np.int64)
    return positions


def add_means(held: tables.Tables, reader: SuperImageReader) -> lance.LanceDataset:
    """Adds the means of the videos that have none; each append is whole, so that a killed run is just repeated.

    Args:
        held: the store's tables; no other process adds means meanwhile.
        reader: of super images that have a name, see `name_table`.

    Raises:
        GridClipError: a vector is not finite, or the table cannot be written.
    """
    name = tables.video_means(reader.view)
    means = open_means(held, reader)
    if means is None:
        means = _create(held, reader, name)
    has = np.zeros(len(reader.videos), bool)
    positions = positions_of_means(held, means, reader)
    has[positions[positions >= 0]] = True
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for rows in reader.read_blocks(reader.blocks_of(np.flatnonzero(~has))):
        waiting.append((rows.videos, _means(rows.vectors, rows.offsets)))
        if sum(len(videos) for videos, _ in waiting) >= VIDEOS_PER_COMMIT:
            _append(held, reader, waiting)
            waiting = []
    if waiting:
        _append(held, reader, waiting)
    if len(_written(held, name).get_fragments()) > MOST_FRAGMENTS:
        with held.indexing():
            care.join_files(held, name)
    return _written(held, name)


def _create(held: tables.Tables, reader: SuperImageReader, name: str) -> lance.LanceDataset:
    """An empty table that names its super images."""
    held.remove(name)
    held.write(name, _as_table([], np.empty((0, reader.width), np.float16)), append=False)
    means = _written(held, name)
    with held.indexing():
        means.update_config({MEANS_OF: reader.dataset.config()[TABLE_ID]})
    return means


def _written(held: tables.Tables, name: str) -> lance.LanceDataset:
    dataset = held.dataset(name)
    assert dataset is not None, name  # it was written just now
    return dataset


def _append(held: tables.Tables, reader: SuperImageReader, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    videos, means = (np.concatenate(each) for each in zip(*parts, strict=True))
    bad = np.flatnonzero(~np.isfinite(means).all(axis=1))
    if len(bad):
        raise reader.not_finite(videos[bad])
    table = _as_table(reader.videos.names.take(pa.array(videos)), means)
    held.write(tables.video_means(reader.view), table, append=True)


def _as_table(names: pa.Array | list[str], means: np.ndarray) -> pa.Table:
    return pa.table({"video_id": pa.array(names, pa.string()), "vector": tables.vector_column(means)})


def _means(vectors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float16 [n, D] of unit length; NaN where a video has a vector that is not finite."""

    def work(run: Run) -> np.ndarray:
        sums = run.sums(np.ones((len(run.rows), 1), np.float32))[:, 0]
        units: np.ndarray = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), SMALLEST_NORM)
        return units

    means: np.ndarray = by_runs(vectors, offsets, work).astype(np.float16)
    return means
