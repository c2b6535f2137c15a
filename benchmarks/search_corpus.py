"""A number of super images in; clustered vectors, queries that are near some of them, and exact answers out: a folder.

Generated vectors, all from `SEED` and the block's number, so that a smaller corpus begins a larger one of as many
topics. With z a normal vector whose variance along the axis d of a random rotation falls as (d + 1)^-0.7 (about 160
axes count, as in embeddings of pictures) and whose expected squared length is 1, a super image is

    m + sqrt(.15) z_topic + sqrt(.15) z_video + sqrt(.12) z_scene + sqrt(.08) z_own,   made unit length,

with one vector m of squared length .5 in all of them, as pictures of one model have. So the expected cosine of two
super images is about .50 in unlike videos, .65 in videos of one topic, .80 in one video and .92 in one scene. A video
has 1 to 29 super images (15 in the mean) in three scenes, a topic 64 videos. A query is

    NEAR (x - m) / |x - m| + sqrt(1 - NEAR^2) z,   made unit length,

for a super image x of a video of its own: near to it, equal to none, and without m, as a sentence's vector lies apart
from those of pictures.

The demo's vectors are those of its tiny model for long generated videos of its scenes (moments_videos.py), grid size 2;
the queries are captions of one scene each.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

BLOCK_VIDEOS = 4096
TOPIC_VIDEOS = 64
LENGTHS = (1, 29)  # super images of a video
SCENES = 3
COMMON, TOPIC, VIDEO, SCENE, OWN = 0.5, 0.15, 0.15, 0.12, 0.08  # shares of a super image's squared length
SPECTRUM = 0.7
NEAR = 0.7
SEED = 0
TOP = 10
SECONDS = 8.0  # of a super image
BLOCK_ROWS = 1 << 16  # that meet the queries at once, in float32
READ_ROWS = 1 << 14
BEST_SUPER_IMAGE = "max"
# Ways to score a video, each with what a `Searcher` and a `Scoring` are given for it; the second one is the default.
SCORINGS: Mapping[str, Mapping[str, Any]] = {
    BEST_SUPER_IMAGE: {"aggregate": "max"},
    "softmax": {"aggregate": "softmax", "temperature": 1.0},
    "softmax, temperature 0.1": {"aggregate": "softmax", "temperature": 0.1},
}


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A folder with vectors, queries and exact answers; R super images of V videos, Q queries, D wide."""

    folder: pathlib.Path

    @property
    def store(self) -> pathlib.Path:
        """The same vectors as a store; the id of video v is `video_name(v)`."""
        return self.folder / "store"

    @property
    def vectors(self) -> np.memmap:
        """float16 [R, D], mapped from the file."""
        mapped: np.memmap = np.load(self.folder / "vectors.npy", mmap_mode="r")
        return mapped

    def blocks(self) -> Iterator[np.ndarray]:
        """The same as float32 [<= READ_ROWS, D], by and by; read, for what is mapped counts as a process's memory."""
        rows, width = self.vectors.shape
        with (self.folder / "vectors.npy").open("rb") as file:
            file.seek(self.vectors.offset)
            for first in range(0, rows, READ_ROWS):
                count = min(READ_ROWS, rows - first) * width
                yield np.fromfile(file, np.float16, count).reshape(-1, width).astype(np.float32)

    @property
    def offsets(self) -> np.ndarray:
        """int64 [V + 1]; video v has the rows offsets[v] to offsets[v + 1]."""
        return np.load(self.folder / "offsets.npy")

    @property
    def queries(self) -> np.ndarray:
        """float32 [Q, D], of unit length."""
        return np.load(self.folder / "queries.npy")

    def exact(self, wanted: str) -> np.ndarray:
        """int64 [Q, TOP]: the nearest "super_images", or the best videos by one of SCORINGS, best first."""
        return np.load(self.folder / "exact.npz")[wanted]

    @property
    def facts(self) -> dict[str, object]:
        """What a report says of it."""
        return json.loads((self.folder / "facts.json").read_text())


def video_name(number: int) -> str:
    return f"video_{number:08d}"


def video_number(name: str) -> int:
    return int(name.removeprefix("video_"))


def make_generated(folder: pathlib.Path, *, super_images: int, queries: int, width: int) -> Corpus:
    """The corpus of about so many super images, whole videos; kept where it is there already."""
    lengths = _lengths(super_images)
    return _made(folder, functools.partial(_write_generated, lengths=lengths, queries=queries, width=width))


def make_demo(folder: pathlib.Path, *, videos: int, queries: int, say: Callable[[str], None]) -> Corpus:
    """The corpus of the demo's model and scenes; kept where it is there already."""
    return _made(folder, functools.partial(_write_demo, videos=videos, queries=queries, say=say))


def _made(folder: pathlib.Path, write: Callable[[pathlib.Path], None]) -> Corpus:
    corpus = Corpus(folder)
    if not (folder / "facts.json").exists():  # which is written last
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(corpus.store, ignore_errors=True)  # of a run that was ended
        write(folder)
        _write_answers(corpus)
        _write_facts(corpus)
    return corpus


def _lengths(super_images: int) -> np.ndarray:
    """int64 [V], the last video cut where it would exceed the number."""
    lengths = np.empty(0, np.int64)
    block = 0
    while lengths.sum() < super_images:
        drawn = np.random.default_rng([SEED, 0, block]).integers(LENGTHS[0], LENGTHS[1] + 1, BLOCK_VIDEOS)
        lengths, block = np.concatenate([lengths, drawn]), block + 1
    videos = int(np.searchsorted(np.cumsum(lengths), super_images)) + 1
    lengths = lengths[:videos]
    lengths[-1] -= lengths.sum() - super_images
    return lengths


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What all blocks have in common: m [D], the matrix [D, D] that makes z of normal numbers, topics [T, D]."""

    common: np.ndarray
    spread: np.ndarray
    topics: np.ndarray

    def z(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """float32 [count, D]."""
        return rng.standard_normal((count, len(self.common)), np.float32) @ self.spread


def _shape(videos: int, width: int) -> _Shape:
    rng = np.random.default_rng([SEED, 1])
    variances = (np.arange(width) + 1.0) ** -SPECTRUM
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
    spread = (np.sqrt(variances / variances.sum())[:, None] * rotation).astype(np.float32)
    common = rng.standard_normal(width)
    common = (np.sqrt(COMMON) * common / np.linalg.norm(common)).astype(np.float32)
    shape = _Shape(common, spread, np.empty((0, width), np.float32))
    return dataclasses.replace(shape, topics=shape.z(rng, -(-videos // TOPIC_VIDEOS)))


def _write_generated(folder: pathlib.Path, *, lengths: np.ndarray, queries: int, width: int) -> None:
    shape = _shape(len(lengths), width)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    blocks = (
        _block(shape, number, lengths[first : first + BLOCK_VIDEOS])
        for number, first in enumerate(range(0, len(lengths), BLOCK_VIDEOS))
    )
    _write_vectors(folder, offsets, width, blocks)
    rng = np.random.default_rng([SEED, 2])
    targets = rng.choice(len(lengths), min(queries, len(lengths)), replace=False)
    rows = offsets[targets] + rng.integers(lengths[targets])
    near = np.load(folder / "vectors.npy", mmap_mode="r")[rows].astype(np.float32) - shape.common
    asked = NEAR * _unit(near) + np.sqrt(1 - NEAR**2) * shape.z(rng, len(rows))
    np.save(folder / "queries.npy", _unit(asked).astype(np.float32))
    np.save(folder / "targets.npy", rows)


def _block(shape: _Shape, number: int, lengths: np.ndarray) -> np.ndarray:
    """float16 [R, D]: the super images of a block's videos."""
    rng = np.random.default_rng([SEED, 3, number])
    topic = rng.integers(len(shape.topics), size=len(lengths))
    video = np.sqrt(TOPIC) * shape.topics[topic] + np.sqrt(VIDEO) * shape.z(rng, len(lengths))
    scene = np.repeat(video, SCENES, axis=0) + np.sqrt(SCENE) * shape.z(rng, SCENES * len(lengths))
    place = np.concatenate([np.arange(length) * SCENES // length for length in lengths.tolist()])
    rows = scene[np.repeat(SCENES * np.arange(len(lengths)), lengths) + place]
    rows += np.sqrt(OWN) * shape.z(rng, len(rows)) + shape.common
    return _unit(rows).astype(np.float16)


def _write_demo(folder: pathlib.Path, *, videos: int, queries: int, say: Callable[[str], None]) -> None:
    from ..engine.encoding.encoder import Encoder
    from ..export.folder import export_model
    from .demo.run import CHECKPOINT
    from .moments_embeddings import embed
    from .moments_videos import make_set

    model = folder / "model"
    if not (model / "model.json").exists():
        export_model(str(CHECKPOINT), model)
    embedded = embed(make_set("held", videos, seed=SEED), Encoder(model), folder, say=say, grid_sizes=(2,))
    table = embedded.tables["super", 2]
    _write_vectors(folder, table.offsets, table.vectors.shape[1], iter([table.vectors]))
    chosen = np.random.default_rng([SEED, 4]).permutation(len(embedded.queries.queries))[:queries]
    np.save(folder / "queries.npy", _unit(embedded.queries.vectors[chosen].astype(np.float32)))


def _write_vectors(folder: pathlib.Path, offsets: np.ndarray, width: int, blocks: Iterator[np.ndarray]) -> None:
    """vectors.npy, offsets.npy and the store, a block of whole videos at a time."""
    from ..engine.store.store import Store, VideoEmbedding

    np.save(folder / "offsets.npy", offsets.astype(np.int64))
    mapped = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (int(offsets[-1]), width))
    store = Store.open(folder / "store", create=True)
    row = video = 0
    for vectors in blocks:
        mapped[row : row + len(vectors)] = vectors
        some: list[VideoEmbedding] = []
        while video < len(offsets) - 1 and offsets[video + 1] <= row + len(vectors):
            own = vectors[offsets[video] - row : offsets[video + 1] - row]
            starts = SECONDS * np.arange(len(own))
            some.append(VideoEmbedding(video_name(video), starts, starts + SECONDS, own))
            video += 1
        store.append_videos(some)
        row += len(vectors)
    mapped.flush()


def _write_answers(corpus: Corpus) -> None:
    """The nearest super images by plain products in float32, the best videos by the kernel that `evaluate` uses."""
    from ..engine.scoring.retrieval import Scoring, best_videos

    queries, vectors, offsets = corpus.queries, corpus.vectors, corpus.offsets
    best: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for first, last in _runs(offsets):
        rows = vectors[offsets[first] : offsets[last]]
        own = offsets[first : last + 1] - offsets[first]
        similar = queries @ rows.astype(np.float32).T
        count = min(TOP, len(rows))
        nearest = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        scores = np.take_along_axis(similar, nearest, 1)
        best["super_images"] = _merged(best.get("super_images"), scores, nearest + offsets[first])
        for name, options in SCORINGS.items():
            scores, videos = best_videos(queries, rows, own, Scoring(**options), top=TOP, device="cpu")
            best[name] = _merged(best.get(name), scores, videos + first)
    answers: dict[str, Any] = {name: numbers for name, (_, numbers) in best.items()}
    np.savez(corpus.folder / "exact.npz", **answers)


def _runs(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of whole videos of at most BLOCK_ROWS rows, first and last + 1; a longer video is a run of its own."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BLOCK_ROWS, side="right")) - 1)
        yield first, last
        first = last


def _merged(
    best: tuple[np.ndarray, np.ndarray] | None, scores: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers [Q, TOP], best first, of those before (None: there are none) and these."""
    if best is not None:
        scores, numbers = np.hstack([best[0], scores]), np.hstack([best[1], numbers])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)


def _write_facts(corpus: Corpus) -> None:
    facts: dict[str, object] = {
        "super_images": len(corpus.vectors),
        "videos": len(corpus.offsets) - 1,
        "width": corpus.vectors.shape[1],
        "queries": len(corpus.queries),
    }
    if (corpus.folder / "targets.npy").exists():  # of generated vectors
        targets = corpus.vectors[np.load(corpus.folder / "targets.npy")].astype(np.float32)
        facts["mean_cosine_of_query_and_its_super_image"] = round(float((targets * corpus.queries).sum(1).mean()), 3)
    unfinished = corpus.folder / "facts.part"
    unfinished.write_text(json.dumps(facts))
    os.replace(unfinished, corpus.folder / "facts.json")


def _unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found
