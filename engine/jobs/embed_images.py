"""JPEG folders of super images in, their embeddings in a store out."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from ... import GridClipError
from ...dali_pipes.contract import VideoFile
from ...dali_pipes.image_folders import jpeg
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import Sampling
from ..encoding.encoder import Encoder
from ..listing import list_image_folders
from . import devices
from .ledger import embed, open_store
from .progress import JobSummary
from .sources import cpu_image_source, image_source


def embed_images(
    encoder: Encoder,
    image_dir: pathlib.Path,
    store_path: pathlib.Path,
    *,
    batch_size: int | None = None,
    num_workers: int = 1,
    time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    num_gpus: int = 1,
) -> JobSummary:
    """Embeds every folder <image_dir>/<video_id> of img_0001.jpg ... into a store; ids may have slashes.

    Args:
        encoder: the model; super images of another size are resized.
        image_dir: what `make_super_images` wrote, or another program (then times are unknown).
        store_path: made if it is missing; failures.jsonl and notices.jsonl go there, too.
        batch_size: super images per pass, default by the encoder's provider.
        num_workers: reading processes, of all GPUs together.
        time_limit_s: seconds without a result after which a reader counts as hung (a network drive).
        resume: leave out the videos that are in the store.
        overwrite: remove all super images from the store first.
        num_gpus: with more than one, each GPU gets a process of its own, see `devices.embed`.

    Raises:
        GridClipError: an argument is not usable, the folders were made with different settings, the store has some of
            them and neither resume nor overwrite is given, it has other settings, or the disk is full.
        Interrupted: Ctrl-C. Finished videos are in the store.
    """
    listing = list_image_folders(image_dir)
    sampling = _common_sampling(listing.videos)
    store, stored = open_store(store_path, encoder, listing.videos, resume=resume, overwrite=overwrite)
    store.claim_sampling({"source": "super image folders", **sampling})
    settings: dict[str, Any] = {"image_size": encoder.info.image_size, "time_limit_s": time_limit_s}
    make_source = functools.partial(image_source, **settings)
    if num_gpus < 2:
        source = make_source(device_id=encoder.device_id, num_workers=num_workers)
        return embed(listing, source, encoder, store, stored, batch_size=batch_size)
    return devices.embed(
        listing,
        make_source,
        functools.partial(cpu_image_source, **settings),
        encoder,
        store,
        stored,
        device_ids=range(num_gpus),
        num_workers=num_workers,
        batch_size=batch_size,
    )


def _common_sampling(folders: Sequence[VideoFile]) -> dict[str, Any]:
    """The settings that the folders' sidecars name, None for each where there is no sidecar."""
    known: tuple[VideoFile, dict[str, Any]] | None = None
    for folder in folders:
        sidecar = jpeg.read_sidecar(folder.path)
        if sidecar is None:
            continue
        sampling = dataclasses.asdict(sidecar.sampling)
        if known is None:
            known = folder, sampling
        for name, value in sampling.items():
            if value != known[1][name]:
                raise GridClipError(
                    f"{folder.path} was made with {name} = {value}, {known[0].path} with {known[1][name]}: make them "
                    "again with the same settings, or keep them in different folders"
                )
    return known[1] if known is not None else {field.name: None for field in dataclasses.fields(Sampling)}
