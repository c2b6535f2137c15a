"""Long videos and an encoder in; their embeddings at every grid size out, kept in a folder so that a run can go on.

A file holds a few videos and appears under its name only when it is whole. The folder's name tells the model, the
videos and how they are drawn: what was made of others is never read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from ..dali_pipes.grid import assemble
from ..engine.encoding.encoder import Encoder
from ..engine.scoring.normalisation import QueryBank
from ..engine.store.store import QueryTable, SuperImageTable
from .demo import scenes
from .moments_videos import FRAME_RATE, LongVideo, VideoSet, other_captions

FPS = 0.5  # wanted frames per second of video
GRID_SIZES = (1, 2, 3, 4)
VIDEOS_PER_FILE = 20
PASS = 16  # super images at once
LEVELS = ("super", "cell")
BANK, BANK_SEED = 1000, 1


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A set's embeddings.

    Attributes:
        queries: with their vectors.
        bank: captions of other scenes, for QB-Norm.
        targets: int64 [Q], the position of each query's own video.
        tables: the videos by grid size and level, ("super", N) being one row a super image and ("cell", N) one a frame.
        passes: super images that went through the encoder, by grid size.
        frames: wanted frames of all videos.
    """

    queries: QueryTable
    bank: QueryBank
    targets: np.ndarray
    tables: dict[tuple[str, int], SuperImageTable]
    passes: dict[int, int]
    frames: int


def embed(
    videos: VideoSet, encoder: Encoder, folder: pathlib.Path, *, say: Callable[[str], None], grid_sizes: Sequence[int]
) -> Embedded:
    """The embeddings of a set; those that are in the folder already are read from there.

    Args:
        videos: to be drawn.
        encoder: with a model of any image size.
        folder: for the files.
        say: told how far it is, and how long the rest will take.
        grid_sizes: cells per row of the super images.
    """
    own = folder / _name(videos, encoder, grid_sizes)
    own.mkdir(parents=True, exist_ok=True)
    firsts = range(0, len(videos.videos), VIDEOS_PER_FILE)
    paths = [own / f"videos_{first:05d}.npz" for first in firsts]
    missing = [(first, path) for first, path in zip(firsts, paths, strict=True) if not path.exists()]
    begun = time.monotonic()
    for done, (first, path) in enumerate(missing):
        _write(path, _embed_videos(videos.videos[first : first + VIDEOS_PER_FILE], encoder, grid_sizes))
        left_s = (time.monotonic() - begun) / (done + 1) * (len(missing) - done - 1)
        if done in (0, len(missing) - 1) or done % 5 == 4:
            say(f"{videos.split}: {done + 1} of {len(missing)} files of {VIDEOS_PER_FILE} videos, {left_s:.0f} s to go")
    texts = encoder.encode_texts([query.text for query in videos.queries])
    others = encoder.encode_texts(other_captions(BANK, seed=BANK_SEED))
    position = {video.video_id: number for number, video in enumerate(videos.videos)}
    targets = np.array([position[query.video_id] for query in videos.queries], np.int64)
    tables = _tables(videos.videos, paths)
    return Embedded(
        QueryTable(videos.queries, texts.astype(np.float16)),
        QueryBank(others.astype(np.float16), f"{BANK:,} captions of other scenes"),
        targets,
        tables,
        {grid: len(table.vectors) for (level, grid), table in tables.items() if level == "super"},
        sum(len(video.wanted(FPS)) for video in videos.videos),
    )


def passes_of(videos: Sequence[LongVideo], grid_sizes: Sequence[int]) -> int:
    """Super images of all the videos in all grid sizes."""
    return sum(-(-len(video.wanted(FPS)) // grid**2) for video in videos for grid in grid_sizes)


def seconds_per_video(videos: Sequence[LongVideo], encoder: Encoder, grid_sizes: Sequence[int]) -> float:
    """Measured on the first video, after the encoder was warmed up by it."""
    _embed_videos(videos[:1], encoder, grid_sizes)
    begun = time.monotonic()
    _embed_videos(videos[:1], encoder, grid_sizes)
    return (
        (time.monotonic() - begun) / len(videos[0].wanted(FPS)) * float(np.mean([len(v.wanted(FPS)) for v in videos]))
    )


def _name(videos: VideoSet, encoder: Encoder, grid_sizes: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in encoder.model_dir.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    digest.update(pathlib.Path(scenes.__file__).read_bytes())
    digest.update(repr((videos.videos, FPS, FRAME_RATE, tuple(grid_sizes), encoder.info.has_cells)).encode())
    return f"{videos.split}-{digest.hexdigest()[:16]}"


def _embed_videos(videos: Sequence[LongVideo], encoder: Encoder, grid_sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """float16 [rows, D] of all the videos, one after the other, by level and grid size."""
    parts: dict[str, list[np.ndarray]] = {}
    for video in videos:
        frames = list(video.frames(video.wanted(FPS)))
        for grid in grid_sizes:
            for level, vectors in zip(LEVELS, _encode(encoder, frames, grid), strict=False):
                parts.setdefault(_key(level, grid), []).append(vectors)
    return {key: np.concatenate(vectors).astype(np.float16) for key, vectors in parts.items()}


def _encode(encoder: Encoder, frames: list[np.ndarray], grid: int) -> list[np.ndarray]:
    """The vectors of the super images [L, D], and, where cells are known and are not the whole image, those [F, D]."""
    images = assemble(frames, grid, encoder.info.image_size)
    blocks = [images[first : first + PASS] for first in range(0, len(images), PASS)]
    if grid == 1 or not encoder.info.has_cells:
        return [np.concatenate([encoder.encode_images(block) for block in blocks])]
    both = np.concatenate([encoder.encode_images(block, cells=grid) for block in blocks])
    return [both[:, 0], both[:, 1:].reshape(-1, both.shape[2])[: len(frames)]]


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(unfinished, path)


def _tables(videos: Sequence[LongVideo], paths: Sequence[pathlib.Path]) -> dict[tuple[str, int], SuperImageTable]:
    files = [np.load(path) for path in paths]
    tables = {}
    for key in files[0].files:
        level, grid = key.split("_")
        vectors = np.concatenate([file[key] for file in files])
        tables[level, int(grid)] = _table(videos, vectors, 1 if level == "cell" else int(grid) ** 2)
    return tables


def _table(videos: Sequence[LongVideo], vectors: np.ndarray, frames_per_row: int) -> SuperImageTable:
    """Rows with the times that they stand for: until the next row's first frame, as in a store."""
    starts = [video.wanted(FPS)[::frames_per_row] / FRAME_RATE for video in videos]
    ends = [np.append(own[1:], video.duration_s) for own, video in zip(starts, videos, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in starts])])
    return SuperImageTable(
        [video.video_id for video in videos], offsets, vectors, np.concatenate(starts), np.concatenate(ends)
    )


def _key(level: str, grid: int) -> str:
    return f"{level}_{grid}"
