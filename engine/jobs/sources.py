"""What a user asked of decoding, and the device, in; the source of super images that a job draws from out.

Sources are partial functions of videos that can be pickled: with several GPUs each has its own in a process of its own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import cast, get_args

from ... import GridClipError
from ...dali_pipes.contract import Source
from ...dali_pipes.cpu import tasks
from ...dali_pipes.cpu.damage import OnDamage
from ...dali_pipes.cpu.decoders import DECODERS
from ...dali_pipes.cpu.decoders import Decoder as CpuDecoder
from ...dali_pipes.image_folders import jpeg_decoding
from ...dali_pipes.layout import SuperImageSize
from ...dali_pipes.nvdali import sources
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import Sampling
from ..choices import DECODE, Decode, Decoder
from ..routing import Facts, route

logger = logging.getLogger(__name__)


def video_source(
    decoder: Decoder,
    sampling: Sampling,
    image_size: int,
    *,
    device_id: int | None,
    num_workers: int,
    time_limit_s: float,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
) -> Source:
    """A source of the super images of videos.

    Args:
        decoder: `auto` is `hybrid` where there is a GPU and DALI, else the fastest decoder on the CPU. `dali` without a
            GPU is DALI's CPU variant, for VP8, VP9 and MJPEG. `decord` and `pyav` are the CPU's.
        sampling: which frames, and how they are laid out; with its `decode="fast"`, `auto` is PyAV.
        image_size: super images are resized to it.
        device_id: the GPU; None: no GPU is used.
        num_workers, time_limit_s: see `pool.run`.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.
        more_sizes: further sizes of each chunk, from the same decoded frames: its `other_images`.

    Raises:
        GridClipError: DALI or decord was asked for by name and cannot be used, or not for such a sampling.
    """
    if uses_dali(decoder, device_id, sampling.decode):
        return functools.partial(
            sources.decode_videos,
            sampling=sampling,
            image_size=image_size,
            device_id=device_id,
            hybrid=decoder != "dali",
            required=decoder != "auto",
            on_damage=on_damage,
            more_sizes=more_sizes,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
    if device_id is not None and decoder == "auto":
        logger.warning("videos are decoded on the CPU: %s", _dali_obstacle(sampling.decode))
    on_cpu = cast(CpuDecoder, decoder)
    return cpu_video_source(
        on_cpu,
        sampling,
        image_size,
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        on_damage=on_damage,
        more_sizes=more_sizes,
    )


def uses_dali(decoder: Decoder, device_id: int | None, decode: Decode = DECODE) -> bool:
    """Whether DALI decodes videos; raises GridClipError where a decoder was asked for by name and cannot be used."""
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder ({decoder!r}) must be one of {', '.join(get_args(Decoder))}")
    named = DECODERS.get(decoder)
    if named is not None and not named.is_installed():
        raise GridClipError(
            f"`decoder={decoder!r}`: {named.title} is not installed: pip install {named.module}, "
            "or use `decoder='pyav'`"
        )
    check_decode(decoder, decode)
    choice = route(_facts(device_id, decoder, decode)).videos
    if choice.path is None:
        raise GridClipError(f"`decoder={decoder!r}`: {choice.why_not}; or use `decoder='pyav'`")
    return choice.path in ("dali", "hybrid")


def check_decode(decoder: Decoder, decode: Decode) -> None:
    """Raises GridClipError where a decoder was asked for by name that cannot leave steps of decoding out."""
    if decode == "fast" and decoder not in ("auto", "pyav"):
        raise GridClipError(
            f"`decoder={decoder!r}` decodes exactly, PyAV alone does `decode='fast'`: use `decoder='pyav'`, or "
            "`decode='exact'`"
        )


def _dali_obstacle(decode: Decode) -> str | None:
    """Why DALI cannot be used; None where it can."""
    return "DALI decodes exactly, and `decode='fast'` was asked for" if decode == "fast" else sources.why_not()


def _facts(device_id: int | None, decoder: Decoder = "auto", decode: Decode = DECODE) -> Facts:
    """What decoding needs to know: whoever gives a GPU wants the pixels there."""
    no_gpu = None if device_id is not None else "no GPU is used"
    return Facts(
        decoder=decoder,
        gpu_obstacle=no_gpu,
        cuda_obstacle=no_gpu,
        dali_obstacle=_dali_obstacle(decode),
        has_decord=DECODERS["decord"].is_installed(),
    )


def cpu_video_source(
    decoder: CpuDecoder,
    sampling: Sampling,
    image_size: int,
    *,
    num_workers: int,
    time_limit_s: float,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
) -> Source:
    """The same, in worker processes alone."""
    return functools.partial(
        pool.run,
        tasks=tasks.embedding_tasks(sampling, decoder, image_size, on_damage, more_sizes),
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=tasks.count_super_images,
    )


def image_source(image_size: int, *, device_id: int | None, num_workers: int, time_limit_s: float) -> Source:
    """A source of the super images in JPEG folders: nvJPEG where there are a GPU and DALI, else worker processes."""
    choice = route(_facts(device_id)).images
    if choice.path == "dali":
        return functools.partial(
            sources.decode_images,
            image_size=image_size,
            device_id=device_id,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
    if device_id is not None:
        logger.warning("JPEG files are decoded on the CPU: %s", choice.why_not)
    return cpu_image_source(image_size, num_workers=num_workers, time_limit_s=time_limit_s)


def cpu_image_source(image_size: int, *, num_workers: int, time_limit_s: float) -> Source:
    """The same, in worker processes alone."""
    jpeg_decoding.warn_without_turbojpeg()
    return functools.partial(
        pool.run,
        tasks=tasks.image_tasks(image_size),
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=tasks.count_super_images,
    )
