"""Videos of nearly the same size in turns in; whether each comes out as it does in a process of its own, out. Step B.

DALI keeps decoders and sets them up anew for the next video. 864 x 480 and 854 x 480 have the same macroblocks and
another crop: a decoder that is reused without a look at the crop shows pixels that should have been cut off.
"""

from __future__ import annotations

import multiprocessing
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from . import compare, videos
from .checks import Check, guarded, judged
from .decoding import SIZE_PX, decode, new_pipeline
from .plans import Place, Work
from .segments_of import whole_file
from .videos import Recipe

FRAMES = 12


def run(work: Work) -> Iterator[Check]:
    """Each pair: first, second, first, second by one pipeline, and both in one batch; each also alone."""
    recipes = {size: _recipe(work, size) for pair in work.plan.crop_sizes for size in pair}
    paths = videos.make_all(list(recipes.values()), work.folder / "clips")
    for pair in work.plan.crop_sizes:
        names = [f"{width} x {height}" for width, height in pair]
        files = [paths[recipes[size]] for size in pair]
        yield from guarded(" and ".join(names), check_pair(work.place, files, names))


def check_pair(place: Place, paths: Sequence[pathlib.Path], names: Sequence[str]) -> Iterator[Check]:
    """Two files of like size, against PyAV and against a process that sees one of them only."""
    alone = [_alone(place, path) for path in paths]
    pipeline = new_pipeline(place, SIZE_PX)
    turns = [(position, decode(pipeline, _chunks(paths[position]))) for position in (0, 1, 0, 1)]
    together = np.split(decode(pipeline, [*_chunks(paths[0]), *_chunks(paths[1])]), [FRAMES])
    turns += list(enumerate(together))
    for position, name in enumerate(names):
        made = [frames for at, frames in turns if at == position]
        fits = [compare.fit(frames, compare.decode_all(paths[position], SIZE_PX)) for frames in made]
        lowest = min(float(fit.psnr_db.min()) for fit in fits)
        unequal = sum(not np.array_equal(frames, alone[position]) for frames in made)
        right = not unequal and all(fit.right for fit in fits)
        told = f"{len(made)} turns, {unequal} differ from a decode in a process of its own; lowest {lowest:.1f} dB"
        yield judged(
            f"{name} in turns with {names[1 - position]}", right, told, lowest_db=round(lowest, 1), unequal=unequal
        )


def _alone(place: Place, path: pathlib.Path) -> np.ndarray:
    """The file's frames from a fresh process, whose decoder has seen nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(decode_file, place, path).result()


def decode_file(place: Place, path: pathlib.Path) -> np.ndarray:
    """The first frames of a file by a pipeline of its own, uint8 [FRAMES, SIZE_PX, SIZE_PX, 3]."""
    return decode(new_pipeline(place, SIZE_PX), _chunks(path))


def _chunks(path: pathlib.Path) -> list:
    return whole_file(path, np.arange(FRAMES))


def _recipe(work: Work, size: tuple[int, int]) -> Recipe:
    codec = work.plan.crop_codec
    suffix = "webm" if "vp" in codec else "mp4"
    return Recipe(f"crop {codec}", codec, *size, FRAMES, work.plan.crop_options, suffix=suffix)
