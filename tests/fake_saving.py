"""Tasks that save folders and die on purpose; imported by name in worker processes."""

import functools
import os
import signal

import numpy as np
from gridclip.dali_pipes.contract import SuperImages, VideoError
from gridclip.dali_pipes.image_folders import grids
from gridclip.engine.jobs.super_images import _save as super_images_save

COUNT = 5


def dying_tasks(sampling, decoder, save_dir, part_dir, on_damage):
    """The first task dies in the middle of the video red, the second one makes it; both fail with green."""
    options = {"sampling": sampling, "save_dir": save_dir, "part_dir": part_dir}
    return [functools.partial(grids.save, decode=decode, **options) for decode in (_dying, _whole)]


def _dying(video):
    for number, chunk in enumerate(_whole(video)):
        if number == 2 and video.video_id == "red":
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk


def _whole(video):
    for first in range(COUNT):
        if first == 3 and video.video_id == "green":
            raise VideoError("decode", "damaged")
        image = np.full((1, 64, 64, 3), 9, np.uint8)
        yield SuperImages(video.video_id, first, COUNT, image, np.array([first * 8.0]), np.array([first * 8.0 + 8]))


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
