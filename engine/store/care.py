"""A store's tables in, the same with less in them out: second copies of videos dropped, small files joined."""

from __future__ import annotations

import datetime
import logging

import lance
import numpy as np
import pyarrow as pa

from . import tables

logger = logging.getLogger(__name__)

# A job that still reads an older version must find its files: versions younger than this stay on disk.
KEEP_VERSIONS_FOR = datetime.timedelta(hours=1)


def drop_second_copies(held: tables.Tables, grid_size: int | None) -> None:
    """Replaces all rows by those of each video's first copy, in one commit that later appends survive.

    Args:
        held: the store's tables.
        grid_size: of the rows of older stores, which do not say it.
    """
    dataset = held.dataset(tables.SUPER_IMAGES)
    if dataset is None or not dataset.count_rows():
        return
    copies = held.copies(*held.read_keys(dataset, grid_size))
    if len(copies.first) == len(copies.begins):
        return
    is_first = np.zeros(len(copies.begins), bool)
    is_first[copies.first] = True
    kept = is_first.repeat(copies.sizes)
    uri = held.uri(tables.SUPER_IMAGES)
    with tables.lance_calls():
        rows = pa.RecordBatchReader.from_batches(dataset.schema, tables.kept_rows(dataset, kept))
        fragments = lance.fragment.write_fragments(rows, uri, mode="append")
        tables.settle(uri, fragments)
        # Lance orders fragments by age: all of them are replaced, so that a video that lies in two stays together.
        old = [fragment.metadata for fragment in dataset.get_fragments()]
        group = lance.LanceOperation.RewriteGroup(old, fragments)
        lance.LanceDataset.commit(uri, lance.LanceOperation.Rewrite([group], []), read_version=dataset.version)
    logger.info("dropped %d second copies of videos from the store %s", len(kept) - kept.sum(), held.path)


def join_files(held: tables.Tables, name: str) -> None:
    """Joins the small files of many appends; where they cannot reach the disk, the version before stays."""
    dataset = held.dataset(name)
    if dataset is None:
        return
    version = dataset.version
    with tables.lance_calls():
        # Pages are copied as they are: decoding them takes three times as long, and memory for all that is read ahead.
        dataset.optimize.compact_files(compaction_mode="try_binary_copy")
        try:
            tables.settle(held.uri(name), (fragment.metadata for fragment in dataset.get_fragments()))
        except OSError:
            lance.dataset(held.uri(name), version=version).restore()  # type: ignore[no-untyped-call]
            raise
        dataset.cleanup_old_versions(KEEP_VERSIONS_FOR)
