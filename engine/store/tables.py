"""Super images and queries in, Lance datasets out, and back: columns, whole files, rows that are in order."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import pathlib
import shutil
import time

import lance
import numpy as np
import pyarrow as pa

from ... import GridClipError
from ..annotations.annotations import Query
from ..choices import LEVELS, Level
from .copies import Copies, View, choose, find_copies, view_codes

SUPER_IMAGES, QUERIES = "super_images", "queries"
VIDEO_MEANS = "video_means"  # begins the names of tables that gridclip index keeps: see engine/index/means.py
REFINED = "refined"  # frames that were looked at again, a cache: see engine/refinement/cache.py
# Columns that a dataset must have; further ones are left alone. The vectors' width is the dataset's own.
KEY_COLUMNS = {
    SUPER_IMAGES: {"video_id": pa.string(), "index": pa.int32(), "start_s": pa.float64(), "end_s": pa.float64()},
    QUERIES: {
        "query_id": pa.int64(),
        "video_id": pa.string(),
        "text": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
    },
    VIDEO_MEANS: {"video_id": pa.string()},
    REFINED: {
        "video_id": pa.string(),
        "index": pa.int32(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "wanted": pa.int32(),
        "source": pa.string(),
    },
}
# Both or neither: stores from before there were levels and several grid sizes do not have them.
LEVEL_COLUMNS = {"level": pa.string(), "grid_size": pa.int32()}
MAY_BE_NULL = {"start_s", "end_s", "grid_size"}
FLOAT16_EXPONENT, FLOAT16_MAGNITUDE = 0x7C00, 0x7FFF  # as bits: from the first on, a value is infinite or no number
COMMIT_ATTEMPTS = 5  # Lance itself retries a commit 20 times; these are for many writers that start at once


class Tables:
    """The Lance datasets of the store at a path."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def uri(self, name: str) -> str:
        return str(self.path / f"{name}.lance")

    def dataset(self, name: str) -> lance.LanceDataset | None:
        versions = self.path / f"{name}.lance" / "_versions"
        if not versions.is_dir() or not any(versions.iterdir()):
            return None
        try:
            with lance_calls():
                dataset = lance.dataset(self.uri(name))
        except (OSError, ValueError) as error:
            raise GridClipError(f"cannot read {self.uri(name)}: {error}") from error
        columns = KEY_COLUMNS[VIDEO_MEANS if name.startswith(VIDEO_MEANS) else name]
        wrong = _wrong_columns(dataset.schema, columns | (LEVEL_COLUMNS if has_levels(dataset) else {}))
        if wrong:
            raise GridClipError(
                f"{self.uri(name)} is not a table of this program ({wrong}): embed again with "
                "`overwrite=True`, or give another `store`"
            )
        return dataset

    def read_keys(self, dataset: lance.LanceDataset, grid_size: int | None) -> tuple[pa.Table, np.ndarray]:
        """All columns of the super images but the vectors, and the code of each row's view, see `copies.view_codes`.

        Args:
            grid_size: of the rows of older stores, which do not say it.
        """
        levels = LEVEL_COLUMNS if has_levels(dataset) else {}
        keys = self.read_columns(dataset, [*KEY_COLUMNS[SUPER_IMAGES], *levels])
        with self.reading():
            return keys, view_codes(keys, grid_size)

    def read_columns(self, dataset: lance.LanceDataset, columns: list[str]) -> pa.Table:
        with self.reading():
            table = dataset.scanner(columns=columns, scan_in_order=True).to_table()
            for name in set(columns) - MAY_BE_NULL:
                if table[name].null_count:
                    raise ValueError(f"{table[name].null_count} of {len(table)} rows have no {name}")
            return table

    def read_ids(self, dataset: lance.LanceDataset) -> set[str]:
        """The ids of the videos, streamed: a column of a million videos' rows would fill memory."""
        found: set[str] = set()
        with self.reading():
            for batch in dataset.scanner(columns=["video_id"]).to_batches():
                if batch["video_id"].null_count:
                    raise ValueError(f"{batch['video_id'].null_count} of {len(batch)} rows have no video_id")
                found.update(batch["video_id"].unique().to_pylist())
        return found

    def read_vectors(self, dataset: lance.LanceDataset, rows: np.ndarray) -> np.ndarray:
        """float16 [len(rows), D]: the vectors of the given rows, streamed, so that they are in memory once."""
        width = dataset.schema.field("vector").type.list_size
        target = np.full(dataset.count_rows(), -1, np.int64)
        target[rows] = np.arange(len(rows))
        vectors = np.empty((len(rows), width), np.float16)
        first = 0
        with self.reading():
            for batch in dataset.scanner(columns=["vector"], scan_in_order=True).to_batches():
                if batch["vector"].null_count:
                    raise ValueError(f"{batch['vector'].null_count} rows have no vector")
                part = batch["vector"].flatten().to_numpy().reshape(-1, width)
                to = target[first : first + len(part)]
                vectors[to[to >= 0]] = part[to >= 0]
                first += len(part)
        return vectors

    @contextlib.contextmanager
    def reading(self) -> collections.abc.Iterator[None]:
        """Around reads of rows: what Lance or pyarrow raise becomes an error of this program."""
        try:
            with lance_calls():
                yield
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise GridClipError(
                f"the store {self.path} is damaged or cannot be read: {error}; embed again with `overwrite=True`"
            ) from error

    def write(self, name: str, table: pa.Table, *, append: bool) -> None:
        """Writes the data files, makes sure that they are whole on disk, and only then commits them."""
        uri = self.uri(name)
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                dataset = self.dataset(name)
                mode = "append" if append else "overwrite" if dataset is not None else "create"
                with lance_calls():
                    fragments = lance.fragment.write_fragments(table, uri, mode=mode)
                    settle(uri, fragments)
                    lance.LanceDataset.commit(
                        uri,
                        lance.LanceOperation.Append(fragments)
                        if append
                        else lance.LanceOperation.Overwrite(table.schema, fragments),
                        read_version=dataset.version if dataset is not None else 0,
                    )
                return
            except OSError as error:
                if "conflict" not in str(error).lower() or attempt + 1 == COMMIT_ATTEMPTS:
                    raise GridClipError(
                        f"could not write to the store {self.path}: {error}; what was stored before is kept: "
                        "make room or mend the path, then run the same command again with `resume=True`"
                    ) from error
                time.sleep(0.1 * 2**attempt)

    @contextlib.contextmanager
    def indexing(self) -> collections.abc.Iterator[None]:
        """Around writes of what an index needs: what Lance or pyarrow raise becomes an error of this program."""
        try:
            with lance_calls():
                yield
        except (OSError, ValueError) as error:
            raise GridClipError(
                f"could not index the store {self.path}: {error}; its videos and what was indexed before are kept: "
                "make room, or wait for other jobs, then run gridclip index again"
            ) from error

    def remove_means(self) -> None:
        """Removes the means of videos, of every view."""
        for path in self.path.glob(f"{VIDEO_MEANS}*.lance"):
            self.remove(path.stem)

    def remove(self, name: str) -> None:
        try:
            shutil.rmtree(self.uri(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise GridClipError(f"cannot clear the store {self.path}: {error}") from error

    def copies(self, keys: pa.Table, codes: np.ndarray) -> Copies:
        """Every copy of every video, from what `read_keys` gives."""
        copies = find_copies(keys, codes)
        if copies is None:
            raise self.not_in_order()
        return copies

    def choose(self, found: collections.abc.Sequence[View], level: Level | None, grid_size: int | None) -> View:
        """Which of the views that are there is meant, see `copies.choose`.

        Raises:
            ValueError: an unknown level.
            GridClipError: there is nothing of this level and grid size.
        """
        if level is not None and level not in LEVELS:
            raise ValueError(f"level ({level!r}) must be one of {', '.join(LEVELS)}")
        view = choose(found, level, grid_size)
        if view is None:
            there = ", ".join(f"{each}" if each.grid_size else f"{each} at an unknown grid size" for each in found)
            asked = [f"`{name}={value!r}`" for name, value in (("level", level), ("grid_size", grid_size)) if value]
            raise GridClipError(
                f"the store {self.path} holds nothing of {' and '.join(asked)}: it has {there}; "
                "take one of these, or embed the videos again, into another `store`"
            )
        return view

    def not_in_order(self) -> GridClipError:
        """What to raise where the rows of a video do not follow each other."""
        return GridClipError(
            f"the store {self.path} is damaged: the super images of a video are not in order; "
            "embed again with `overwrite=True`"
        )

    def no_videos(self) -> GridClipError:
        """What to raise where there are no super images."""
        return GridClipError(
            f"the store {self.path} holds no videos: run gridclip embed-videos, embed-images or import-features first"
        )


def video_means(view: View) -> str:
    """The name of the table with the means of the videos of one view."""
    return f"{VIDEO_MEANS}_{view.level}_{view.grid_size or 'unknown'}"


@contextlib.contextmanager
def lance_calls() -> collections.abc.Iterator[None]:
    """Around calls of Lance: a panic of its Rust code, which is no Exception, becomes an error of this program."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # no module gives it away
            raise
        raise GridClipError(
            f"the store's library (Lance) could not work on: {error}; is there a limit on memory or "
            "threads (ulimit -v, ulimit -u)? Raise it"
        ) from error


def has_levels(dataset: lance.LanceDataset) -> bool:
    """Whether the rows say of which level and grid size they are; those of older stores and of queries do not."""
    return not LEVEL_COLUMNS.keys().isdisjoint(dataset.schema.names)


def _wrong_columns(schema: pa.Schema, expected: dict[str, pa.DataType]) -> str | None:
    """The first column that is missing or of another type, in words; None where all are right."""
    for name, kind in expected.items():
        if name not in schema.names or schema.field(name).type != kind:
            found = schema.field(name).type if name in schema.names else "missing"
            return f"{name} is {found}, expected {kind}"
    vector = schema.field("vector").type if "vector" in schema.names else pa.null()
    if not pa.types.is_fixed_size_list(vector) or vector.value_type != pa.float16() or vector.list_size < 1:
        return f"vector is {vector}, expected a list of float16 of one size"
    return None


def rows_not_finite(vectors: np.ndarray) -> np.ndarray:
    """Rows of float16 [N, D] that hold a value that is infinite or no number; one pass over the bits where none do."""
    bits = vectors.view(np.uint16)
    if not vectors.size or all((part & FLOAT16_MAGNITUDE).max() < FLOAT16_EXPONENT for part in _chunks(bits)):
        return np.zeros(0, np.int64)
    return np.flatnonzero(~np.isfinite(vectors).all(1))


def _chunks(rows: np.ndarray) -> collections.abc.Iterator[np.ndarray]:
    """Some thousand rows at a time, so that what is computed from them stays in the cache."""
    for first in range(0, len(rows), 4096):
        yield rows[first : first + 4096]


def require_finite_queries(queries: collections.abc.Sequence[Query], vectors: np.ndarray, remedy: str) -> None:
    """Raises GridClipError where a query's vector is not finite, and names the first such query."""
    bad = rows_not_finite(vectors)
    if len(bad):
        query = queries[bad[0]]
        raise GridClipError(
            f"the vectors of {len(bad):,} of {len(queries):,} queries are not finite in float16 "
            f"(first: {query.text[:60]!r} of video {query.video_id}), so that they have no ranks: "
            f"{remedy}"
        )


def kept_rows(dataset: lance.LanceDataset, kept: np.ndarray) -> collections.abc.Iterator[pa.RecordBatch]:
    """The rows of a dataset in order, without those that `kept` [rows] leaves out."""
    first = 0
    for batch in dataset.scanner(scan_in_order=True).to_batches():
        yield batch.filter(pa.array(kept[first : first + len(batch)]))
        first += len(batch)


def settle(uri: str, fragments: collections.abc.Iterable[lance.fragment.FragmentMetadata]) -> None:
    """Makes sure that data files are whole and on disk: Lance 14 loses the error when its last write is cut short."""
    for fragment in fragments:
        for data_file in fragment.files:
            path = pathlib.Path(uri, "data", data_file.path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                found = os.fstat(file.fileno()).st_size
            if data_file.file_size_bytes is not None and found != data_file.file_size_bytes:
                raise OSError(f"{path} has {found} bytes of {data_file.file_size_bytes}; is the disk full?")


def times(times: np.ndarray | None, count: int) -> np.ndarray:
    """float64 [count], NaN where a video has no times."""
    return np.full(count, np.nan) if times is None else np.asarray(times, np.float64)


def nullable(parts: list[np.ndarray]) -> pa.Array:
    """A column of times, null where they are NaN."""
    values = np.concatenate(parts)
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def vector_column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """Vectors [N, D] as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])
