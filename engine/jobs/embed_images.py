"""JPEG folders of super images in, their embeddings in a store out."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from ... import GridClipError
from ...dali_pipes.contract import Failure, VideoFile
from ...dali_pipes.image_folders import jpeg
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import Sampling
from ..choices import CELLS
from ..encoding.encoder import Encoder
from ..listing.listing import Listing, list_image_folders
from . import cluster as cluster_jobs
from . import cluster_nodes, devices, retrying
from .bookkeeping import Bookkeeping
from .cells import makes_cells
from .ledger import SUPER_IMAGES_ALONE, embed, open_store, pass_kinds
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
    cells: bool | None = CELLS,
    retry_failed: str | None = None,
    metrics_address: tuple[str, int] | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
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
        cells: also make a vector of each wanted frame, from its cell; a folder that does not say when its frames are is
            lost. None: see `cells.makes_cells`.
        retry_failed, metrics_address, cluster, cpus_per_worker: see `embed_videos.embed_videos`.

    Raises:
        GridClipError: an argument is not usable, the folders were made with different settings, the store has some of
            them and neither resume nor overwrite is given, it has other settings, or the disk is full.
        Interrupted: Ctrl-C. Finished videos are in the store.
    """
    retrying.check(retry_failed, overwrite)
    listing = list_image_folders(image_dir)
    if retry_failed is not None:
        listing, resume = retrying.only_failed(listing, store_path, retry_failed), True
    told = _read_sidecars(listing.videos)
    all_timed = bool(listing.videos) and len(told.timed) == len(listing.videos)
    known = Sampling(**told.sampling) if all_timed else None
    cells = makes_cells(cells, known, encoder.info, store_path, overwrite=overwrite)
    passes = SUPER_IMAGES_ALONE
    if cells and listing.videos:  # a retry may find none of its folders again
        listing = _with_frame_times(listing, told.timed)
        passes = pass_kinds(Sampling(**told.sampling), cells)
    settings: dict[str, Any] = {"image_size": encoder.info.image_size, "time_limit_s": time_limit_s}
    make_source = functools.partial(image_source, **settings)
    make_careful_source = functools.partial(cpu_image_source, **settings)
    job: dict[str, Any] = {"batch_size": batch_size, "passes": passes}
    job["books"] = Bookkeeping(retry_failed is not None, metrics_address)
    with cluster_nodes.connected_if(cluster) as ray:
        store, stored = open_store(store_path, encoder, listing.videos, resume=resume, overwrite=overwrite)
        store.claim_sampling({"source": "super image folders", "cells": cells, **told.sampling})
        if ray is not None:
            return cluster_jobs.embed(
                listing,
                make_source,
                make_careful_source,
                encoder,
                store,
                stored,
                ray=ray,
                cpus_per_worker=cpus_per_worker,
                use_gpus=num_gpus > 0,
                **job,
            )
        if num_gpus < 2:
            source = make_source(device_id=encoder.device_id, num_workers=num_workers)
            return embed(listing, source, encoder, store, stored, **job)
        return devices.embed(
            listing,
            make_source,
            make_careful_source,
            encoder,
            store,
            stored,
            device_ids=range(num_gpus),
            num_workers=num_workers,
            **job,
        )


@dataclasses.dataclass(frozen=True)
class _Told:
    """What the sidecars of some folders say.

    Attributes:
        sampling: the settings that all of them name, None for each where there is no sidecar.
        timed: ids of the folders that say when their frames are.
    """

    sampling: dict[str, Any]
    timed: set[str]


def _read_sidecars(folders: Sequence[VideoFile]) -> _Told:
    """Raises GridClipError where two folders were made with different settings."""
    known: tuple[VideoFile, dict[str, Any]] | None = None
    timed = set()
    for folder in folders:
        sidecar = jpeg.read_sidecar(folder.path)
        if sidecar is None:
            continue
        if sidecar.frame_bounds_s is not None:
            timed.add(folder.video_id)
        sampling = dataclasses.asdict(sidecar.sampling)
        if known is None:
            known = folder, sampling
        for name, value in sampling.items():
            if value != known[1][name]:
                raise GridClipError(
                    f"{folder.path} was made with {name} = {value}, {known[0].path} with {known[1][name]}: make them "
                    "again with the same settings, or keep them in different folders"
                )
    return _Told(known[1] if known is not None else {field.name: None for field in dataclasses.fields(Sampling)}, timed)


def _with_frame_times(listing: Listing, timed: set[str]) -> Listing:
    """The listing without the folders that do not say when their frames are: these become failures.

    Raises:
        GridClipError: none says it.
    """
    kept = [folder for folder in listing.videos if folder.video_id in timed]
    lost = [folder for folder in listing.videos if folder.video_id not in timed]
    reason = (
        f"`cells=True`: {jpeg.SIDECAR} is missing, or does not say when the frames are: make the super images again "
        "with gridclip superimages"
    )
    if not kept:
        raise GridClipError(f"{lost[0].path}: {reason}")
    failures = [Failure(folder.video_id, "read", reason) for folder in lost]
    return dataclasses.replace(listing, videos=kept, failures=[*listing.failures, *failures])
