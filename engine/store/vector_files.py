"""A version of a table in, the vectors of consecutive rows out: straight from its data files, without a query plan.

Lance plans each scan anew and copies what it reads, which for some thousand rows takes longer than reading them.
"""

from __future__ import annotations

import pathlib

import lance
import lance.file
import numpy as np
import pyarrow as pa


class VectorFiles:
    """The vectors of one version of a dataset on a local disk; not for several threads at once.

    Args:
        dataset: with a column `vector` of float16.
    """

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._folder = pathlib.Path(dataset.uri) / "data"
        self._fragments = [fragment.metadata for fragment in dataset.get_fragments()]
        self._ends = np.cumsum([fragment.physical_rows for fragment in self._fragments])
        self._open: tuple[int, lance.file.LanceFileReader] | None = None

    @classmethod
    def of(cls, dataset: lance.LanceDataset) -> VectorFiles | None:
        """None where rows are not as they lie in the files: deleted ones, columns in files of their own."""
        fragments = [fragment.metadata for fragment in dataset.get_fragments()]
        if any(len(fragment.files) != 1 or fragment.deletion_file or fragment.overlays for fragment in fragments):
            return None
        return cls(dataset)

    def read(self, first_row: int, count: int) -> np.ndarray:
        """float16 [count, D].

        Raises:
            ValueError: a row has no vector.
            OSError: a file cannot be read.
        """
        parts = []
        while count:
            number = int(np.searchsorted(self._ends, first_row, side="right"))
            begin = int(self._ends[number]) - self._fragments[number].physical_rows
            some = min(count, int(self._ends[number]) - first_row)
            read = self._file(number).read_range(first_row - begin, some, batch_size=some)
            parts += [vectors_of(batch["vector"]) for batch in read.to_batches()]
            first_row, count = first_row + some, count - some
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _file(self, number: int) -> lance.file.LanceFileReader:
        """Readers go on through the files, so that one stays open."""
        if self._open is None or self._open[0] != number:
            path = self._folder / self._fragments[number].files[0].path
            self._open = number, lance.file.LanceFileReader(str(path), columns=["vector"])
        return self._open[1]


def vectors_of(column: pa.FixedSizeListArray) -> np.ndarray:
    """float16 [N, D]; raises ValueError where a row has no vector."""
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no vector")
    vectors: np.ndarray = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return vectors
