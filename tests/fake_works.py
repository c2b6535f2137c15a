"""Works for tests/test_workers.py that crash, hang and fail on purpose; imported by name in worker processes."""

import errno
import os
import pathlib
import signal
import time

import numpy as np
from gridclip import GridClipError
from gridclip.dali_pipes.streams import VideoError


def count_to_five(video, skip):
    yield from range(skip, 5)


def by_name(video, skip):
    """Delivers 0 and 1, then does what the video's name says."""
    yield from (value for value in range(2) if value >= skip)
    kind = video.video_id.rstrip("0123456789")
    if kind == "hang":
        time.sleep(1000)
    elif kind == "exit":
        os._exit(3)
    elif kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "bug":
        raise KeyError("surprise")
    elif kind == "broken":
        raise VideoError("demux", "damaged container")
    elif kind == "full":
        raise GridClipError("no space left")
    yield from (value for value in range(2, 5) if value >= skip)


def big(video, skip):
    """Marks each delivery attempt in a file, so that the test sees how far ahead a worker runs."""
    for number in range(20):
        with pathlib.Path(video.path).open("a") as log:
            log.write(f"{number}\n")
        yield np.full(3_000_000, number, np.uint8)


def process_id(video, skip):
    yield os.getpid()
    time.sleep(float(video.path.name))


def full_disk(video, skip):
    raise GridClipError(os.strerror(errno.ENOSPC))
    yield


def half_of_red(video, skip):
    """Two runs of super images; of the video red only the first."""
    from gridclip.dali_pipes.source import SuperImages

    for first in (0, 3):
        if first and video.video_id == "red":
            raise VideoError("decode", "damaged")
        images = np.full((3, 64, 64, 3), 9, np.uint8)
        yield SuperImages(video.video_id, first, 6, images, np.arange(3.0), np.arange(3.0))


def noticing(video, skip):
    from gridclip.dali_pipes.source import Notice

    yield 0
    yield Notice(video.video_id, "damage", "1 of 4 frames was replaced by its neighbour")
    yield 1
