"""Tasks that crash, hang and fail on purpose; imported by name in worker processes."""

import errno
import os
import pathlib
import signal
import time

import numpy as np
from gridclip import GridClipError
from gridclip.dali_pipes.contract import VideoError


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
    """Two chunks of super images; of the video red only the first."""
    from gridclip.dali_pipes.contract import SuperImages

    for first in (0, 3):
        if first and video.video_id == "red":
            raise VideoError("decode", "damaged")
        images = np.full((3, 64, 64, 3), 9, np.uint8)
        yield SuperImages(video.video_id, first, 6, images, np.arange(3.0), np.arange(3.0))


def noticing(video, skip):
    from gridclip.dali_pipes.contract import Notice

    yield 0
    yield Notice(video.video_id, "damage", "1 of 4 frames was replaced by its neighbour")
    yield 1


def fails_once(video, skip):
    """Delivers 0 and 1, then does once what the video's name says; the video's file notes where each try began."""
    mark = pathlib.Path(video.path)
    first = not mark.exists()
    with mark.open("a") as file:
        file.write(str(skip))
    yield from by_name(video, skip) if first else range(skip, 5)


def from_the_start(video, skip):
    assert skip == 0
    yield from range(5)


def logging(video, skip):
    import logging

    logger = logging.getLogger("gridclip.dali_pipes.fake")
    logger.debug("debug is not wanted")
    logger.info("decoding the whole file")
    logging.getLogger("other.library").warning("%s: not of this package", video.video_id)
    try:
        raise KeyError("surprise")
    except KeyError:
        logger.exception("a bug")
    yield 0


def complaining(video, skip):
    import logging

    while True:
        logging.getLogger("gridclip.dali_pipes.fake").warning("once more")
        time.sleep(0.0001)
    yield


def dying_starts(mark: pathlib.Path, count: int) -> str:
    """Code before child.START_CODE that kills the first `count` processes; `mark` gets a letter for each start."""
    return (
        "import os, pathlib, signal\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "starts = len(mark.read_text()) if mark.exists() else 0\n"
        "mark.write_text('x' * (starts + 1))\n"
        f"if starts < {count}: os.kill(os.getpid(), signal.SIGKILL)\n"
    )


def bug_after_a_chunk(video, skip, *, task):
    """What another task yields, as far as its first result."""
    for value in task(video, skip=skip):
        yield value
        raise KeyError("surprise")


def killed_after_a_chunk(video, skip, *, decoder, settings, left: pathlib.Path):
    """Decodes; sends itself the signals that the file `left` names, one after a chunk, or at once on a later try."""
    from gridclip.dali_pipes.cpu import super_images

    for event in super_images.super_images(video, settings, decoder=decoder, skip=skip):
        if skip:
            kill_once(left)
        yield event
        kill_once(left)


def kill_once(left: pathlib.Path) -> None:
    name, *rest = left.read_text().split() or [""]
    left.write_text(" ".join(rest))
    if name:
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))


UNITS = 40


def in_parts(video, *, skip, stretch=None):
    """Yields the numbers of its units, and gives parts away; whoever begins waits until somebody asks for one.

    At a unit that the video's id names (`segfault-25`) it does what `by_name` does. Its file notes who yielded what.
    """
    from gridclip.dali_pipes.processes.stretches import Stretch

    stretch = stretch or Stretch()
    kind, _, fault_at = video.video_id.partition("-")
    number, end = skip, stretch.end or UNITS
    stretch.report(end - number)
    waits = skip == 0 and not kind.startswith("whole")
    deadline = time.monotonic() + 3
    while number < end:
        helpers = stretch.asking()
        while waits and not helpers and time.monotonic() < deadline:
            time.sleep(0.001)
            helpers = stretch.asking()
        waits = False
        if helpers:
            parts = min(helpers + 1, end - number)
            stretch.give([number + (end - number) * part // parts for part in range(1, parts)], {"units": UNITS})
            end = stretch.end or UNITS
            stretch.report(end - number)
        if fault_at and number == int(fault_at):
            _fail_at(kind, stretch)
        if video.path.name != "x":
            with video.path.open("a") as log:
                log.write(f"{os.getpid()} {number}\n")
        yield number
        time.sleep(0.005)
        number += 1


def _fail_at(kind, stretch):
    if kind == "indivisible":
        stretch.keep_whole("a frame is damaged")
    elif kind == "unknown":
        assert stretch.known() == {"units": UNITS}
    elif kind == "slow":
        time.sleep(1000)
    else:
        from gridclip.dali_pipes.contract import VideoFile

        list(by_name(VideoFile(kind, pathlib.Path("x")), skip=2))


def in_parts_once(video, *, skip, stretch=None):
    """As in_parts, but its fault comes once: the file beside the video's remembers it."""
    mark = video.path.with_suffix(".mark")
    fault_at = int(video.video_id.partition("-")[2])
    for number in in_parts(_without_fault(video), skip=skip, stretch=stretch):
        if number == fault_at and not mark.exists():
            mark.touch()
            _fail_at(video.video_id.partition("-")[0], stretch)
        yield number


def without_fault(video, *, skip, stretch=None):
    yield from in_parts(_without_fault(video), skip=skip, stretch=stretch)


def big_parts(video, *, skip, stretch=None):
    for _ in in_parts(video, skip=skip, stretch=stretch):
        yield np.zeros(3_000_000, np.uint8)


def _without_fault(video):
    import dataclasses

    return dataclasses.replace(video, video_id=video.video_id.partition("-")[0])


def parts_of_decodes(video, *, skip, stretch=None, **settings):
    """tasks.decode, which gives parts away however short they are; whoever begins waits until somebody asks for one."""
    from gridclip.dali_pipes.cpu import tasks

    yield from tasks.decode(video, skip=skip, stretch=_generous(stretch, skip), **settings)


def parts_of_files(video, *, skip, stretch=None, **settings):
    """tasks.compress in the same way."""
    from gridclip.dali_pipes.cpu import tasks

    yield from tasks.compress(video, skip=skip, stretch=_generous(stretch, skip), **settings)


def _generous(stretch, skip):
    from gridclip.dali_pipes.cpu import dividing

    dividing.LEAST_COST = 1.0
    if stretch is not None and skip == 0:
        asking, deadline = stretch.asking, time.monotonic() + 3

        def patient() -> int:
            helpers = asking()
            while not helpers and stretch.end is None and time.monotonic() < deadline:
                time.sleep(0.001)
                helpers = asking()
            return helpers

        stretch.asking = patient
    return stretch


def crashing_parts_of_car(video, *, skip, stretch=None, **settings):
    """parts_of_decodes, but whoever makes a later part of car-detection crashes."""
    if skip and video.video_id == "car-detection":
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from parts_of_decodes(video, skip=skip, stretch=stretch, **settings)
