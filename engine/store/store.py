"""Embeddings of whole videos and of queries in, the same out in one fixed order: a directory that many jobs may share.

A store holds `super_images.lance` (super images and cells, of one or several grid sizes: see copies.py) and
`queries.lance` (Lance datasets), `store.json` (format, model and sampling settings), and what `gridclip index` makes of
the super images (see engine/index/). One append is one atomic Lance commit of whole videos, so a killed job leaves no
half video. Writers do not see each other: a video that two of them append is stored twice, its first copy is the one
that is read, and `compact` drops the others. Readers write nothing and take no lock, so that a store may be read-only
for them.
"""

from __future__ import annotations

import collections.abc
import logging
import os
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.places import is_url
from ...dali_pipes.sampling import completed
from ..annotations.annotations import Query
from ..choices import LEVELS, Level
from . import care, merging
from .copies import View, views
from .reader import SuperImageReader
from .record import EMPTY, FORMAT, MODEL_SETTINGS, RECORD_FILE, SAMPLING_DEFAULTS, Record, as_read_back, no_store
from .rows import QueryTable, SuperImageTable, VideoEmbedding
from .tables import (
    KEY_COLUMNS,
    LEVEL_COLUMNS,
    QUERIES,
    SUPER_IMAGES,
    Tables,
    has_levels,
    nullable,
    require_finite_queries,
    rows_not_finite,
    times,
    vector_column,
)

__all__ = ["QueryTable", "Store", "SuperImageTable", "VideoEmbedding", "View"]

logger = logging.getLogger(__name__)


def store_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """A store's folder; raises GridClipError where it is a URL."""
    if is_url(os.fspath(path)):
        raise GridClipError(
            f"`store` {path} is a URL, expected a folder: jobs that share a store lock files in it, which no object "
            "store can do; fill a folder on a file system that all of them see, and copy it"
        )
    return pathlib.Path(path)


class Store:
    """The embeddings of one model and one way of sampling. Use `Store.open`."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._record = Record(path)
        self._tables = Tables(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> Store:
        """Opens a store.

        Args:
            path: the store's directory.
            create: make an empty store where `path` does not exist or is an empty directory.

        Raises:
            GridClipError: there is no store at `path`, it is something else or a URL, or it is of another format.
        """
        store = cls(store_path(path).absolute())
        problem = ids.text_problem(str(store.path))
        if problem is not None:
            raise GridClipError(f"`store` cannot be used: {problem}; give another path")
        if not (store.path / RECORD_FILE).is_file():
            if not create:
                raise GridClipError(no_store(store.path))
            store._create()
        store._record.read()
        return store

    def _create(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise GridClipError(f"{self.path} is a file, expected a store directory: give another `store`")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._record.locked():
                if (self.path / RECORD_FILE).is_file():  # another job was faster
                    return
                foreign = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
                if foreign:
                    raise GridClipError(
                        f"{self.path} is not a store and not empty (it holds {foreign[0]}): "
                        "give a new or empty directory as `store`"
                    )
                self._record.write(EMPTY)
        except OSError as error:
            raise GridClipError(f"cannot make the store {self.path}: {error}") from error

    @property
    def model(self) -> dict[str, Any] | None:
        """The recorded model settings (a model.json), None before the first `claim_model`."""
        model: dict[str, Any] | None = self._record.read()["model"]
        return model

    @property
    def sampling(self) -> dict[str, Any] | None:
        """The recorded sampling settings, None before the first `claim_sampling`."""
        sampling: dict[str, Any] | None = self._record.read()["sampling"]
        return sampling

    def require_model(self, model: dict[str, Any]) -> None:
        """For readers: raises GridClipError where the store is of another model (a model.json); writes nothing."""
        stored = self.model
        if stored is not None:
            self._record.require_equal("model", stored, as_read_back(model), MODEL_SETTINGS)

    def claim_model(self, model: dict[str, Any]) -> None:
        """For writers: records the model (a model.json) at the first call; later raises as `require_model` does."""
        stored = self._record.claim("model", as_read_back(model))
        self._record.require_equal("model", stored, as_read_back(model), MODEL_SETTINGS)

    def claim_sampling(self, sampling: dict[str, Any]) -> None:
        """Records the sampling settings at the first call; later raises GridClipError where one of them differs."""
        given = completed(as_read_back(sampling))
        stored = SAMPLING_DEFAULTS | self._record.claim("sampling", given)
        given = SAMPLING_DEFAULTS | given
        self._record.require_equal("sampling", stored, given, sorted(stored.keys() | given.keys()))

    def finished_videos(self) -> set[str]:
        """Ids of the videos in the store; every one of them is whole."""
        dataset = self._tables.dataset(SUPER_IMAGES)
        if dataset is None:
            return set()
        return self._tables.read_ids(dataset)

    def append_videos(self, videos: collections.abc.Sequence[VideoEmbedding]) -> None:
        """Appends whole videos in one atomic commit; safe to call from several processes at once.

        Raises:
            GridClipError: the vectors' width is not the store's, or they could not be written (a full disk, say);
                what was appended before stays.
        """
        if not videos:
            return
        widths = sorted({video.vectors.shape[1] for video in videos})
        if len(widths) > 1:
            raise GridClipError(f"the videos of one append have vectors of widths {widths}, expected one width")
        table = _as_table(videos, self._recorded_grid_size())
        self._append(table, widths[0], [video.codes for video in videos])

    def copy_from(self, source: Store) -> merging.Copied:
        """Appends the videos and queries of another store that this one lacks, some thousand rows at a time.

        A video that is stored is not copied again, so that a killed copy is just called again. Other processes may
        append meanwhile; those that copy the same videos wait for each other in `merging.only_merge`.

        Raises:
            GridClipError: the other store is of another model or sampling, damaged, or this one cannot be written.
        """
        self.require_alike(source)
        for section, held in source._record.read().items():
            if section in ("model", "sampling") and held is not None:
                self._record.claim(section, held)
        stored, overlap = self.finished_videos(), set[str]()
        copied = merging.Copied()
        for part in merging.new_videos(source._tables, source._recorded_grid_size(), stored, overlap):
            self._append(part.rows, part.rows.schema.field("vector").type.list_size, part.codes)
            copied += merging.Copied(len(part.video_ids), len(part.rows))
        return copied + merging.Copied(queries=self._copy_queries(source), already_stored=len(overlap))

    def require_alike(self, other: Store) -> None:
        """Raises GridClipError where another store is of another model or sampling; writes nothing."""
        merging.require_alike(self.path, self._record.read(), other.path, other._record.read())

    def _append(self, table: pa.Table, width: int, codes: collections.abc.Sequence[np.ndarray]) -> None:
        """One commit of whole videos.

        Args:
            table: all columns of this version.
            width: of the vectors.
            codes: of each video's rows.
        """
        self._check_width(width, SUPER_IMAGES)
        dataset = self._tables.dataset(SUPER_IMAGES)
        if dataset is not None and not has_levels(dataset):
            self._require_plain(codes)
            table = table.drop_columns(list(LEVEL_COLUMNS))
        if dataset is None:
            with self._record.locked():  # two writers must not both create the dataset
                if self._tables.dataset(SUPER_IMAGES) is None:
                    self._tables.write(SUPER_IMAGES, table, append=False)
                    return
        self._tables.write(SUPER_IMAGES, table, append=True)

    def _require_plain(self, codes: collections.abc.Sequence[np.ndarray]) -> None:
        """Raises GridClipError where there is more to store of a video than one grid's super images."""
        if any(len(np.unique(each)) > 1 or each[0] % len(LEVELS) for each in codes):
            raise GridClipError(
                f"the store {self.path} is of an older version, which has no place for cells and several grid sizes: "
                "give another `store`, or embed again with `overwrite=True`"
            )

    def _recorded_grid_size(self) -> int | None:
        """The grid size of rows that do not say theirs, None if unknown."""
        grid_size = (self.sampling or {}).get("grid_size")
        return grid_size if type(grid_size) is int else None

    def views(self) -> list[View]:
        """The levels and grid sizes that the store has rows of, by grid size; none where it holds no videos."""
        dataset = self._tables.dataset(SUPER_IMAGES)
        if dataset is None or not dataset.count_rows():
            return []
        return views(self._tables.read_keys(dataset, self._recorded_grid_size())[1])

    def read_super_images(self, level: Level | None = None, grid_size: int | None = None) -> SuperImageTable:
        """All embeddings of one level and grid size in a fixed order; of a video stored twice, the first copy.

        Args:
            level: "super" (super images) or "cell" (the frames in their cells); default: cells where there are some.
                At grid size 1, where every super image is one frame, both are the same rows.
            grid_size: cells per row; default: the finest, that is the smallest.

        Raises:
            ValueError: an unknown level.
            GridClipError: the store holds no videos or none of this level and grid size, its rows are damaged, or a
                vector is not finite.
        """
        dataset = self._tables.dataset(SUPER_IMAGES)
        if dataset is None or not dataset.count_rows():
            raise self._tables.no_videos()
        keys, codes = self._tables.read_keys(dataset, self._recorded_grid_size())
        copies = self._tables.copies(keys, codes)
        view = self._tables.choose(views(codes), level, grid_size)
        order = copies.first[np.array(sorted(range(len(copies.first)), key=copies.names.__getitem__))]
        sizes = copies.sizes[order]
        rows = np.repeat(copies.begins[order] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        owners = np.repeat(np.arange(len(order)), sizes)[codes[rows] == view.code]
        rows = rows[codes[rows] == view.code]
        present, sizes = np.unique(owners, return_counts=True)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        video_ids = [copies.names[code] for code in copies.video[order[present]]]
        vectors = self._tables.read_vectors(dataset, rows)
        bad = rows_not_finite(vectors)
        if len(bad):
            spoilt = np.unique(np.searchsorted(offsets, bad, side="right") - 1)
            shown = ", ".join(video_ids[video] for video in spoilt[:5]) + (", ..." if len(spoilt) > 5 else "")
            raise GridClipError(
                f"{len(bad):,} vectors of {len(spoilt):,} videos of the store {self.path} are not "
                f"finite ({shown}), so that they have no scores: embed again with `overwrite=True`"
            )
        return SuperImageTable(
            video_ids=video_ids,
            offsets=offsets,
            vectors=vectors,
            start_s=keys["start_s"].to_numpy()[rows],
            end_s=keys["end_s"].to_numpy()[rows],
            level=view.level,
            grid_size=view.grid_size,
        )

    def reader(self, level: Level | None = None, grid_size: int | None = None) -> SuperImageReader:
        """For searches: whole videos, read a few at a time, all of one version; see reader.py.

        Args:
            level, grid_size: as in `read_super_images`, as are the errors.
        """
        return SuperImageReader.open(self._tables, level, grid_size, self._recorded_grid_size())

    def put_queries(self, queries: collections.abc.Sequence[Query], vectors: np.ndarray) -> None:
        """Adds queries; stored queries that have the video and text of a new one are replaced.

        Args:
            queries: Q queries.
            vectors: float16 or float32 [Q, D], finite, L2-normalised.

        Raises:
            ValueError: the shapes do not match.
            GridClipError: a value is not finite, the vectors' width is not the store's, or they could not be written.
        """
        if vectors.ndim != 2 or len(queries) != len(vectors):
            raise ValueError(f"vectors have shape {vectors.shape}, expected [{len(queries)}, D]")
        if not queries:
            return
        with np.errstate(over="ignore"):
            vectors = vectors.astype(np.float16)
        require_finite_queries(queries, vectors, f"nothing was written to the store {self.path}")
        self._check_width(vectors.shape[1], QUERIES)
        with self._record.locked():
            if self._tables.dataset(QUERIES) is not None:
                stored = self.read_queries()
                new = {(query.video_id, query.text) for query in queries}
                kept = [row for row, old in enumerate(stored.queries) if (old.video_id, old.text) not in new]
                queries = [stored.queries[row] for row in kept] + list(queries)
                vectors = np.concatenate([stored.vectors[kept], vectors])
            self._tables.write(
                QUERIES,
                pa.table(
                    {
                        "query_id": pa.array([query.query_id for query in queries], pa.int64()),
                        "video_id": pa.array([query.video_id for query in queries], pa.string()),
                        "text": pa.array([query.text for query in queries], pa.string()),
                        "start_s": pa.array([query.start_s for query in queries], pa.float64()),
                        "end_s": pa.array([query.end_s for query in queries], pa.float64()),
                        "vector": vector_column(vectors),
                    }
                ),
                append=False,
            )

    def has_queries(self) -> bool:
        """Whether the store holds queries."""
        dataset = self._tables.dataset(QUERIES)
        return dataset is not None and dataset.count_rows() > 0

    def read_queries(self) -> QueryTable:
        """All queries, in the order in which they were put.

        Raises:
            GridClipError: the store holds no queries, or its rows are damaged, or a vector is not finite.
        """
        dataset = self._tables.dataset(QUERIES)
        if dataset is None or not dataset.count_rows():
            raise GridClipError(
                f"the store {self.path} holds no queries: run gridclip embed-text or import-features first"
            )
        rows = self._tables.read_columns(dataset, list(KEY_COLUMNS[QUERIES])).to_pylist()
        queries = [Query(**row) for row in rows]
        vectors = self._tables.read_vectors(dataset, np.arange(len(rows)))
        require_finite_queries(queries, vectors, f"the store {self.path} needs gridclip embed-text again")
        return QueryTable(queries, vectors)

    def _copy_queries(self, source: Store) -> int:
        """Puts the queries of another store that this one lacks; returns how many."""
        if not source.has_queries():
            return 0
        theirs = source.read_queries()
        ours = self.read_queries().queries if self.has_queries() else []
        stored = {(query.video_id, query.text) for query in ours}
        new = [row for row, query in enumerate(theirs.queries) if (query.video_id, query.text) not in stored]
        self.put_queries([theirs.queries[row] for row in new], theirs.vectors[new])
        return len(new)

    def clear(self) -> None:
        """Removes everything: super images, queries and fingerprint. Not while another job uses the store."""
        with self._record.locked():
            self._tables.remove_means()
            self._tables.remove(SUPER_IMAGES)
            self._tables.remove(QUERIES)
            self._record.write(EMPTY)

    def clear_super_images(self) -> None:
        """Removes the super images and the sampling settings, so that queries of the same model stay usable."""
        with self._record.locked():
            self._tables.remove_means()
            self._tables.remove(SUPER_IMAGES)
            record = self._record.read()
            record["sampling"] = None
            record["format"] = FORMAT  # the rows to come are of this version
            if self._tables.dataset(QUERIES) is None:
                record["model"] = None
            self._record.write(record)

    def compact(self) -> None:
        """Drops second copies of videos and joins the many small files of appends; call it at the end of a job.

        What is read stays the same: of a video stored twice, the first copy is kept. Safe beside jobs that append; jobs
        that compact wait for each other. The space comes back when the older version goes, see care.KEEP_VERSIONS_FOR.
        """
        for name in (SUPER_IMAGES, QUERIES):
            try:
                with self._record.locked():  # two that drop copies at once could each keep the one that the other drops
                    if name == SUPER_IMAGES:
                        care.drop_second_copies(self._tables, self._recorded_grid_size())
                    care.join_files(self._tables, name)
            except (GridClipError, OSError) as error:  # another job is writing, or a full disk: the store stays whole
                logger.warning("could not compact %s of the store %s: %s", name, self.path, error)

    def _check_width(self, width: int, name: str) -> None:
        record = self._record.read()
        expected = {"model": (record["model"] or {}).get("embed_dim")}
        for part in (SUPER_IMAGES, QUERIES):
            dataset = self._tables.dataset(part)
            expected[part] = dataset.schema.field("vector").type.list_size if dataset is not None else None
        for part, other in expected.items():
            if other is not None and other != width:
                raise GridClipError(
                    f"{name} vectors are {width} wide, the {part} of the store {self.path} has {other}"
                    ": use the same model, another `store`, or `overwrite=True`"
                )


def _as_table(videos: collections.abc.Sequence[VideoEmbedding], grid_size: int | None) -> pa.Table:
    """The rows of videos.

    Args:
        grid_size: of those that do not say theirs, None if unknown.
    """
    codes = np.concatenate([video.codes for video in videos])
    grid_sizes = codes // len(LEVELS)
    if grid_size is not None:
        grid_sizes[grid_sizes == 0] = grid_size
    return pa.table(
        {
            "video_id": pa.array([video.video_id for video in videos for _ in range(len(video.vectors))], pa.string()),
            "index": np.concatenate([video.index for video in videos]),
            "start_s": nullable([times(video.start_s, len(video.vectors)) for video in videos]),
            "end_s": nullable([times(video.end_s, len(video.vectors)) for video in videos]),
            "vector": vector_column(np.concatenate([video.vectors.astype(np.float16, copy=False) for video in videos])),
            "level": pa.array(np.array(LEVELS, object)[codes % len(LEVELS)], pa.string()),
            "grid_size": pa.array(grid_sizes, pa.int32(), mask=grid_sizes == 0),
        }
    )
