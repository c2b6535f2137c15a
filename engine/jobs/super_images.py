"""A folder of videos in, a JPEG folder of super images per video out."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
from collections.abc import Generator, Iterator
from typing import Any, cast

from ... import GridClipError
from ...dali_pipes import dali_source, jpeg, workers, works
from ...dali_pipes.reading import Decoder as CpuDecoder
from ...dali_pipes.sampling import Sampling
from ...dali_pipes.source import Failure, VideoFile
from ..annotations import load_annotations
from .failures import FailureLog, failures_path
from .folders import write_folders
from .listing import list_videos
from .progress import Interrupted, JobSummary, Tally
from .sources import Decoder, uses_dali, video_source

logger = logging.getLogger(__name__)


def make_super_images(
    video_dir: pathlib.Path,
    save_dir: pathlib.Path,
    *,
    anno_file: pathlib.Path | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    decoder: Decoder = "auto",
    num_workers: int = 1,
    time_limit_s: float = workers.DEFAULT_TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
) -> JobSummary:
    """Writes <save_dir>/<video_id>/img_0001.jpg ... for every video.

    Args:
        video_dir: searched with its subfolders.
        save_dir: made if it is missing; failures.jsonl goes there, too.
        anno_file: only the videos of this annotation file.
        sampling: which frames, and how they are laid out.
        decoder: see `sources.video_source`; a GPU is the first one.
        num_workers: decoding processes.
        time_limit_s: seconds without a result after which a decoder counts as hung.
        resume: leave finished folders as they are, make unfinished ones again.
        overwrite: make all folders again.

    Raises:
        GridClipError: an argument is not usable, folders exist and neither resume nor overwrite is given, finished ones
            have other settings, or the disk is full. What is finished stays.
        Interrupted: Ctrl-C. What is finished stays.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    annotated = None if anno_file is None else load_annotations(anno_file).video_ids
    listing = list_videos(video_dir, annotated)
    save_dir = save_dir.absolute()
    try:
        save_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GridClipError(f"cannot make --save-dir {save_dir}: {error.strerror}") from error

    existing = [video for video in listing.videos if os.path.exists(save_dir / video.video_id)]  # False if too long
    if existing and not (resume or overwrite):
        raise GridClipError(
            f"{save_dir} already has folders of {len(existing)} of the {len(listing.videos)} videos: continue with "
            "--resume, or make them again with --overwrite"
        )
    finished = _finished(existing, save_dir, sampling) if resume else set()
    todo = [video for video in listing.videos if video.video_id not in finished]

    in_work: set[str] = set()

    def handed_out() -> Iterator[VideoFile]:
        for video in todo:
            in_work.add(video.video_id)
            yield video

    with (
        FailureLog(failures_path(save_dir)) as failures,
        Tally("made super images of", "videos", len(todo), failures, finished_before=len(finished)) as tally,
    ):
        for failure in listing.failures:
            failures.add(failure)
        try:
            jobs = _saved(handed_out(), sampling, save_dir, decoder, num_workers=num_workers, time_limit_s=time_limit_s)
            with contextlib.closing(jobs) as results:
                for video, result in results:
                    if isinstance(result, int):
                        tally.add_super_images(result)
                        continue
                    in_work.discard(video.video_id)
                    _remove_part(save_dir, video.video_id)
                    if isinstance(result, Failure):
                        tally.add_failure(result)
                    else:
                        tally.add_done()
        except KeyboardInterrupt as error:
            raise Interrupted(tally.summary()) from error
        finally:
            for video_id in in_work:
                _remove_part(save_dir, video_id)
        return tally.summary()


def _saved(
    videos: Iterator[VideoFile],
    sampling: Sampling,
    save_dir: pathlib.Path,
    decoder: Decoder,
    *,
    num_workers: int,
    time_limit_s: float,
) -> Generator[tuple[VideoFile, Any], None, None]:
    """Numbers of super images, then Finished or Failure, of every video: saved where they are decoded, or here."""
    device_id = dali_source.first_gpu()
    if not uses_dali(decoder, device_id):
        return workers.run(
            videos,
            works.saving_works(sampling, cast(CpuDecoder, decoder), save_dir),
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
    source = video_source(
        decoder,
        sampling,
        sampling.super_img_size,
        device_id=device_id,
        num_workers=num_workers,
        time_limit_s=time_limit_s,
    )
    return write_folders(source(videos), sampling, save_dir, num_threads=num_workers)


def _finished(existing: list[VideoFile], save_dir: pathlib.Path, sampling: Sampling) -> set[str]:
    finished = set()
    for video in existing:
        sidecar = jpeg.read_sidecar(save_dir / video.video_id)
        if sidecar is None:
            logger.info("%s: its folder is not finished and will be made again", video.video_id)
            continue
        for name, value in dataclasses.asdict(sampling).items():
            made_with = getattr(sidecar.sampling, name)
            if made_with != value:
                raise GridClipError(
                    f"{save_dir / video.video_id} was made with {name} = {made_with}, this run has {value}: use the "
                    "same settings, another --save-dir, or --overwrite"
                )
        finished.add(video.video_id)
    return finished


def _remove_part(save_dir: pathlib.Path, video_id: str) -> None:
    """What a killed worker has left."""
    shutil.rmtree(jpeg.part_folder(save_dir, video_id), ignore_errors=True)
