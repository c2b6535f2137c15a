"""What a user asked of decoding, and the device, in; the source of super images that a job draws from out.

Sources are partial functions of videos that can be pickled: with several GPUs each has its own in a process of its own.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, cast, get_args

from ... import GridClipError
from ...dali_pipes.cpu import tasks
from ...dali_pipes.cpu.damage import OnDamage
from ...dali_pipes.cpu.decoders import DECODERS
from ...dali_pipes.cpu.decoders import Decoder as CpuDecoder
from ...dali_pipes.image_folders import jpeg_decoding
from ...dali_pipes.nvdali import sources
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import Sampling
from .. import choices

if TYPE_CHECKING:
    from .ledger import Source  # not at run time: it brings ONNX Runtime and Lance, which decoding does not need

logger = logging.getLogger(__name__)

Decoder = choices.Decoder


def video_source(
    decoder: Decoder,
    sampling: Sampling,
    image_size: int,
    *,
    device_id: int | None,
    num_workers: int,
    time_limit_s: float,
    on_damage: OnDamage = "nearest",
) -> Source:
    """A source of the super images of videos.

    Args:
        decoder: `auto` is `hybrid` where there is a GPU and DALI, else the fastest decoder on the CPU. `dali` without a
            GPU is DALI's CPU variant, for VP8, VP9 and MJPEG. `decord` and `pyav` are the CPU's.
        image_size: super images are resized to it.
        device_id: the GPU; None: no GPU is used.
        num_workers, time_limit_s: see `pool.run`.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.opened`.

    Raises:
        GridClipError: DALI or decord was asked for by name and cannot be used.
    """
    if uses_dali(decoder, device_id):
        return functools.partial(
            sources.decode_videos,
            sampling=sampling,
            image_size=image_size,
            device_id=device_id,
            hybrid=decoder != "dali",
            required=decoder != "auto",
            on_damage=on_damage,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
    if device_id is not None and decoder == "auto":
        logger.warning("videos are decoded on the CPU: %s", sources.why_not())
    on_cpu = cast(CpuDecoder, decoder)
    return cpu_video_source(
        on_cpu, sampling, image_size, num_workers=num_workers, time_limit_s=time_limit_s, on_damage=on_damage
    )


def uses_dali(decoder: Decoder, device_id: int | None) -> bool:
    """Whether DALI decodes videos; raises GridClipError where a decoder was asked for by name and cannot be used."""
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder ({decoder!r}) must be one of {', '.join(get_args(Decoder))}")
    named = DECODERS.get(decoder)
    if named is not None and not named.is_installed():
        raise GridClipError(
            f"`decoder={decoder!r}`: {named.title} is not installed: pip install {named.module}, "
            "or use `decoder='pyav'`"
        )
    obstacle = sources.why_not()
    if decoder in ("dali", "hybrid") and obstacle:
        raise GridClipError(f"`decoder={decoder!r}`: {obstacle}; or use `decoder='pyav'`")
    return decoder in ("dali", "hybrid") or (decoder == "auto" and device_id is not None and obstacle is None)


def cpu_video_source(
    decoder: CpuDecoder,
    sampling: Sampling,
    image_size: int,
    *,
    num_workers: int,
    time_limit_s: float,
    on_damage: OnDamage = "nearest",
) -> Source:
    """The same, in worker processes alone."""
    return functools.partial(
        pool.run,
        works=tasks.embedding_works(sampling, decoder, image_size, on_damage),
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=tasks.count_super_images,
    )


def image_source(image_size: int, *, device_id: int | None, num_workers: int, time_limit_s: float) -> Source:
    """A source of the super images in JPEG folders: nvJPEG where there are a GPU and DALI, else worker processes."""
    obstacle = sources.why_not()
    if device_id is not None and not obstacle:
        return functools.partial(
            sources.decode_images,
            image_size=image_size,
            device_id=device_id,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
    if device_id is not None:
        logger.warning("JPEG files are decoded on the CPU: %s", obstacle)
    return cpu_image_source(image_size, num_workers=num_workers, time_limit_s=time_limit_s)


def cpu_image_source(image_size: int, *, num_workers: int, time_limit_s: float) -> Source:
    """The same, in worker processes alone."""
    jpeg_decoding.warn_without_turbojpeg()
    return functools.partial(
        pool.run,
        works=tasks.image_works(image_size),
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=tasks.count_super_images,
    )
