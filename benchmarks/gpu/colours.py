"""The same pictures in BT.601 and BT.709, limited and full range in; how near DALI's colours are to PyAV's out. Step C.

What is under MIN_PSNR_DB must be left to the CPU by `segments.why_not`: the check fails where it is not.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.nvdali import segments
from gridclip.dali_pipes.nvdali.nvidia_driver import DecoderLimits
from gridclip.dali_pipes.sampling import Sampling

from . import compare, videos
from .checks import Check, guarded, judged, measured
from .decoding import decode, new_pipeline
from .plans import Place, Work
from .segments_of import whole_file
from .videos import Recipe

SIZE_PX = 336
FRAMES = 8
MIN_PSNR_DB = 35.0
MATRICES = {"BT.601": 6, "BT.709": 1, "matrix not told": 2}
RANGES = {"limited range": 1, "full range": 2}


def run(work: Work) -> Iterator[Check]:
    """Every matrix in every range."""
    recipes = {
        f"{matrix}, {level}": _recipe(work, f"{matrix} {level}", colour_matrix, colour_range)
        for matrix, colour_matrix in MATRICES.items()
        for level, colour_range in RANGES.items()
    }
    paths = videos.make_all(list(recipes.values()), work.folder / "clips")
    limits = work.place.decoder_limits()
    for name, recipe in recipes.items():
        yield from guarded(name, check_colours(work.place, name, paths[recipe], limits))


def check_colours(
    place: Place, name: str, path: pathlib.Path, limits: Mapping[str, DecoderLimits] | None
) -> Iterator[Check]:
    """One file, decoded by both."""
    made = decode(new_pipeline(place, SIZE_PX), whole_file(path, np.arange(FRAMES)))
    psnr_db = compare.psnr_db(made, compare.decode_all(path, SIZE_PX))
    with open_reading(path, Sampling()) as reading:
        obstacle = segments.why_not(reading, place.dali_device, limits)
    yield judge(name, float(psnr_db.min()), obstacle)


def judge(name: str, lowest_db: float, obstacle: str | None) -> Check:
    """What a PSNR means, given why jobs leave such a video to the CPU (None: they give it to DALI)."""
    told = f"lowest {lowest_db:.1f} dB"
    values = {"lowest_db": round(lowest_db, 1), "left_to_cpu": obstacle}
    if obstacle is not None:
        return measured(name, f"{told}; for the CPU: {obstacle}", **values)
    if lowest_db < MIN_PSNR_DB:
        told += f", at least {MIN_PSNR_DB:g} wanted: `segments.why_not` must leave such videos to the CPU"
    return judged(name, lowest_db >= MIN_PSNR_DB, told, **values)


def _recipe(work: Work, label: str, colour_matrix: int, colour_range: int) -> Recipe:
    codec = work.plan.colour_codec
    return Recipe(
        f"colours {label} {codec}",
        codec,
        *work.plan.colour_size,
        FRAMES,
        work.plan.crop_options,
        suffix="webm" if "vp" in codec else "mp4",
        colour_range=colour_range,
        colour_matrix=colour_matrix,
    )
