"""Tasks that save folders and die on purpose; imported by name in worker processes."""

import os
import signal

import numpy as np
from gridclip.dali_pipes.contract import SuperImages, VideoError
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.engine.jobs.super_images import _save as super_images_save

COUNT = 5


def dying_tasks(sampling, decoder, on_damage):
    """The first task dies in the middle of the video red, the second one makes the rest; both fail with green."""
    return [_dying, _whole]


def _dying(video, skip):
    for chunk in _whole(video, skip):
        if chunk.first == 2 and video.video_id == "red":
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk


def _whole(video, skip):
    for first in range(skip, COUNT):
        if first == 3 and video.video_id == "green":
            raise VideoError("decode", "damaged")
        image = np.full((1, 64, 64, 3), 9, np.uint8)
        times = np.array([first * 8.0])
        yield jpeg.compress(SuperImages(video.video_id, first, COUNT, image, times, times + 8))


def dying_once(videos, *, save_dir, **settings):
    """In place of `super_images._save`: kills its process when it first comes to the video blue1."""
    mark = save_dir.parent / "died"

    def marked():
        for video in videos:
            if video.video_id == "blue1" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield video

    return super_images_save(marked(), save_dir=save_dir, **settings)
