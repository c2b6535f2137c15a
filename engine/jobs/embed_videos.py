"""A folder of videos in, their embeddings in a store (or one for each of several models) out, without JPEG files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ...dali_pipes.contract import Source
from ...dali_pipes.cpu.damage import OnDamage
from ...dali_pipes.layout import SuperImageSize
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import Sampling
from ..annotations.annotations import load_annotations
from ..choices import CELLS, Decoder
from ..encoding.encoder import Encoder
from ..listing.listing import Listing, list_videos
from ..store.store import Store
from . import cluster as cluster_jobs
from . import cluster_nodes, devices, retrying, several_models
from .bookkeeping import Bookkeeping
from .cells import makes_cells
from .ledger import embed, open_store, pass_kinds
from .progress import JobSummary
from .several_models import OpenTarget, Target
from .sources import check_decode, cpu_video_source, video_source


def embed_videos(
    encoder: Encoder,
    video_dir: str | os.PathLike[str],
    store_path: pathlib.Path,
    *,
    sampling: Sampling,
    anno_file: pathlib.Path | None = None,
    decoder: Decoder = "auto",
    batch_size: int | None = None,
    num_workers: int = 1,
    time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    num_shards: int = 1,
    shard_id: int = 0,
    num_gpus: int = 1,
    on_damage: OnDamage = "nearest",
    cells: bool | None = CELLS,
    retry_failed: str | None = None,
    metrics_address: tuple[str, int] | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
) -> JobSummary:
    """Embeds every video into a store; failures.jsonl and notices.jsonl go into the store's folder.

    Args:
        encoder: the model.
        video_dir: a folder, searched with its subfolders, or what else `finding` finds videos in.
        store_path: made if it is missing.
        sampling: which frames, and how they are laid out; super images of another size than the model's are resized.
        anno_file: only the videos of this annotation file.
        decoder: see `sources.video_source`.
        batch_size: super images per pass, default by the encoder's provider.
        num_workers: decoding processes, of all GPUs together; with a cluster each worker has one for each of its cores.
        time_limit_s: seconds without a result after which a decoder counts as hung.
        resume: leave out the videos that are in the store.
        overwrite: remove all super images from the store first.
        num_shards: parallel jobs that share the work and the store.
        shard_id: which of them this one is, from 0.
        num_gpus: with more than one, each GPU gets a process of its own, see `devices.embed`; with a cluster 0 leaves
            its GPUs alone.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.
        cells: also make a vector of each wanted frame, from its cell; None: see `cells.makes_cells`.
        retry_failed: only the videos that have failed before, at this stage or at any, see `retrying`; implies resume.
        metrics_address: see `Bookkeeping`.
        cluster: the address of a Ray cluster, or "auto"; see `cluster.embed`.
        cpus_per_worker: see `cluster_nodes.shares`.

    Raises:
        GridClipError: an argument is not usable, the store has videos of the folder and neither resume nor overwrite is
            given, it has other settings, or the disk is full. What is stored stays.
        Interrupted: Ctrl-C. Finished videos are in the store.
    """
    if overwrite and num_shards > 1:
        raise ValueError("overwrite and num_shards exclude each other: a shard would remove what the others have done")
    check_decode(decoder, sampling.decode)
    cells = makes_cells(cells, sampling, encoder.info, store_path, overwrite=overwrite)
    passes = pass_kinds(sampling, cells)
    annotated = None if anno_file is None else load_annotations(anno_file).video_ids
    retrying.check(retry_failed, overwrite)
    listing = list_videos(video_dir, annotated)
    if retry_failed is not None:
        listing, resume = retrying.only_failed(listing, store_path, retry_failed), True
    listing = listing.shard(num_shards, shard_id)
    settings: dict[str, Any] = {
        "sampling": sampling,
        "image_size": encoder.info.image_size,
        "time_limit_s": time_limit_s,
        "on_damage": on_damage,
    }
    make_source = functools.partial(video_source, decoder, **settings)
    make_fallback = functools.partial(cpu_video_source, "auto", **settings)
    shard: dict[str, Any] = {"batch_size": batch_size, "passes": passes, "num_shards": num_shards, "shard_id": shard_id}
    shard["books"] = Bookkeeping(retry_failed is not None, metrics_address)
    with contextlib.ExitStack() as stack:
        # Before the store is touched: `overwrite` must not empty it for a cluster that is not there.
        ray = None if cluster is None else stack.enter_context(cluster_nodes.connected(cluster))
        store, stored = open_store(store_path, encoder, listing.videos, resume=resume, overwrite=overwrite)
        _claim_sampling(store, sampling, cells)
        if ray is not None:
            return cluster_jobs.embed(
                listing,
                make_source,
                make_fallback,
                encoder,
                store,
                stored,
                ray=ray,
                cpus_per_worker=cpus_per_worker,
                use_gpus=num_gpus > 0,
                **shard,
            )
        if num_gpus < 2:
            source = make_source(device_id=encoder.device_id, num_workers=num_workers)
            return embed(listing, source, encoder, store, stored, **shard)
        return devices.embed(
            listing,
            make_source,
            make_fallback,
            encoder,
            store,
            stored,
            device_ids=range(num_gpus),
            num_workers=num_workers,
            **shard,
        )


def embed_videos_with_models(
    targets: Sequence[Target],
    video_dir: str | os.PathLike[str],
    *,
    anno_file: pathlib.Path | None = None,
    decoder: Decoder = "auto",
    batch_size: int | None = None,
    num_workers: int = 1,
    time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    num_shards: int = 1,
    shard_id: int = 0,
    on_damage: OnDamage = "nearest",
    cells: bool | None = CELLS,
    retry_failed: str | None = None,
    metrics_address: tuple[str, int] | None = None,
) -> JobSummary:
    """Embeds every video with several models, a store each, from frames that are decoded once.

    A video goes to the stores that lack it. A model that fails, or a store that takes nothing more, leaves the others
    as they are.

    Args:
        targets: the models with their stores; at least one.
        resume, overwrite, retry_failed: hold for each store.
        video_dir, anno_file, decoder, batch_size, num_workers, time_limit_s, num_shards, shard_id, on_damage, cells,
            metrics_address: see `embed_videos`.

    Returns:
        The counts of each store in `stores`, and their sums.

    Raises:
        GridClipError: an argument is not usable, or a store has videos of the folder and neither resume nor overwrite
            is given, or has other settings; nothing has begun then. Or no further video can be decoded. What is stored
            stays.
        Interrupted: Ctrl-C. Finished videos are in the stores.
    """
    if overwrite and num_shards > 1:
        raise ValueError("overwrite and num_shards exclude each other: a shard would remove what the others have done")
    sampling = targets[0].sampling
    targets = [_with_cells(target, cells, overwrite) for target in targets]
    several_models.check(targets)
    annotated = None if anno_file is None else load_annotations(anno_file).video_ids
    check_decode(decoder, sampling.decode)
    retrying.check(retry_failed, overwrite)
    listing = list_videos(video_dir, annotated)
    listings = [listing] * len(targets)
    if retry_failed is not None:
        paths = [target.path for target in targets]
        listings, resume = retrying.only_failed_of_each(listing, paths, retry_failed), True

    def make_source(sizes: Sequence[SuperImageSize]) -> Source:
        first, *more_sizes = sizes
        return video_source(
            decoder,
            dataclasses.replace(sampling, super_img_size=first.laid_out_px),
            first.image_size,
            device_id=targets[0].encoder.device_id,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
            on_damage=on_damage,
            more_sizes=more_sizes,
        )

    return several_models.embed(
        _opened(targets, [each.shard(num_shards, shard_id) for each in listings], resume, overwrite),
        make_source,
        batch_size=batch_size,
        num_shards=num_shards,
        shard_id=shard_id,
        books=Bookkeeping(retry_failed is not None, metrics_address),
    )


def _with_cells(target: Target, asked: bool | None, overwrite: bool) -> Target:
    cells = makes_cells(asked, target.sampling, target.encoder.info, target.path, overwrite=overwrite)
    return dataclasses.replace(target, cells=cells)


def _opened(targets: Sequence[Target], listings: Sequence[Listing], resume: bool, overwrite: bool) -> list[OpenTarget]:
    """The targets with their stores; raises GridClipError before anything is removed or claimed where it can."""
    for target in targets:
        store = Store.open(target.path, create=True)
        if not overwrite:
            store.require_model(target.encoder.info.to_json())
    opened = []
    for target, listing in zip(targets, listings, strict=True):
        store, stored = open_store(target.path, target.encoder, listing.videos, resume=resume, overwrite=overwrite)
        _claim_sampling(store, target.sampling, target.cells)
        opened.append(OpenTarget(target, listing, store, stored))
    return opened


def _claim_sampling(store: Store, sampling: Sampling, cells: bool) -> None:
    store.claim_sampling({"source": "videos", "cells": cells, **dataclasses.asdict(sampling)})
