"""Embeddings of whole videos and of queries in, the same out in one fixed order: a directory that many jobs may share.

A store holds `super_images.lance` and `queries.lance` (Lance datasets) and `store.json` (format, model and sampling
settings). One append is one atomic Lance commit of whole videos, so a killed job leaves no half video. Writers do not
see each other: a video that two of them append is stored twice and its first copy is the one that is read.
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

from .. import GridClipError
from ..dali_pipes.sampling import completed
from .annotations import Query

logger = logging.getLogger(__name__)

FORMAT = 1
RECORD_FILE = "store.json"
LOCK_FILE = ".lock"
SUPER_IMAGES, QUERIES = "super_images", "queries"
# Not the name: `ViT-L/14` and `ViT-L-14.pt` are the same weights. What says most about a difference comes first.
MODEL_SETTINGS = ("precision", "image_size", "context_length", "embed_dim", "fingerprint")
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
                raise ValueError(f"{name} of video {self.video_id} has shape {np.shape(times)}, "
                                 f"expected ({vectors.shape[0]},)")


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
            GridClipError: there is no store at `path`, it is something else, or it is of a newer format.
        """
        store = cls(pathlib.Path(path).absolute())
        if not (store.path / RECORD_FILE).is_file():
            if not create:
                raise GridClipError(_no_store(store.path))
            store._create()
        store._read_record()
        return store

    def _create(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise GridClipError(f"{self.path} is a file, expected a store directory: give another --store")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if (self.path / RECORD_FILE).is_file():  # another job was faster
                    return
                foreign = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
                if foreign:
                    raise GridClipError(f"{self.path} is not a store and not empty (it holds {foreign[0]}): "
                                        "give a new or empty directory as --store")
                self._write_record({"format": FORMAT, "model": None, "sampling": None})
        except OSError as error:
            raise GridClipError(f"cannot make the store {self.path}: {error}") from error

    # Fingerprint

    @property
    def model(self) -> dict[str, Any] | None:
        """The recorded model settings (a model.json), None before the first `check_model`."""
        return self._read_record()["model"]

    @property
    def sampling(self) -> dict[str, Any] | None:
        """The recorded sampling settings, None before the first `check_sampling`."""
        return self._read_record()["sampling"]

    def check_model(self, model: dict[str, Any]) -> None:
        """Records the model (a model.json) at the first call; later raises GridClipError where it is another one."""
        self._check("model", model, MODEL_SETTINGS)

    def check_sampling(self, sampling: dict[str, Any]) -> None:
        """Records the sampling settings at the first call; later raises GridClipError where one of them differs."""
        self._check("sampling", sampling, None)

    def _check(self, section: str, given: dict[str, Any], settings: tuple[str, ...] | None) -> None:
        given = json.loads(json.dumps(given))  # tuples become lists and so on, as they will be read back
        with self._locked():
            record = self._read_record()
            stored = record[section]
            if stored is None:
                record[section] = given
                self._write_record(record)
                return
        for name in settings or sorted(stored.keys() | given.keys()):
            if stored.get(name) != given.get(name):
                stored_as, given_as = (f" ({record['name']})" if "name" in record else "" for record in (stored, given))
                raise GridClipError(
                    f"the store {self.path} was made with {section} {name} = {stored.get(name)!r}{stored_as}, "
                    f"this run has {given.get(name)!r}{given_as}: use the same {section}, another "
                    "--store, or --overwrite")

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
        table = pa.table({
            "video_id": pa.array([video.video_id for video in videos for _ in range(len(video.vectors))], pa.string()),
            "index": np.concatenate([np.arange(len(video.vectors), dtype=np.int32) for video in videos]),
            "start_s": _nullable([_times(video.start_s, len(video.vectors)) for video in videos]),
            "end_s": _nullable([_times(video.end_s, len(video.vectors)) for video in videos]),
            "vector": _vector_column(np.concatenate([video.vectors.astype(np.float16) for video in videos])),
        })
        if self._dataset(SUPER_IMAGES) is None:
            with self._locked():  # two writers must not both create the dataset
                if self._dataset(SUPER_IMAGES) is None:
                    self._write(SUPER_IMAGES, table, append=False)
                    return
        self._write(SUPER_IMAGES, table, append=True)

    def read_super_images(self) -> SuperImageTable:
        """All super images in a fixed order; of a video stored twice, the first copy.

        Raises:
            GridClipError: the store holds no videos, or its rows are damaged.
        """
        dataset = self._dataset(SUPER_IMAGES)
        if dataset is None or not dataset.count_rows():
            raise GridClipError(f"the store {self.path} holds no videos: run gridclip embed-videos, embed-images "
                                "or import-features first")
        keys = self._read_columns(dataset, ["video_id", "index", "start_s", "end_s"])
        encoded = keys["video_id"].combine_chunks().dictionary_encode()
        row_video = encoded.indices.to_numpy()
        names = encoded.dictionary.to_pylist()
        index = keys["index"].to_numpy()

        # The rows of an append are contiguous, so that a row with index 0 starts one copy of one video.
        begins = np.flatnonzero(index == 0)
        sizes = np.diff(np.append(begins, len(index)))
        if (not len(begins) or begins[0] != 0 or not np.array_equal(index, np.arange(len(index)) - begins.repeat(sizes))
                or not np.array_equal(row_video, row_video[begins].repeat(sizes))):
            raise GridClipError(f"the store {self.path} is damaged: the super images of a video are not in order; "
                                "embed again with --overwrite")
        _, first_copy = np.unique(row_video[begins], return_index=True)  # ordered by video code
        order = first_copy[np.array(sorted(range(len(names)), key=names.__getitem__))]
        offsets = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
        rows = np.repeat(begins[order] - offsets[:-1], sizes[order]) + np.arange(offsets[-1])

        return SuperImageTable(
            video_ids=[names[code] for code in row_video[begins[order]]],
            offsets=offsets,
            vectors=self._read_vectors(dataset, rows),
            start_s=keys["start_s"].to_numpy()[rows],
            end_s=keys["end_s"].to_numpy()[rows],
        )

    # Queries

    def put_queries(self, queries: collections.abc.Sequence[Query], vectors: np.ndarray) -> None:
        """Adds queries; stored queries that have the video and text of a new one are replaced.

        Args:
            queries: Q queries.
            vectors: float16 or float32 [Q, D], finite, L2-normalised.

        Raises:
            ValueError: the shapes do not match or a value is not finite.
            GridClipError: the vectors' width is not the store's, or they could not be written.
        """
        if vectors.ndim != 2 or len(queries) != len(vectors):
            raise ValueError(f"vectors have shape {vectors.shape}, expected [{len(queries)}, D]")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors hold values that are not finite")
        if not queries:
            return
        self._check_width(vectors.shape[1], QUERIES)
        with self._locked():
            if self._dataset(QUERIES) is not None:
                stored = self.read_queries()
                new = {(query.video_id, query.text) for query in queries}
                kept = [row for row, old in enumerate(stored.queries) if (old.video_id, old.text) not in new]
                queries = [stored.queries[row] for row in kept] + list(queries)
                vectors = np.concatenate([stored.vectors[kept], vectors.astype(np.float16)])
            self._write(QUERIES, pa.table({
                "query_id": pa.array([query.query_id for query in queries], pa.int64()),
                "video_id": pa.array([query.video_id for query in queries], pa.string()),
                "text": pa.array([query.text for query in queries], pa.string()),
                "start_s": pa.array([query.start_s for query in queries], pa.float64()),
                "end_s": pa.array([query.end_s for query in queries], pa.float64()),
                "vector": _vector_column(vectors.astype(np.float16)),
            }), append=False)

    def has_queries(self) -> bool:
        """Whether the store holds queries."""
        dataset = self._dataset(QUERIES)
        return dataset is not None and dataset.count_rows() > 0

    def read_queries(self) -> QueryTable:
        """All queries, in the order in which they were put.

        Raises:
            GridClipError: the store holds no queries.
        """
        dataset = self._dataset(QUERIES)
        if dataset is None or not dataset.count_rows():
            raise GridClipError(f"the store {self.path} holds no queries: run gridclip embed-text or import-features "
                                "first")
        rows = self._read_columns(dataset, ["query_id", "video_id", "text", "start_s", "end_s"]).to_pylist()
        return QueryTable([Query(**row) for row in rows], self._read_vectors(dataset, np.arange(len(rows))))

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
        """Joins the many small files of a job's appends; call it at the end of a job. Order and content stay."""
        for name in (SUPER_IMAGES, QUERIES):
            dataset = self._dataset(name)
            if dataset is None:
                continue
            try:
                version = dataset.version
                dataset.optimize.compact_files()
                try:
                    _settle(self._uri(name), (fragment.metadata for fragment in dataset.get_fragments()))
                except OSError:
                    lance.dataset(self._uri(name), version=version).restore()
                    raise
                dataset.cleanup_old_versions(KEEP_VERSIONS_FOR)
            except OSError as error:  # another job is writing, or the disk is full: the store is whole as it is
                logger.warning("could not compact %s of the store %s: %s", name, self.path, error)

    def _uri(self, name: str) -> str:
        return str(self.path / f"{name}.lance")

    def _dataset(self, name: str) -> lance.LanceDataset | None:
        versions = self.path / f"{name}.lance" / "_versions"
        if not versions.is_dir() or not any(versions.iterdir()):
            return None
        try:
            return lance.dataset(self._uri(name))
        except (OSError, ValueError) as error:
            raise GridClipError(f"cannot read {self._uri(name)}: {error}") from error

    def _read_columns(self, dataset: lance.LanceDataset, columns: list[str]) -> pa.Table:
        with self._reading():
            return dataset.scanner(columns=columns, scan_in_order=True).to_table()

    def _read_vectors(self, dataset: lance.LanceDataset, rows: np.ndarray) -> np.ndarray:
        """float16 [len(rows), D]: the vectors of the given rows, streamed, so that they are in memory once."""
        width = dataset.schema.field("vector").type.list_size
        target = np.full(dataset.count_rows(), -1, np.int64)
        target[rows] = np.arange(len(rows))
        vectors = np.empty((len(rows), width), np.float16)
        first = 0
        with self._reading():
            for batch in dataset.scanner(columns=["vector"], scan_in_order=True).to_batches():
                part = batch["vector"].flatten().to_numpy().reshape(-1, width)
                to = target[first : first + len(part)]
                vectors[to[to >= 0]] = part[to >= 0]
                first += len(part)
        return vectors

    @contextlib.contextmanager
    def _reading(self) -> collections.abc.Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise GridClipError(f"the store {self.path} is damaged or cannot be read: {error}; embed again with "
                                "--overwrite") from error

    def _write(self, name: str, table: pa.Table, *, append: bool) -> None:
        """Writes the data files, makes sure that they are whole on disk, and only then commits them."""
        uri = self._uri(name)
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                dataset = self._dataset(name)
                mode = "append" if append else "overwrite" if dataset is not None else "create"
                fragments = lance.fragment.write_fragments(table, uri, mode=mode)
                _settle(uri, fragments)
                lance.LanceDataset.commit(
                    uri,
                    lance.LanceOperation.Append(fragments) if append
                    else lance.LanceOperation.Overwrite(table.schema, fragments),
                    read_version=dataset.version if dataset is not None else 0)
                return
            except OSError as error:
                if "conflict" not in str(error).lower() or attempt + 1 == COMMIT_ATTEMPTS:
                    raise GridClipError(
                        f"could not write to the store {self.path}: {error}; what was stored before is kept: "
                        "make room or mend the path, then run the same command again with --resume") from error
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
                raise GridClipError(f"{name} vectors are {width} wide, the {part} of the store {self.path} has {other}"
                                    ": use the same model, another --store, or --overwrite")

    @contextlib.contextmanager
    def _locked(self) -> collections.abc.Iterator[None]:
        """Keeps other processes out while the record is changed or a dataset is created."""
        with (self.path / LOCK_FILE).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read_record(self) -> dict[str, Any]:
        path = self.path / RECORD_FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            version = record["format"]
            if not isinstance(version, int) or not {"model", "sampling"} <= record.keys():
                raise ValueError("not a store's record")
        except FileNotFoundError as error:
            raise GridClipError(_no_store(self.path)) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GridClipError(f"{path} cannot be read as a store's record: {error}") from error
        if isinstance(record["sampling"], dict):
            record["sampling"] = completed(record["sampling"])
        if version > FORMAT:
            raise GridClipError(f"the store {self.path} has format {version}, this version reads up to {FORMAT}: "
                                "upgrade gridclip")
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
