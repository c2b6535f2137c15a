"""Feature files made elsewhere in, a store out; and a store in, npy, parquet or safetensors files out."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pickle
import tokenize
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy

from .. import GridClipError
from ..dali_pipes import ids
from ..dali_pipes.contract import Failure
from ..dali_pipes.ordinary_file import refuse_special_file
from .annotations.annotations import Query
from .choices import Level
from .listing.walk import joined, walk
from .store.store import QueryTable, Store, SuperImageTable, VideoEmbedding

MODEL_NAME = "imported features"
VIDEOS_PER_APPEND = 512
LOAD_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    KeyError,
    TypeError,
    MemoryError,
    RuntimeError,  # a zip entry that is encrypted or packed in a way that is not known here
)


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
        image_dir: holds one `<video_id>.npy` per video, float [L, D]; an id with slashes lies in subfolders.
        text_file: npz with `video_id` [Q], `embedding` float [Q, D] and, if there, `text` [Q].
        allow_pickle: also read arrays of Python objects. Such a file can run any code: only for files you trust.

    Raises:
        GridClipError: the folder has no .npy file, the text file is not usable, or the store is of another model.
    """
    failures: list[Failure] = []
    files = _feature_files(pathlib.Path(image_dir), failures)
    queries: QueryTable | None = None
    width: int | None = None
    if text_file is not None:
        queries = _read_queries(pathlib.Path(text_file), allow_pickle, failures)
        width = queries.vectors.shape[1]

    finished = store.finished_videos()
    videos = super_images = 0
    batch: list[VideoEmbedding] = []
    for video_id, path in files.items():
        if video_id in finished:
            continue
        try:
            vectors = _read_video(path, allow_pickle, width)
        except LOAD_ERRORS as error:
            failures.append(Failure(video_id, "read", f"{path}: {_reason(error)}"))
            continue
        if width is None or not videos:
            width = vectors.shape[1]
            _check_settings(store, width)
        batch.append(VideoEmbedding(video_id, None, None, vectors))
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
    already = sum(video_id in finished for video_id in files)
    return Imported(videos, already, super_images, len(queries.queries) if queries is not None else 0, failures)


def export_features(
    store: Store,
    out: str | os.PathLike[str],
    format: str = "npy",
    *,
    level: Level | None = None,
    grid_size: int | None = None,
) -> list[pathlib.Path]:
    """Writes the store's vectors as float32, and returns the files.

    "npy" writes `<video_id>.npy` [L, D] per video (an id with slashes into subfolders) and `queries.npz`, which
    `import_features` reads; "parquet" writes `super_images.parquet` and `queries.parquet`; "safetensors" writes
    `features.safetensors`, with the ids and texts as JSON in its metadata.

    Args:
        store: holds super images; queries are written if there are some.
        out: a new or empty directory.
        format: "npy", "parquet" or "safetensors".
        level, grid_size: which of the store's vectors, see `Store.read_super_images`; L is the number of super images,
            or, of cells, that of frames.

    Raises:
        ValueError: an unknown format or level.
        GridClipError: the store holds no videos, or none of this level and grid size, `out` is not empty, or the files
            cannot be written.
    """
    writers = {"npy": _write_npy, "parquet": _write_parquet, "safetensors": _write_safetensors}
    if format not in writers:
        raise ValueError(f"format ({format!r}) must be one of {', '.join(writers)}")
    videos = store.read_super_images(level, grid_size)
    queries = store.read_queries() if store.has_queries() else None
    folder = pathlib.Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise GridClipError(f"{folder} is not empty: give a new or empty directory")
        return writers[format](folder, videos, queries)
    except OSError as error:
        raise GridClipError(f"cannot write features to {folder}: {error}") from error


def _feature_files(folder: pathlib.Path, failures: list[Failure]) -> dict[str, pathlib.Path]:
    """The .npy files below a folder by video id; those whose ids cannot be stored become failures."""

    def unreadable(below: pathlib.Path, error: OSError) -> None:
        if below == folder:
            raise GridClipError(f"cannot read the folder {folder}: {error.strerror}") from error
        name = ids.printable(str(below.relative_to(folder)))
        failures.append(Failure(name, "read", f"cannot read the folder: {error.strerror}"))

    files: dict[str, pathlib.Path] = {}
    suffix = ".npy"
    names: list[str] = []
    for below, inside in walk(folder, unreadable):
        # An empty folder of such a name was meant to be a file: reading it says so.
        names += [joined(below, name) for name in inside] or [below]
    for name in sorted(name for name in names if name.endswith(suffix)):
        video_id = name.removesuffix(suffix)
        problem = ids.id_problem(video_id)
        if problem is None:
            files[video_id] = folder / name
        else:
            failures.append(Failure(ids.printable(video_id), "read", problem))
    if not files:
        first = f"; {failures[0].video_id}: {failures[0].reason}" if failures else ""
        raise GridClipError(f"{folder} holds no .npy file, expected one <video_id>.npy per video{first}")
    return files


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
            raise ValueError(
                f"embedding has shape {list(vectors.shape)}, expected [Q, D] with Q = {len(video_ids)} "
                f"video_id and {len(texts)} text"
            )
    except LOAD_ERRORS as error:
        raise GridClipError(f"cannot use the text file {path}: {_reason(error)}") from error
    units, bad = _normalise(vectors)
    problems = dict.fromkeys(bad.tolist(), "the vector is zero or not finite")
    for row, (video_id, text) in enumerate(zip(video_ids, texts, strict=True)):
        unusable = ids.id_problem(video_id) or ids.text_problem(text)
        if unusable:
            problems[row] = unusable
    failures.extend(
        Failure(ids.printable(video_ids[row]), "query", f"{path}, row {row}: {problems[row]}")
        for row in sorted(problems)
    )
    kept = [row for row in range(len(units)) if row not in problems]
    return QueryTable([Query(number, video_ids[row], texts[row]) for number, row in enumerate(kept)], units[kept])


def _load(path: pathlib.Path, allow_pickle: bool) -> np.ndarray | np.lib.npyio.NpzFile:
    refuse_special_file(path)
    loaded: np.ndarray | np.lib.npyio.NpzFile = np.load(path, allow_pickle=allow_pickle)
    return loaded


def _reason(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return (
            "it holds pickled Python objects, or is no NumPy file; such a file can run code: use `allow_pickle=True` "
            "only if you trust it"
        )
    return str(error)


def _strings(values: np.ndarray) -> list[str]:
    if values.ndim != 1:
        raise ValueError(f"names have shape {list(values.shape)}, expected [Q]")
    return [os.fsdecode(value) if isinstance(value, bytes) else str(value) for value in values.tolist()]


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
    try:
        files = [ids.path_below(folder, video_id, ".npy") for video_id in videos.video_ids]
    except ids.UnusableId as error:
        raise GridClipError(f"{error}; use the format parquet or safetensors") from error
    for file, first, last in zip(files, videos.offsets[:-1], videos.offsets[1:], strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, videos.vectors[first:last].astype(np.float32))
    if queries is not None:
        files.append(folder / "queries.npz")
        np.savez(
            files[-1],
            video_id=np.array([query.video_id for query in queries.queries]),
            text=np.array([query.text for query in queries.queries]),
            embedding=queries.vectors.astype(np.float32),
        )
    return files


def _write_parquet(folder: pathlib.Path, videos: SuperImageTable, queries: QueryTable | None) -> list[pathlib.Path]:
    sizes = np.diff(videos.offsets)
    files = [folder / "super_images.parquet"]
    pyarrow.parquet.write_table(
        pa.table(
            {
                "video_id": pa.array(np.repeat(np.array(videos.video_ids, object), sizes), pa.string()),
                "index": (np.arange(len(videos.vectors)) - np.repeat(videos.offsets[:-1], sizes)).astype(np.int32),
                "start_s": pa.array(videos.start_s, from_pandas=True),
                "end_s": pa.array(videos.end_s, from_pandas=True),
                "vector": _lists(videos.vectors),
            }
        ),
        files[0],
    )
    if queries is not None:
        files.append(folder / "queries.parquet")
        pyarrow.parquet.write_table(
            pa.table(
                {
                    **{
                        name: [getattr(query, name) for query in queries.queries]
                        for name in ("query_id", "video_id", "text")
                    },
                    "vector": _lists(queries.vectors),
                }
            ),
            files[1],
        )
    return files


def _lists(vectors: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).reshape(-1)), vectors.shape[1])


def _write_safetensors(folder: pathlib.Path, videos: SuperImageTable, queries: QueryTable | None) -> list[pathlib.Path]:
    tensors = {
        "vectors": videos.vectors.astype(np.float32),
        "offsets": videos.offsets,
        "start_s": videos.start_s,
        "end_s": videos.end_s,
    }
    metadata = {"video_ids": json.dumps(videos.video_ids)}
    if queries is not None:
        tensors["query_vectors"] = queries.vectors.astype(np.float32)
        metadata["queries"] = json.dumps([[query.video_id, query.text] for query in queries.queries])
    files = [folder / "features.safetensors"]
    safetensors.numpy.save_file(tensors, files[0], metadata)
    return files
