"""A folder of videos in, a JPEG folder of super images per video out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, get_args

from ... import GridClipError
from ...dali_pipes.contract import Failure, Notice, VideoFile
from ...dali_pipes.cpu import tasks
from ...dali_pipes.cpu.damage import OnDamage
from ...dali_pipes.cpu.reading import Decoder as CpuDecoder
from ...dali_pipes.image_folders import grids, jpeg
from ...dali_pipes.nvdali import sources
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import Sampling
from ..annotations.annotations import load_annotations
from ..choices import Decoder
from ..listing.listing import Listing, list_videos
from . import cluster_nodes, retrying
from .failures import FailureLog, failures_path
from .folder_messages import FolderNews, FolderSink, MadeFolder, tell
from .folder_writing import write_folders
from .heartbeat import Heartbeat
from .metrics import shown
from .notices import NoticeLog, notices_path
from .progress import Interrupted, JobSummary, NodeCounts, Tally
from .sharing import SharedFolder
from .sources import check_decode, uses_dali, video_source

logger = logging.getLogger(__name__)

CAREFUL_DECODER: CpuDecoder = "pyav"  # for what was in work when a worker of a cluster died
WAIT_S = (0.2, 0.5)  # until the next look at a video that another job has; not the same for both


def make_super_images(
    video_dir: str | os.PathLike[str],
    save_dir: pathlib.Path,
    *,
    anno_file: pathlib.Path | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    decoder: Decoder = "auto",
    num_workers: int = 1,
    time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    on_damage: OnDamage = "nearest",
    retry_failed: str | None = None,
    metrics_address: tuple[str, int] | None = None,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
) -> JobSummary:
    """Writes <save_dir>/<video_id>/img_0001.jpg ... for every video. Several jobs in one folder share the work.

    With several grid sizes these are <save_dir>/grid_<N>/<video_id>/img_0001.jpg ..., all from one decode.

    Args:
        video_dir: a folder, searched with its subfolders, or what else `finding` finds videos in.
        save_dir: made if it is missing; failures.jsonl and notices.jsonl go there, too.
        anno_file: only the videos of this annotation file.
        sampling: which frames, and how they are laid out.
        decoder: see `sources.video_source`; a GPU is the first one.
        num_workers: decoding processes.
        time_limit_s: seconds without a result after which a decoder counts as hung.
        resume: leave finished folders as they are, make unfinished ones again.
        overwrite: make all folders again.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.
        retry_failed, metrics_address, cluster, cpus_per_worker: see `embed_videos.embed_videos`. All nodes of a cluster
            write to `save_dir`, which lies on a drive that they share; a decoder on the CPU leaves their GPUs alone.

    Raises:
        GridClipError: an argument is not usable, folders exist and neither resume nor overwrite is given, finished ones
            or those of another running job have other settings, another job is running and overwrite is given, or the
            disk is full. What is finished stays.
        Interrupted: Ctrl-C. What is finished stays.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    annotated = None if anno_file is None else load_annotations(anno_file).video_ids
    retrying.check(retry_failed, overwrite)
    check_decode(decoder, sampling.decode)
    listing = list_videos(video_dir, annotated)
    save_dir = save_dir.absolute()
    if retry_failed is not None:
        listing, resume = retrying.only_failed(listing, save_dir, retry_failed), True
    try:
        save_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GridClipError(f"cannot make `save_dir` {save_dir}: {error.strerror}") from error

    with cluster_nodes.connected_if(cluster) as ray, SharedFolder(save_dir, sampling) as shared:
        places = grids.folders(save_dir, sampling)
        existing = [
            video
            for video in listing.videos
            if any(os.path.exists(folder / video.video_id) for folder in places)  # False if too long
        ]
        if existing and not (resume or overwrite):
            raise GridClipError(
                f"{save_dir} already has folders of {len(existing)} of the {len(listing.videos)} videos: continue with "
                "`resume=True`, or make them again with `overwrite=True`"
            )
        finished = _find_finished(existing, places) if resume else set()
        if overwrite:
            shared.check_alone()
        else:
            shared.check_same(sampling)
        _remove_old_parts(save_dir, listing)
        todo = [video for video in listing.videos if video.video_id not in finished]
        is_made = _never if overwrite else functools.partial(_is_made, folders=list(places))
        again = {video.video_id for video in todo}
        notices = NoticeLog(
            notices_path(save_dir),
            keeps=lambda video_id: video_id not in again or shared.held(video_id) or is_made(video_id),
        )
        save = functools.partial(
            _save, sampling=sampling, save_dir=save_dir, time_limit_s=time_limit_s, on_damage=on_damage
        )
        make: Make
        if ray is None:
            here = functools.partial(save, decoder=decoder, part_dir=shared.part_dir, num_workers=num_workers)
            make = functools.partial(_make_here, here)
        else:
            make = _on_cluster(save, decoder, shared, ray=ray, cpus_per_worker=cpus_per_worker)
        with (
            FailureLog(failures_path(save_dir), earlier_stand=retry_failed is not None) as failures,
            Tally(
                "made super images of", "videos", len(todo), failures, notices, finished_before=len(finished)
            ) as tally,
            Heartbeat(save_dir, 1, 0, tally.counts),
            shown(tally.counts, metrics_address),
            retrying.settling(failures, lambda: is_made) if retry_failed is not None else contextlib.nullcontext(),
        ):
            for failure in listing.failures:
                failures.add(failure)
            for notice in listing.notices:
                if notice.video_id not in finished:
                    notices.add(notice)
            try:
                while todo:
                    todo = _make_all(make, todo, shared, tally, is_made)
            except KeyboardInterrupt as error:
                raise Interrupted(tally.summary()) from error
            return tally.summary()


class Make(Protocol):
    """Takes videos one by one and tells a sink what becomes of them; `candidates` are all that may come."""

    def __call__(self, videos: Iterator[VideoFile], candidates: Sequence[VideoFile], sink: FolderSink, /) -> None: ...


def _make_here(save: Callable[..., FolderNews], videos: Iterator[VideoFile], _: object, sink: FolderSink) -> None:
    tell(save(videos), sink)


def _on_cluster(save: Callable[..., FolderNews], decoder: Decoder, shared: SharedFolder, **cluster: Any) -> Make:
    from .cluster import run  # what embeds on a cluster, too, needs Lance and ONNX Runtime
    from .cluster_work import Saving

    saving = Saving(
        shared.part_dir, functools.partial(save, decoder=decoder), functools.partial(save, decoder=CAREFUL_DECODER)
    )
    return functools.partial(run, saving, use_gpus=decoder not in get_args(CpuDecoder), **cluster)


def _make_all(
    make: Make, todo: list[VideoFile], shared: SharedFolder, tally: Tally, is_made: Callable[[str], bool]
) -> list[VideoFile]:
    """Makes the folders of all videos that no other job has; returns the videos that another one had."""
    books = _Books(shared, tally)
    deferred: list[VideoFile] = []

    def hand_out() -> Iterator[VideoFile]:
        for video in todo:
            if not shared.claim(video.video_id):
                deferred.append(video)
            elif is_made(video.video_id):
                shared.release(video.video_id)
                tally.add_finished_elsewhere()
            else:
                books.in_work.add(video.video_id)
                tally.add_handed_out(video)
                yield video

    try:
        make(hand_out(), todo, books)
    finally:
        for video_id in books.in_work:  # after Ctrl-C
            tally.drop_notices(video_id)
    if deferred:
        logger.info("waiting for %d videos that other jobs have in work", len(deferred))
    while deferred and all(shared.held(video.video_id) for video in deferred):
        shared.beat()
        time.sleep(random.uniform(*WAIT_S))
    return deferred


class _Books:
    """A `FolderSink` that counts, keeps failures and notices, and gives back what this job had taken for itself."""

    def __init__(self, shared: SharedFolder, tally: Tally) -> None:
        self._shared = shared
        self._tally = tally
        self.in_work: set[str] = set()

    def watch_nodes(self, nodes: Callable[[], Mapping[str, NodeCounts]]) -> None:
        """See `Tally.watch_nodes`."""
        self._tally.watch_nodes(nodes)

    def add_super_images(self, super_images: int) -> None:
        """So many more were written; fewer than none: their video is lost, or comes again."""
        self._shared.beat()
        self._tally.add_super_images(super_images)

    def add_encoder_time(self, seconds: float) -> None:
        """There is no model."""

    def add_notice(self, notice: Notice) -> None:
        """Something to know about a video, before it is finished."""
        self._tally.add_notice(notice)

    def restart(self, video_id: str) -> None:
        """The video comes again from the start: earlier notices of it are void."""
        self._tally.drop_notices(video_id)

    def finish(self, video: MadeFolder) -> None:
        """A whole video."""
        self._close(video.video_id)
        self._tally.add_done()

    def fail(self, failure: Failure) -> None:
        """A lost video; notices of it are void."""
        self._close(failure.video_id)
        self._tally.add_failure(failure)

    def _close(self, video_id: str) -> None:
        self.in_work.discard(video_id)
        self._shared.release(video_id)
        self._shared.beat()


def _save(
    videos: Iterator[VideoFile],
    *,
    sampling: Sampling,
    save_dir: pathlib.Path,
    part_dir: pathlib.Path,
    decoder: Decoder,
    num_workers: int,
    time_limit_s: float,
    on_damage: OnDamage,
) -> FolderNews:
    """Numbers of super images, notices, then Finished or Failure, of every video."""
    device_id = sources.first_gpu()
    if uses_dali(decoder, device_id, sampling.decode):
        source = video_source(
            decoder,
            sampling,
            sampling.super_img_size,
            device_id=device_id,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
            on_damage=on_damage,
        )
        return write_folders(source(videos), sampling, save_dir, part_dir, num_threads=num_workers)
    compressed = pool.run(
        videos,
        tasks.compressing_tasks(sampling, cast(CpuDecoder, decoder), on_damage),
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=tasks.count_super_images,
    )
    return write_folders(compressed, sampling, save_dir, part_dir, num_threads=num_workers)


def _is_made(video_id: str, folders: Sequence[pathlib.Path]) -> bool:
    return all(jpeg.read_sidecar(folder / video_id) is not None for folder in folders)


def _never(video_id: str) -> bool:
    return False


def _find_finished(existing: list[VideoFile], places: Mapping[pathlib.Path, Sampling]) -> set[str]:
    """The videos whose folders are all finished."""
    finished = set()
    for video in existing:
        if all(_is_finished(folder / video.video_id, sampling) for folder, sampling in places.items()):
            finished.add(video.video_id)
        else:
            logger.info("%s: its folder is not finished and will be made again", video.video_id)
    return finished


def _is_finished(folder: pathlib.Path, sampling: Sampling) -> bool:
    """Whether a video's folder is; raises GridClipError where it was made with other settings."""
    sidecar = jpeg.read_sidecar(folder)
    if sidecar is None:
        return False
    for name, value in dataclasses.asdict(sampling).items():
        made_with = getattr(sidecar.sampling, name)
        if made_with != value:
            raise GridClipError(
                f"{folder} was made with {name} = {made_with}, this run has {value}: use the same settings, another "
                "`save_dir`, or `overwrite=True`"
            )
    return True


def _remove_old_parts(save_dir: pathlib.Path, listing: Listing) -> None:
    """Removes what killed jobs of older versions have left, which wrote side by side with the finished folders."""
    names = {f".{video.video_id}.part" for video in listing.videos}
    for name in names.intersection(os.listdir(save_dir)):
        shutil.rmtree(save_dir / name, ignore_errors=True)
