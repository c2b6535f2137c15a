"""A Lance dataset with a column `vector` in, Lance's index of it out; and a query in, the rows that are near out.

The index is IVF_RQ: each vector is kept as some bits a dimension (RaBitQ), which is 10 to 30 times less to read than
the vector, and a search reads those of all partitions. What it returns is near by the bits alone, so that its order is
a guess: whoever shows scores computes them from the vectors. Lance's `_distance` is no cosine, and stays here.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import lance
import numpy as np

from ... import GridClipError
from ..store.care import KEEP_VERSIONS_FOR
from ..store.tables import lance_calls

NAME = "vectors"  # of the index, in its dataset
KIND = "IVF_RQ"
PARTITION_ROWS = 16_384
# Partitions and their centres are those of the rows at first; when there are so many times more, they are made anew.
OUTGROWN = 2
TRAINED_ROWS = "gridclip.trained_rows"  # key of the dataset's configuration: rows when the partitions were made
ALL_PARTITIONS = 1 << 20  # more than any index has
WIDTHS = 8  # what the vectors' width must be a multiple of


def index_rows(dataset: lance.LanceDataset, *, bits: int) -> int:
    """Takes the rows that the index lacks into it, or makes it; how many were new. Each step is one commit.

    Args:
        dataset: of the newest version.
        bits: kept of each dimension.

    Raises:
        GridClipError: the width is none that an index takes.
        OSError: the index cannot be written, or another process changed the dataset meanwhile.
    """
    width, rows = dataset.schema.field("vector").type.list_size, dataset.count_rows()
    if width % WIDTHS:
        raise GridClipError(
            f"the vectors in {dataset.uri} are {width} wide, an index takes multiples of {WIDTHS}: search without one, "
            "`index='exact'`"
        )
    there = covered_rows(dataset)
    trained = int(dataset.config().get(TRAINED_ROWS, "0"))
    with lance_calls():
        if not there or rows >= OUTGROWN * trained:
            there = 0
            dataset.create_index(
                "vector",
                KIND,
                name=NAME,
                metric="cosine",
                num_partitions=max(1, rows // PARTITION_ROWS),
                num_bits=bits,
                replace=True,
            )
            dataset.update_config({TRAINED_ROWS: str(rows)})
        elif there < rows:
            # The first part stays as it is; the second one takes up what comes, run for run.
            dataset.optimize.optimize_indices(num_indices_to_merge=len(_segments(dataset)) - 1, index_names=[NAME])
        else:
            return 0
    _settle(dataset)
    dataset.cleanup_old_versions(KEEP_VERSIONS_FOR)
    return rows - there


def covered_fragments(dataset: lance.LanceDataset) -> set[int]:
    """Ids of the fragments of this version whose rows the index has."""
    held = {fragment for segment in _segments(dataset) for fragment in segment.fragment_ids}
    return held & {fragment.fragment_id for fragment in dataset.get_fragments()}


def covered_rows(dataset: lance.LanceDataset) -> int:
    """How many rows of this version the index has."""
    covered = covered_fragments(dataset)
    return sum(each.physical_rows for each in dataset.get_fragments() if each.fragment_id in covered)


def index_bytes(dataset: lance.LanceDataset) -> int:
    """The size of the index on disk."""
    return sum(segment.size_bytes or 0 for segment in _segments(dataset))


def nearest(dataset: lance.LanceDataset, query: np.ndarray, count: int, rows: Rows) -> np.ndarray:
    """int64 [<= count]: rows of the index, those that seem nearest first; rows that it lacks are left out.

    Args:
        dataset: has an index.
        query: float32 [D].
        count: at most so many.
        rows: of the same version.
    """
    with lance_calls():
        found = dataset.scanner(
            columns=["_rowid", "_distance"],  # Lance warns where the distance is left out
            nearest={"column": "vector", "q": query, "k": count, "nprobes": ALL_PARTITIONS},
            fast_search=True,
        ).to_table()
    return rows.of_addresses(found["_rowid"].to_numpy())


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where the rows of one version lie: ids of its fragments in the order of the rows, and each one's first row."""

    ids: np.ndarray
    begins: np.ndarray
    covered: np.ndarray

    @classmethod
    def of(cls, dataset: lance.LanceDataset) -> Rows | None:
        """None where rows were deleted, which this program does not do: addresses and rows are then not the same."""
        fragments = dataset.get_fragments()
        if any(fragment.num_deletions for fragment in fragments):
            return None
        ids = np.array([fragment.fragment_id for fragment in fragments], np.int64)
        ends = np.cumsum([fragment.physical_rows for fragment in fragments], dtype=np.int64)
        covered = covered_fragments(dataset)
        return cls(ids, np.concatenate([[0], ends]), np.array([int(each) in covered for each in ids], bool))

    def of_addresses(self, addresses: np.ndarray) -> np.ndarray:
        """int64 [n]: rows, counted in their order, of Lance's addresses uint64 [n]: fragment, then row in it."""
        order = np.argsort(self.ids)
        fragments = order[np.searchsorted(self.ids[order], (addresses >> np.uint64(32)).astype(np.int64))]
        found: np.ndarray = self.begins[fragments] + (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
        return found

    def are_covered(self, rows: np.ndarray) -> np.ndarray:
        """bool [n]: whether the index has these rows, int64 [n]."""
        found: np.ndarray = self.covered[np.searchsorted(self.begins, rows, side="right") - 1]
        return found


def _segments(dataset: lance.LanceDataset) -> list[lance.indices.IndexSegmentDescription]:
    with lance_calls():
        return [segment for index in dataset.describe_indices() if index.name == NAME for segment in index.segments]


def _settle(dataset: lance.LanceDataset) -> None:
    """Makes sure that the index is on disk."""
    for segment in _segments(dataset):
        for path in pathlib.Path(dataset.uri, "_indices", str(segment.uuid)).iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
