"""What a job is asked to do in, how much of it is left to do out: nothing is decoded and nothing is written."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence

from ... import GridClipError
from ...dali_pipes.contract import VideoError
from ...dali_pipes.image_folders import grids, jpeg
from ...dali_pipes.sampling import Sampling
from ..annotations.annotations import load_annotations
from ..listing.listing import Listing, list_image_folders, list_videos
from ..planning import plan
from ..store.record import RECORD_FILE
from ..store.store import Store
from .retrying import check, failed_videos, only_failed, only_failed_of_each


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a job would do.

    Attributes:
        videos: that were asked for.
        finished: of them, an earlier run has finished and this one leaves out.
        failed_before: of those to do, have failed before.
        failures: videos that this job cannot do, as far as is known without decoding.
        super_images: that it would make or embed.
    """

    videos: int
    finished: int
    failed_before: int
    failures: int
    super_images: int

    @property
    def todo(self) -> int:
        """Videos that would be done."""
        return self.videos - self.finished - self.failures

    def to_json(self) -> dict[str, int]:
        """The fields and `todo`."""
        return dataclasses.asdict(self) | {"todo": self.todo}

    def __str__(self) -> str:
        """One line."""
        before = f" ({self.failed_before:,} have failed before)" if self.failed_before else ""
        return (
            f"would do {self.todo:,} of {self.videos:,} videos{before}, {self.super_images:,} super images; "
            f"{self.finished:,} are finished, {self.failures:,} cannot be done; nothing was written"
        )


def of_embed_videos(
    video_dir: str | os.PathLike[str],
    store: pathlib.Path,
    sampling: Sampling,
    *,
    anno_file: pathlib.Path | None = None,
    num_workers: int = 1,
    overwrite: bool = False,
    num_shards: int = 1,
    shard_id: int = 0,
    retry_failed: str | None = None,
) -> DryRun:
    """What `embed_videos` would do with these arguments; packets are read to count super images.

    Raises:
        GridClipError: as `embed_videos`, but that no model is loaded: whether it is the store's is not known.
    """
    of_stores = of_embed_videos_into(
        video_dir,
        [store],
        sampling,
        anno_file=anno_file,
        num_workers=num_workers,
        overwrite=overwrite,
        num_shards=num_shards,
        shard_id=shard_id,
        retry_failed=retry_failed,
    )
    return of_stores.stores[store]


@dataclasses.dataclass(frozen=True)
class DryRunOfStores:
    """What a job would do that fills a store for each of some models.

    Attributes:
        stores: what it would do for each.
    """

    stores: dict[pathlib.Path, DryRun]

    def __str__(self) -> str:
        """A line for each store, with its name where there are several."""
        if len(self.stores) == 1:
            return str(*self.stores.values())
        return "\n".join(f"{store}: {dry_run}" for store, dry_run in self.stores.items())


def of_embed_videos_into(
    video_dir: str | os.PathLike[str],
    stores: Sequence[pathlib.Path],
    sampling: Sampling,
    *,
    anno_file: pathlib.Path | None = None,
    num_workers: int = 1,
    overwrite: bool = False,
    num_shards: int = 1,
    shard_id: int = 0,
    retry_failed: str | None = None,
) -> DryRunOfStores:
    """The same for several models with a store each; packets that several stores need are read once for all of them."""
    check(retry_failed, overwrite)
    listing = _list(video_dir, anno_file)
    listings = [listing] * len(stores)
    if retry_failed is not None:
        listings = only_failed_of_each(listing, stores, retry_failed)
    found: dict[pathlib.Path, DryRun] = {}
    sizes: dict[frozenset[str], plan.Plan] = {}
    for store, listed in zip(stores, listings, strict=True):
        ours = listed.shard(num_shards, shard_id)
        finished = set() if overwrite else _stored(store)
        todo = _without(ours, finished)
        videos = frozenset([video.video_id for video in todo.videos] + [lost.video_id for lost in todo.failures])
        size = sizes.get(videos) or plan.plan_listing(todo, sampling, num_workers=num_workers)
        sizes[videos] = size
        found[store] = _counted(ours, finished, store, len(size.failures), size.super_images)
    return DryRunOfStores(found)


def of_superimages(
    video_dir: str | os.PathLike[str],
    save_dir: pathlib.Path,
    sampling: Sampling,
    *,
    anno_file: pathlib.Path | None = None,
    num_workers: int = 1,
    overwrite: bool = False,
    retry_failed: str | None = None,
) -> DryRun:
    """What `make_super_images` would do with these arguments."""
    check(retry_failed, overwrite)
    listing = _listed_videos(video_dir, save_dir, anno_file, retry_failed)
    places = list(grids.folders(save_dir, sampling))
    finished = {
        video.video_id
        for video in listing.videos
        if not overwrite and all(jpeg.read_sidecar(place / video.video_id) is not None for place in places)
    }
    return _of_videos(listing, finished, save_dir, sampling, num_workers)


def of_embed_images(
    image_dir: pathlib.Path, store: pathlib.Path, *, overwrite: bool = False, retry_failed: str | None = None
) -> DryRun:
    """What `embed_images` would do with these arguments."""
    check(retry_failed, overwrite)
    listing = list_image_folders(image_dir)
    if retry_failed is not None:
        listing = only_failed(listing, store, retry_failed)
    stored = set() if overwrite else _stored(store)
    super_images, lost = 0, len(listing.failures)
    for folder in listing.videos:
        if folder.video_id in stored:
            continue
        try:
            super_images += jpeg.count_images(folder.path)
        except VideoError:
            lost += 1
    return _counted(listing, stored, store, lost, super_images)


def _listed_videos(
    video_dir: str | os.PathLike[str], folder: pathlib.Path, anno_file: pathlib.Path | None, retry_failed: str | None
) -> Listing:
    listing = _list(video_dir, anno_file)
    return listing if retry_failed is None else only_failed(listing, folder, retry_failed)


def _list(video_dir: str | os.PathLike[str], anno_file: pathlib.Path | None) -> Listing:
    return list_videos(video_dir, None if anno_file is None else load_annotations(anno_file).video_ids)


def _stored(store: pathlib.Path) -> set[str]:
    """The videos of a store, none where there is none yet.

    Raises:
        GridClipError: what is there is no store, or is damaged.
    """
    if not store.exists() or (store.is_dir() and not any(store.iterdir())):
        return set()
    if not (store / RECORD_FILE).is_file() and store.is_dir():
        raise GridClipError(f"{store} is not a store and not empty: give a new or empty directory as `store`")
    return Store.open(store).finished_videos()


def _of_videos(
    listing: Listing, finished: set[str], folder: pathlib.Path, sampling: Sampling, num_workers: int
) -> DryRun:
    size = plan.plan_listing(_without(listing, finished), sampling, num_workers=num_workers)
    return _counted(listing, finished, folder, len(size.failures), size.super_images)


def _without(listing: Listing, finished: set[str]) -> Listing:
    videos = [video for video in listing.videos if video.video_id not in finished]
    return dataclasses.replace(listing, videos=videos, notices=[])


def _counted(listing: Listing, finished: Iterable[str], folder: pathlib.Path, lost: int, super_images: int) -> DryRun:
    listed = {video.video_id for video in listing.videos}
    done = listed.intersection(finished)
    return DryRun(
        videos=len({*listed, *(failure.video_id for failure in listing.failures)}),
        finished=len(done),
        failed_before=len(failed_videos(folder) & (listed - done)),
        failures=lost,
        super_images=super_images,
    )
