"""Sources whose process dies on purpose; imported by name in the processes of GPUs."""

import functools
import logging
import os
import pathlib
import signal
import time

from gridclip.dali_pipes.contract import VideoError
from gridclip.dali_pipes.cpu import tasks
from gridclip.dali_pipes.processes import pool
from gridclip.engine.jobs import sources


def make_dying(*, num_workers, marks: pathlib.Path, dies_at: str, device_id=None, **settings):
    """Makes a source that kills its process when it comes to one video; leaves a mark for each video asked for."""
    return functools.partial(dying, marks=marks, dies_at=dies_at, num_workers=num_workers, **settings)


def dying(videos, *, marks: pathlib.Path, dies_at: str, **settings):
    def marked():
        for video in videos:
            (marks / f"{video.video_id}-{os.getpid()}").touch()
            if video.video_id == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield video

    return sources.cpu_video_source("auto", **settings)(marked())


def make_paced(
    *, num_workers, marks: pathlib.Path, dies_once_at: str = "", processes: int = 0, device_id=None, **settings
):
    """Makes a source that kills its process when it first comes to one video.

    After five videos it waits until so many processes have begun one; leaves a mark for each video asked for.
    """
    return functools.partial(
        paced, marks=marks, dies_once_at=dies_once_at, processes=processes, num_workers=num_workers, **settings
    )


def paced(videos, *, marks: pathlib.Path, dies_once_at: str, processes: int, **settings):
    def marked():
        limit = time.monotonic() + 60
        for number, video in enumerate(videos):
            while number >= 5 and len(processes_of(marks)) < processes and time.monotonic() < limit:
                time.sleep(0.05)
            first = not list(marks.glob(f"{video.video_id}-*"))
            (marks / f"{video.video_id}-{os.getpid()}").touch()
            if first and video.video_id == dies_once_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield video

    return sources.cpu_video_source("auto", **settings)(marked())


def processes_of(marks: pathlib.Path) -> set[str]:
    """The processes that have left marks."""
    return {mark.name.rpartition("-")[2] for mark in marks.glob("*-*")}


def make_poisonous(
    decoder, sampling, image_size, *, poison: str, pause_s: float, num_workers, device_id=None, **settings
):
    """Makes a source in place of `sources.video_source` that kills its process at one video, and takes its time."""
    source = sources.cpu_video_source("auto", sampling, image_size, num_workers=num_workers, **settings)
    return functools.partial(poisonous, poison=poison, pause_s=pause_s, source=source)


def poisonous(videos, *, poison: str, pause_s: float, source):
    def one_by_one():
        for video in videos:
            time.sleep(pause_s)
            if video.video_id == poison:
                os.kill(os.getpid(), signal.SIGKILL)
            yield video

    return source(one_by_one())


def make_noticing(*, num_workers, device_id=None, sampling, image_size, time_limit_s):
    """Makes a source whose first task fails with every video, and says so in its log."""
    return functools.partial(
        pool.run,
        tasks=[bug, *tasks.embedding_tasks(sampling, "pyav", image_size)],
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=tasks.count_super_images,
    )


def bug(video, skip):
    logging.getLogger("gridclip.dali_pipes.fake").warning("from far away")
    if video.video_id == "broken":
        raise VideoError("open", "no video")
    raise KeyError("surprise")
    yield
