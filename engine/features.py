"""Feature files made elsewhere in, a store out; and a store in, npy, parquet or safetensors files out."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy

from .. import GridClipError
from ..dali_pipes.ordinary_file import refuse_special_file
from ..dali_pipes.source import Failure
from .annotations import Query
from .store import QueryTable, Store, SuperImageTable, VideoEmbedding

MODEL_NAME = "imported features"
VIDEOS_PER_APPEND = 512
LOAD_ERRORS = (OSError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError, TypeError,
               MemoryError)


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        videos: videos that were stored.
        already_stored: videos that were left out, because the store has them.
        super_images: super images (rows) that were stored.
        queries: queries that were stored.
        failures: what could not be stored and why; stage "read" (a video) or "query" (a row of the text file).
    """

    videos: int
    already_stored: int
    super_images: int
    queries: int
    failures: list[Failure]


def import_features(
    store: Store,
    image_dir: str | os.PathLike[str],
    text_file: str | os.PathLike[str] | None = None,
    *,
    allow_pickle: bool = False,
) -> Imported:
    """Stores features as if they had been embedded here; vectors are made unit length.

    Args:
        store: where to; an empty one, or one of imported features of the same width.
        image_dir: holds one `<video_id>.npy` per video, float [L, D].
        text_file: npz with `video_id` [Q], `embedding` float [Q, D] and, if there, `text` [Q].
        allow_pickle: also read arrays of Python objects. Such a file can run any code: only for files you trust.

    Raises:
        GridClipError: the folder has no .npy file, the text file is not usable, or the store is of another model.
    """
    folder = pathlib.Path(image_dir)
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith("."))
    except OSError as error:
        raise GridClipError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not files:
        raise GridClipError(f"{folder} holds no .npy file, expected one <video_id>.npy per video")

    failures: list[Failure] = []
    queries: QueryTable | None = None
    width: int | None = None
    if text_file is not None:
        queries = _read_queries(pathlib.Path(text_file), allow_pickle, failures)
        width = queries.vectors.shape[1]

    finished = store.finished_videos()
    videos = super_images = 0
    batch: list[VideoEmbedding] = []
    for path in files:
        if path.stem in finished:
            continue
        try:
            vectors = _read_video(path, allow_pickle, width)
        except LOAD_ERRORS as error:
            failures.append(Failure(path.stem, "read", f"{path}: {_reason(error)}"))
            continue
        if width is None or not videos:
            width = vectors.shape[1]
            _check_settings(store, width)
        batch.append(VideoEmbedding(path.stem, None, None, vectors))
        videos += 1
        super_images += len(vectors)
        if len(batch) == VIDEOS_PER_APPEND:
            store.append_videos(batch)
            batch = []
    store.append_videos(batch)
    if queries is not None and len(queries.queries):
        _check_settings(store, queries.vectors.shape[1])
        store.put_queries(queries.queries, queries.vectors)
    store.compact()
    already = sum(path.stem in finished for path in files)
    return Imported(videos, already, super_images, len(queries.queries) if queries is not None else 0, failures)


def export_features(store: Store, out: str | os.PathLike[str], format: str = "npy") -> list[pathlib.Path]:
    """Writes the store's vectors as float32, and returns the files.

    "npy" writes `<video_id>.npy` [L, D] per video and `queries.npz`, which `import_features` reads; "parquet" writes
    `super_images.parquet` and `queries.parquet`; "safetensors" writes `features.safetensors`, with the ids and texts
    as JSON in its metadata.

    Args:
        store: holds super images; queries are written if there are some.
        out: a new or empty directory.
        format: "npy", "parquet" or "safetensors".

    Raises:
        ValueError: an unknown format.
        GridClipError: the store holds no videos, `out` is not empty, or the files cannot be written.
    """
    writers = {"npy": _write_npy, "parquet": _write_parquet, "safetensors": _write_safetensors}
    if format not in writers:
        raise ValueError(f"format ({format!r}) must be one of {', '.join(writers)}")
    videos = store.read_super_images()
    queries = store.read_queries() if store.has_queries() else None
    folder = pathlib.Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise GridClipError(f"{folder} is not empty: give a new or empty directory")
        return writers[format](folder, videos, queries)
    except OSError as error:
        raise GridClipError(f"cannot write features to {folder}: {error}") from error


def _check_settings(store: Store, width: int) -> None:
    store.claim_model({"name": MODEL_NAME, "fingerprint": None, "embed_dim": width})
    store.claim_sampling({"source": MODEL_NAME})


def _read_video(path: pathlib.Path, allow_pickle: bool, width: int | None) -> np.ndarray:
    vectors = _as_float(_load(path, allow_pickle))
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"the array has shape {list(vectors.shape)}, expected [L >= 1, D]")
    if width is not None and vectors.shape[1] != width:
        raise ValueError(f"the vectors are {vectors.shape[1]} wide, expected {width}")
    units, bad = _normalise(vectors)
    if len(bad):
        raise ValueError(f"row {bad[0]} is zero or not finite ({len(bad)} of {len(vectors)} rows are)")
    return units


def _read_queries(path: pathlib.Path, allow_pickle: bool, failures: list[Failure]) -> QueryTable:
    try:
        archive = _load(path, allow_pickle)
        if isinstance(archive, np.ndarray):
            raise ValueError("a single array, expected an npz archive")
        with archive:
            lacking = [name for name in ("video_id", "embedding") if name not in archive]
            if lacking:
                raise ValueError(f"it has no {lacking[0]}, only {', '.join(archive) or 'nothing'}")
            video_ids = _strings(archive["video_id"])
            vectors = _as_float(archive["embedding"])
            texts = _strings(archive["text"]) if "text" in archive else [""] * len(video_ids)
        if vectors.ndim != 2 or not len(video_ids) == len(vectors) == len(texts):
            raise ValueError(f"embedding has shape {list(vectors.shape)}, expected [Q, D] with Q = {len(video_ids)} "
                             f"video_id and {len(texts)} text")
    except LOAD_ERRORS as error:
        raise GridClipError(f"cannot use the text file {path}: {_reason(error)}") from error
    units, bad = _normalise(vectors)
    for row in bad:
        failures.append(Failure(video_ids[row], "query", f"{path}, row {row}: the vector is zero or not finite"))
    kept = np.setdiff1d(np.arange(len(units)), bad)
    return QueryTable([Query(number, video_ids[row], texts[row]) for number, row in enumerate(kept)], units[kept])


def _load(path: pathlib.Path, allow_pickle: bool) -> np.ndarray | np.lib.npyio.NpzFile:
    refuse_special_file(path)
    return np.load(path, allow_pickle=allow_pickle)


def _reason(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return ("it holds pickled Python objects, or is no NumPy file; such a file can run code: use --allow-pickle "
                "only if you trust it")
    return str(error)


def _strings(values: np.ndarray) -> list[str]:
    if values.ndim != 1:
        raise ValueError(f"names have shape {list(values.shape)}, expected [Q]")
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _as_float(values: object) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        raise ValueError("an archive of arrays, expected one array")
    if values.dtype == object:
        values = values.astype(np.float32)
    if values.dtype.kind != "f":
        raise ValueError(f"the array is of type {values.dtype}, expected float")
    return values


def _normalise(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, D] of unit length, and the rows that cannot be (zero or not finite)."""
    with np.errstate(invalid="ignore", over="ignore"):
        wide = vectors.astype(np.float64)
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
        return np.divide(wide, norms, where=norms > 0, out=np.zeros_like(wide)).astype(np.float32), bad


def _write_npy(folder: pathlib.Path, videos: SuperImageTable, queries: QueryTable | None) -> list[pathlib.Path]:
    files = []
    for number, video_id in enumerate(videos.video_ids):
        if pathlib.PurePath(video_id).name != video_id or "\0" in video_id:
            raise GridClipError(f"the video id {video_id!r} is no file name: use the format parquet or safetensors")
        files.append(folder / f"{video_id}.npy")
        rows = slice(videos.offsets[number], videos.offsets[number + 1])
        np.save(files[-1], videos.vectors[rows].astype(np.float32))
    if queries is not None:
        files.append(folder / "queries.npz")
        np.savez(files[-1], video_id=np.array([query.video_id for query in queries.queries]),
                 text=np.array([query.text for query in queries.queries]), embedding=queries.vectors.astype(np.float32))
    return files


def _write_parquet(folder: pathlib.Path, videos: SuperImageTable, queries: QueryTable | None) -> list[pathlib.Path]:
    sizes = np.diff(videos.offsets)
    files = [folder / "super_images.parquet"]
    pyarrow.parquet.write_table(pa.table({
        "video_id": pa.array(np.repeat(np.array(videos.video_ids, object), sizes), pa.string()),
        "index": (np.arange(len(videos.vectors)) - np.repeat(videos.offsets[:-1], sizes)).astype(np.int32),
        "start_s": pa.array(videos.start_s, from_pandas=True),
        "end_s": pa.array(videos.end_s, from_pandas=True),
        "vector": _lists(videos.vectors),
    }), files[0])
    if queries is not None:
        files.append(folder / "queries.parquet")
        pyarrow.parquet.write_table(pa.table({
            **{name: [getattr(query, name) for query in queries.queries] for name in ("query_id", "video_id", "text")},
            "vector": _lists(queries.vectors),
        }), files[1])
    return files


def _lists(vectors: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).reshape(-1)), vectors.shape[1])


def _write_safetensors(folder: pathlib.Path, videos: SuperImageTable, queries: QueryTable | None) -> list[pathlib.Path]:
    tensors = {"vectors": videos.vectors.astype(np.float32), "offsets": videos.offsets,
               "start_s": videos.start_s, "end_s": videos.end_s}
    metadata = {"video_ids": json.dumps(videos.video_ids)}
    if queries is not None:
        tensors["query_vectors"] = queries.vectors.astype(np.float32)
        metadata["queries"] = json.dumps([[query.video_id, query.text] for query in queries.queries])
    files = [folder / "features.safetensors"]
    safetensors.numpy.save_file(tensors, files[0], metadata)
    return files
