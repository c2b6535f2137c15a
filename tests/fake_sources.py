"""Sources for tests/test_devices.py whose process dies on purpose; imported by name in the GPUs' processes."""

import functools
import os
import pathlib
import signal

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
