"""Embeddings of whole videos and of queries in, the same out in one fixed order: a directory that many jobs may share.

A store holds `super_images.lance` and `queries.lance` (Lance datasets) and `store.json` (format, model and sampling
settings). One append is one atomic Lance commit of whole videos, so a killed job leaves no half video. Writers do not
see each other: a video that two of them append is stored twice, its first copy is the one that is read, and `compact`
drops the others. Readers write nothing and take no lock, so that a store may be read-only for them.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import datetime
import fcntl
import json
import logging
import os
import pathlib
import shutil
import time
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.sampling import completed
from ..annotations import Query

logger = logging.getLogger(__name__)

FORMAT = 1
RECORD_FILE = "store.json"
LOCK_FILE = ".lock"
SUPER_IMAGES, QUERIES = "super_images", "queries"
# Not the name: `ViT-L/14` and `ViT-L-14.pt` are the same weights. What says most about a difference comes first.
MODEL_SETTINGS = ("precision", "image_size", "context_length", "embed_dim", "fingerprint")
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
}
TIMES = {"start_s", "end_s"}  # the columns that may hold nulls
FLOAT16_EXPONENT, FLOAT16_MAGNITUDE = 0x7C00, 0x7FFF  # as bits: from the first on, a value is infinite or no number
COMMIT_ATTEMPTS = 5  # Lance itself retries a commit 20 times; these are for many writers that start at once
# A job that still reads an older version must find its files: versions younger than this stay on disk.
KEEP_VERSIONS_FOR = datetime.timedelta(hours=1)


@dataclasses.dataclass(frozen=True)
class VideoEmbedding:
    """One whole video, ready to be stored.

    Args:
        video_id: the video's id.
        start_s: float64 [L], seconds at which each super image starts; None where the source has no times.
        end_s: float64 [L], seconds at which each super image ends; None where the source has no times.
        vectors: float16 or float32 [L, D], L >= 1, finite, L2-normalised.

    Raises:
        ValueError: a shape is wrong or a value is not finite.
    """

    video_id: str
    start_s: np.ndarray | None
    end_s: np.ndarray | None
    vectors: np.ndarray

    def __post_init__(self) -> None:
        vectors = self.vectors
        if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] < 1:
            raise ValueError(f"vectors of video {self.video_id} have shape {vectors.shape}, expected [L >= 1, D >= 1]")
        if not np.isfinite(vectors).all() or np.abs(vectors).max() > np.finfo(np.float16).max:
            raise ValueError(f"vectors of video {self.video_id} hold values that are not finite in float16")
        for name, times in (("start_s", self.start_s), ("end_s", self.end_s)):
            if times is not None and np.shape(times) != (vectors.shape[0],):
                raise ValueError(
                    f"{name} of video {self.video_id} has shape {np.shape(times)}, expected ({vectors.shape[0]},)"
                )


@dataclasses.dataclass(frozen=True)
class SuperImageTable:
    """All super images of a store, sorted by video id (by code point), then by index.

    Attributes:
        video_ids: the V videos.
        offsets: int64 [V + 1]; video v owns the rows offsets[v] to offsets[v + 1].
        vectors: float16 [T, D].
        start_s: float64 [T], NaN where unknown.
        end_s: float64 [T], NaN where unknown.
    """

    video_ids: list[str]
    offsets: np.ndarray
    vectors: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


@dataclasses.dataclass(frozen=True)
class QueryTable:
    """All queries of a store, in the order in which they were put: queries [Q] and vectors float16 [Q, D]."""

    queries: list[Query]
    vectors: np.ndarray


class Store:
    """The embeddings of one model and one way of sampling. Use `Store.open`."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> Store:
        """Opens a store.

        Args:
            path: the store's directory.
            create: make an empty store where `path` does not exist or is an empty directory.

        Raises:
            GridClipError: there is no store at `path`, it is something else, or it is of another format.
        """
        store = cls(pathlib.Path(path).absolute())
        problem = ids.text_problem(str(store.path))
        if problem is not None:
            raise GridClipError(f"`store` cannot be used: {problem}; give another path")
        if not (store.path / RECORD_FILE).is_file():
            if not create:
                raise GridClipError(_no_store(store.path))
            store._create()
        store._read_record()
        return store

    def _create(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise GridClipError(f"{self.path} is a file, expected a store directory: give another `store`")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if (self.path / RECORD_FILE).is_file():  # another job was faster
                    return
                foreign = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
                if foreign:
                    raise GridClipError(
                        f"{self.path} is not a store and not empty (it holds {foreign[0]}): "
                        "give a new or empty directory as `store`"
                    )
                self._write_record({"format": FORMAT, "model": None, "sampling": None})
        except OSError as error:
            raise GridClipError(f"cannot make the store {self.path}: {error}") from error

    # Fingerprint

    @property
    def model(self) -> dict[str, Any] | None:
        """The recorded model settings (a model.json), None before the first `claim_model`."""
        return self._read_record()["model"]

    @property
    def sampling(self) -> dict[str, Any] | None:
        """The recorded sampling settings, None before the first `claim_sampling`."""
        return self._read_record()["sampling"]

    def require_model(self, model: dict[str, Any]) -> None:
        """For readers: raises GridClipError where the store is of another model (a model.json); writes nothing."""
        stored = self.model
        if stored is not None:
            self._require_equal("model", stored, _as_read_back(model), MODEL_SETTINGS)

    def claim_model(self, model: dict[str, Any]) -> None:
        """For writers: records the model (a model.json) at the first call; later raises as `require_model` does."""
        stored = self._claim("model", _as_read_back(model))
        self._require_equal("model", stored, _as_read_back(model), MODEL_SETTINGS)

    def claim_sampling(self, sampling: dict[str, Any]) -> None:
        """Records the sampling settings at the first call; later raises GridClipError where one of them differs."""
        given = _as_read_back(sampling)
        stored = self._claim("sampling", given)
        self._require_equal("sampling", stored, given, sorted(stored.keys() | given.keys()))

    def _claim(self, section: str, given: dict[str, Any]) -> dict[str, Any]:
        """What the record holds, after `given` was put there if it held nothing."""
        with self._locked():
            record = self._read_record()
            if record[section] is None:
                record[section] = given
                self._write_record(record)
            return record[section]

    def _require_equal(
        self, section: str, stored: dict[str, Any], given: dict[str, Any], settings: collections.abc.Iterable[str]
    ) -> None:
        for name in settings:
            if stored.get(name) != given.get(name):
                stored_as, given_as = (f" ({record['name']})" if "name" in record else "" for record in (stored, given))
                raise GridClipError(
                    f"the store {self.path} was made with {section} {name} = {stored.get(name)!r}{stored_as}, "
                    f"this run has {given.get(name)!r}{given_as}: use the same {section}, another "
                    "`store`, or `overwrite=True`"
                )

    # Super images

    def finished_videos(self) -> set[str]:
        """Ids of the videos in the store; every one of them is whole."""
        dataset = self._dataset(SUPER_IMAGES)
        if dataset is None:
            return set()
        return set(self._read_columns(dataset, ["video_id"])["video_id"].unique().to_pylist())

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
        self._check_width(widths[0], SUPER_IMAGES)
        table = pa.table(
            {
                "video_id": pa.array(
                    [video.video_id for video in videos for _ in range(len(video.vectors))], pa.string()
                ),
                "index": np.concatenate([np.arange(len(video.vectors), dtype=np.int32) for video in videos]),
                "start_s": _nullable([_times(video.start_s, len(video.vectors)) for video in videos]),
                "end_s": _nullable([_times(video.end_s, len(video.vectors)) for video in videos]),
                "vector": _vector_column(np.concatenate([video.vectors.astype(np.float16) for video in videos])),
            }
        )
        if self._dataset(SUPER_IMAGES) is None:
            with self._locked():  # two writers must not both create the dataset
                if self._dataset(SUPER_IMAGES) is None:
                    self._write(SUPER_IMAGES, table, append=False)
                    return
        self._write(SUPER_IMAGES, table, append=True)

    def read_super_images(self) -> SuperImageTable:
        """All super images in a fixed order; of a video stored twice, the first copy.

        Raises:
            GridClipError: the store holds no videos, its rows are damaged, or a vector is not finite.
        """
        dataset = self._dataset(SUPER_IMAGES)
        if dataset is None or not dataset.count_rows():
            raise GridClipError(
                f"the store {self.path} holds no videos: run gridclip embed-videos, embed-images "
                "or import-features first"
            )
        keys = self._read_columns(dataset, list(KEY_COLUMNS[SUPER_IMAGES]))
        copies = self._copies(keys)
        order = copies.first[np.array(sorted(range(len(copies.first)), key=copies.names.__getitem__))]
        sizes = copies.sizes[order]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(copies.begins[order] - offsets[:-1], sizes) + np.arange(offsets[-1])
        video_ids = [copies.names[code] for code in copies.video[order]]
        vectors = self._read_vectors(dataset, rows)
        bad = _rows_not_finite(vectors)
        if len(bad):
            owners = np.unique(np.searchsorted(offsets, bad, side="right") - 1)
            shown = ", ".join(video_ids[owner] for owner in owners[:5]) + (", ..." if len(owners) > 5 else "")
            raise GridClipError(
                f"{len(bad):,} vectors of {len(owners):,} videos of the store {self.path} are not "
                f"finite ({shown}), so that they have no scores: embed again with `overwrite=True`"
            )
        return SuperImageTable(
            video_ids=video_ids,
            offsets=offsets,
            vectors=vectors,
            start_s=keys["start_s"].to_numpy()[rows],
            end_s=keys["end_s"].to_numpy()[rows],
        )

    def _copies(self, keys: pa.Table) -> _Copies:
        """Every copy of every video, from the columns video_id and index in the order of the rows."""
        encoded = keys["video_id"].combine_chunks().dictionary_encode()
        row_video = encoded.indices.to_numpy()
        index = keys["index"].to_numpy()
        # The rows of an append are contiguous, so that a row with index 0 starts one copy of one video.
        begins = np.flatnonzero(index == 0)
        sizes = np.diff(np.append(begins, len(index)))
        if (
            not len(begins)
            or begins[0] != 0
            or not np.array_equal(index, np.arange(len(index)) - begins.repeat(sizes))
            or not np.array_equal(row_video, row_video[begins].repeat(sizes))
        ):
            raise GridClipError(
                f"the store {self.path} is damaged: the super images of a video are not in order; "
                "embed again with `overwrite=True`"
            )
        video = row_video[begins]
        _, first = np.unique(video, return_index=True)
        return _Copies(encoded.dictionary.to_pylist(), begins, sizes, video, first)

    # Queries

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
        _require_finite_queries(queries, vectors, f"nothing was written to the store {self.path}")
        self._check_width(vectors.shape[1], QUERIES)
        with self._locked():
            if self._dataset(QUERIES) is not None:
                stored = self.read_queries()
                new = {(query.video_id, query.text) for query in queries}
                kept = [row for row, old in enumerate(stored.queries) if (old.video_id, old.text) not in new]
                queries = [stored.queries[row] for row in kept] + list(queries)
                vectors = np.concatenate([stored.vectors[kept], vectors])
            self._write(
                QUERIES,
                pa.table(
                    {
                        "query_id": pa.array([query.query_id for query in queries], pa.int64()),
                        "video_id": pa.array([query.video_id for query in queries], pa.string()),
                        "text": pa.array([query.text for query in queries], pa.string()),
                        "start_s": pa.array([query.start_s for query in queries], pa.float64()),
                        "end_s": pa.array([query.end_s for query in queries], pa.float64()),
                        "vector": _vector_column(vectors),
                    }
                ),
                append=False,
            )

    def has_queries(self) -> bool:
        """Whether the store holds queries."""
        dataset = self._dataset(QUERIES)
        return dataset is not None and dataset.count_rows() > 0

    def read_queries(self) -> QueryTable:
        """All queries, in the order in which they were put.

        Raises:
            GridClipError: the store holds no queries, or its rows are damaged, or a vector is not finite.
        """
        dataset = self._dataset(QUERIES)
        if dataset is None or not dataset.count_rows():
            raise GridClipError(
                f"the store {self.path} holds no queries: run gridclip embed-text or import-features first"
            )
        rows = self._read_columns(dataset, list(KEY_COLUMNS[QUERIES])).to_pylist()
        queries = [Query(**row) for row in rows]
        vectors = self._read_vectors(dataset, np.arange(len(rows)))
        _require_finite_queries(queries, vectors, f"the store {self.path} needs gridclip embed-text again")
        return QueryTable(queries, vectors)

    # Care

    def clear(self) -> None:
        """Removes everything: super images, queries and fingerprint. Not while another job uses the store."""
        with self._locked():
            self._remove(SUPER_IMAGES)
            self._remove(QUERIES)
            self._write_record({"format": FORMAT, "model": None, "sampling": None})

    def clear_super_images(self) -> None:
        """Removes the super images and the sampling settings, so that queries of the same model stay usable."""
        with self._locked():
            self._remove(SUPER_IMAGES)
            record = self._read_record()
            record["sampling"] = None
            if self._dataset(QUERIES) is None:
                record["model"] = None
            self._write_record(record)

    def clear_queries(self) -> None:
        """Removes the queries."""
        with self._locked():
            self._remove(QUERIES)
            record = self._read_record()
            if self._dataset(SUPER_IMAGES) is None:
                record["model"] = None
            self._write_record(record)

    def compact(self) -> None:
        """Drops second copies of videos and joins the many small files of appends; call it at the end of a job.

        What is read stays the same: of a video stored twice, the first copy is kept. Safe beside jobs that append; jobs
        that compact wait for each other. The space comes back when the older version goes, see KEEP_VERSIONS_FOR.
        """
        for name in (SUPER_IMAGES, QUERIES):
            try:
                with self._locked():  # two that drop copies at once could each keep the one that the other drops
                    if name == SUPER_IMAGES:
                        self._drop_second_copies()
                    self._join_files(name)
            except (GridClipError, OSError) as error:  # another job is writing, or a full disk: the store stays whole
                logger.warning("could not compact %s of the store %s: %s", name, self.path, error)

    def _drop_second_copies(self) -> None:
        """Replaces all rows by those of each video's first copy, in one commit that later appends survive."""
        dataset = self._dataset(SUPER_IMAGES)
        if dataset is None or not dataset.count_rows():
            return
        copies = self._copies(self._read_columns(dataset, ["video_id", "index"]))
        if len(copies.first) == len(copies.begins):
            return
        is_first = np.zeros(len(copies.begins), bool)
        is_first[copies.first] = True
        kept = is_first.repeat(copies.sizes)
        uri = self._uri(SUPER_IMAGES)
        with _lance():
            rows = pa.RecordBatchReader.from_batches(dataset.schema, _kept_rows(dataset, kept))
            fragments = lance.fragment.write_fragments(rows, uri, mode="append")
            _settle(uri, fragments)
            # Lance orders fragments by age: all of them are replaced, so that a video that lies in two stays together.
            old = [fragment.metadata for fragment in dataset.get_fragments()]
            group = lance.LanceOperation.RewriteGroup(old, fragments)
            lance.LanceDataset.commit(uri, lance.LanceOperation.Rewrite([group], []), read_version=dataset.version)
        logger.info("dropped %d second copies of videos from the store %s", len(kept) - kept.sum(), self.path)

    def _join_files(self, name: str) -> None:
        dataset = self._dataset(name)
        if dataset is None:
            return
        version = dataset.version
        with _lance():
            dataset.optimize.compact_files()
            try:
                _settle(self._uri(name), (fragment.metadata for fragment in dataset.get_fragments()))
            except OSError:
                lance.dataset(self._uri(name), version=version).restore()
                raise
            dataset.cleanup_old_versions(KEEP_VERSIONS_FOR)

    def _uri(self, name: str) -> str:
        return str(self.path / f"{name}.lance")

    def _dataset(self, name: str) -> lance.LanceDataset | None:
        versions = self.path / f"{name}.lance" / "_versions"
        if not versions.is_dir() or not any(versions.iterdir()):
            return None
        try:
            with _lance():
                dataset = lance.dataset(self._uri(name))
        except (OSError, ValueError) as error:
            raise GridClipError(f"cannot read {self._uri(name)}: {error}") from error
        wrong = _wrong_columns(dataset.schema, KEY_COLUMNS[name])
        if wrong:
            raise GridClipError(
                f"{self._uri(name)} is not a table of this program ({wrong}): embed again with "
                "`overwrite=True`, or give another `store`"
            )
        return dataset

    def _read_columns(self, dataset: lance.LanceDataset, columns: list[str]) -> pa.Table:
        with self._reading():
            table = dataset.scanner(columns=columns, scan_in_order=True).to_table()
            for name in set(columns) - TIMES:
                if table[name].null_count:
                    raise ValueError(f"{table[name].null_count} of {len(table)} rows have no {name}")
            return table

    def _read_vectors(self, dataset: lance.LanceDataset, rows: np.ndarray) -> np.ndarray:
        """float16 [len(rows), D]: the vectors of the given rows, streamed, so that they are in memory once."""
        width = dataset.schema.field("vector").type.list_size
        target = np.full(dataset.count_rows(), -1, np.int64)
        target[rows] = np.arange(len(rows))
        vectors = np.empty((len(rows), width), np.float16)
        first = 0
        with self._reading():
            for batch in dataset.scanner(columns=["vector"], scan_in_order=True).to_batches():
                if batch["vector"].null_count:
                    raise ValueError(f"{batch['vector'].null_count} rows have no vector")
                part = batch["vector"].flatten().to_numpy().reshape(-1, width)
                to = target[first : first + len(part)]
                vectors[to[to >= 0]] = part[to >= 0]
                first += len(part)
        return vectors

    @contextlib.contextmanager
    def _reading(self) -> collections.abc.Iterator[None]:
        try:
            with _lance():
                yield
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise GridClipError(
                f"the store {self.path} is damaged or cannot be read: {error}; embed again with `overwrite=True`"
            ) from error

    def _write(self, name: str, table: pa.Table, *, append: bool) -> None:
        """Writes the data files, makes sure that they are whole on disk, and only then commits them."""
        uri = self._uri(name)
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                dataset = self._dataset(name)
                mode = "append" if append else "overwrite" if dataset is not None else "create"
                with _lance():
                    fragments = lance.fragment.write_fragments(table, uri, mode=mode)
                    _settle(uri, fragments)
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

    def _remove(self, name: str) -> None:
        try:
            shutil.rmtree(self._uri(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise GridClipError(f"cannot clear the store {self.path}: {error}") from error

    def _check_width(self, width: int, name: str) -> None:
        record = self._read_record()
        expected = {"model": (record["model"] or {}).get("embed_dim")}
        for part in (SUPER_IMAGES, QUERIES):
            dataset = self._dataset(part)
            expected[part] = dataset.schema.field("vector").type.list_size if dataset is not None else None
        for part, other in expected.items():
            if other is not None and other != width:
                raise GridClipError(
                    f"{name} vectors are {width} wide, the {part} of the store {self.path} has {other}"
                    ": use the same model, another `store`, or `overwrite=True`"
                )

    @contextlib.contextmanager
    def _locked(self) -> collections.abc.Iterator[None]:
        """Keeps other processes out while the record is changed or a dataset is created."""
        try:
            lock = (self.path / LOCK_FILE).open("a")
        except OSError as error:
            raise GridClipError(
                f"cannot write to the store {self.path}: {error.strerror}; reading it needs no rights, "
                "this command does: give another `store`, or the right to write"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read_record(self) -> dict[str, Any]:
        path = self.path / RECORD_FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            problem = _record_problem(record)
            if problem:
                raise ValueError(problem)
        except FileNotFoundError as error:
            raise GridClipError(_no_store(self.path)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise GridClipError(
                f"{path} cannot be read as a store's record: {error}; bring the file back from a copy, "
                "or embed into another `store`"
            ) from error
        if record["format"] > FORMAT:
            raise GridClipError(
                f"the store {self.path} has format {record['format']}, this version reads up to "
                f"{FORMAT}: upgrade gridclip"
            )
        if isinstance(record["sampling"], dict):
            record["sampling"] = completed(record["sampling"])
        return record

    def _write_record(self, record: dict[str, Any]) -> None:
        new = self.path / f".{RECORD_FILE}.{os.getpid()}"
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path / RECORD_FILE)
        except OSError as error:
            raise GridClipError(f"could not write {self.path / RECORD_FILE}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Copies:
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


@contextlib.contextmanager
def _lance() -> collections.abc.Iterator[None]:
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


def _record_problem(record: Any) -> str | None:
    """What keeps a parsed store.json from being a record, None where nothing does; newer formats may hold more."""
    if not isinstance(record, dict) or not {"format", "model", "sampling"} <= record.keys():
        return "not a store's record, expected an object with format, model and sampling"
    if type(record["format"]) is not int or record["format"] < 1:  # true is an int, too
        return f"format is {record['format']!r}, expected a whole number from 1"
    for section in ("model", "sampling"):
        if not isinstance(record[section], dict | None):
            return f"{section} is {str(record[section])[:40]!r}, expected an object or null"
    width = (record["model"] or {}).get("embed_dim", 1)
    if type(width) is not int or width < 1:
        return f"embed_dim of the model is {str(width)[:40]!r}, expected a whole number from 1"
    return None


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


def _as_read_back(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a record gives them back: tuples become lists and so on."""
    return json.loads(json.dumps(settings))


def _rows_not_finite(vectors: np.ndarray) -> np.ndarray:
    """Rows of float16 [N, D] that hold a value that is infinite or no number; one pass over the bits where none do."""
    bits = vectors.view(np.uint16)
    if not vectors.size or all((part & FLOAT16_MAGNITUDE).max() < FLOAT16_EXPONENT for part in _chunks(bits)):
        return np.zeros(0, np.int64)
    return np.flatnonzero(~np.isfinite(vectors).all(1))


def _chunks(rows: np.ndarray) -> collections.abc.Iterator[np.ndarray]:
    """Some thousand rows at a time, so that what is computed from them stays in the cache."""
    for first in range(0, len(rows), 4096):
        yield rows[first : first + 4096]


def _require_finite_queries(queries: collections.abc.Sequence[Query], vectors: np.ndarray, remedy: str) -> None:
    bad = _rows_not_finite(vectors)
    if len(bad):
        query = queries[bad[0]]
        raise GridClipError(
            f"the vectors of {len(bad):,} of {len(queries):,} queries are not finite in float16 "
            f"(first: {query.text[:60]!r} of video {query.video_id}), so that they have no ranks: "
            f"{remedy}"
        )


def _kept_rows(dataset: lance.LanceDataset, kept: np.ndarray) -> collections.abc.Iterator[pa.RecordBatch]:
    """The rows of a dataset in order, without those that `kept` [rows] leaves out."""
    first = 0
    for batch in dataset.scanner(scan_in_order=True).to_batches():
        yield batch.filter(pa.array(kept[first : first + len(batch)]))
        first += len(batch)


def _no_store(path: pathlib.Path) -> str:
    if not path.exists():
        return f"there is no store at {path}: run gridclip embed-videos, embed-images or import-features first"
    return f"{path} is not a store (it has no {RECORD_FILE}): give the directory that an embed command wrote"


def _settle(uri: str, fragments: collections.abc.Iterable[lance.fragment.FragmentMetadata]) -> None:
    """Makes sure that data files are whole and on disk: Lance 14 loses the error when its last write is cut short."""
    for fragment in fragments:
        for data_file in fragment.files:
            path = pathlib.Path(uri, "data", data_file.path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                found = os.fstat(file.fileno()).st_size
            if data_file.file_size_bytes is not None and found != data_file.file_size_bytes:
                raise OSError(f"{path} has {found} bytes of {data_file.file_size_bytes}; is the disk full?")


def _times(times: np.ndarray | None, count: int) -> np.ndarray:
    return np.full(count, np.nan) if times is None else np.asarray(times, np.float64)


def _nullable(parts: list[np.ndarray]) -> pa.Array:
    values = np.concatenate(parts)
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _vector_column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])
