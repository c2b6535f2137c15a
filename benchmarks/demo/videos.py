"""A seed in; a folder of H.264 videos of generated scenes and their captions as ActivityNet Captions JSON out."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
from fractions import Fraction

import av
import numpy as np

from . import scenes

ANNOTATION_FILE, VIDEO_FOLDER = "captions.json", "videos"
_FRAME_RATES = (12, 15, 20)
_B_FRAMES = "bframes=3:b-pyramid=normal"


@dataclasses.dataclass(frozen=True)
class DemoVideo:
    """A video to be drawn: its scenes one after the other, with a caption for each.

    Attributes:
        video_id: the file's stem.
        frame_rate: frames per second.
        scenes: three or four, each with other words in its caption.
        captions: one per scene.
        frames: frames of each scene.
    """

    video_id: str
    frame_rate: int
    scenes: tuple[scenes.Scene, ...]
    captions: tuple[str, ...]
    frames: tuple[int, ...]

    @property
    def timestamps(self) -> list[list[float]]:
        """Start and end second of each scene."""
        ends = np.cumsum(self.frames) / self.frame_rate
        starts = ends - np.array(self.frames) / self.frame_rate
        return np.stack([starts, ends], axis=1).round(2).tolist()


def make_video(seed: int, number: int, *, unseen: bool) -> DemoVideo:
    """Draw up the number-th video of a seed."""
    rng = np.random.default_rng((seed, number))
    parts = [scenes.make_scene(rng, unseen=unseen) for _ in range(int(rng.integers(3, 5)))]
    frame_rate = int(rng.choice(_FRAME_RATES))
    return DemoVideo(
        video_id=f"scenes_{number:04d}",
        frame_rate=frame_rate,
        scenes=tuple(parts),
        captions=tuple(scenes.caption(part, rng) for part in parts),
        frames=tuple(round(part.duration_s * frame_rate) for part in parts),
    )


def activitynet_captions(videos: list[DemoVideo]) -> dict[str, dict[str, object]]:
    """Captions and times in the form of ActivityNet Captions."""
    return {
        video.video_id: {
            "duration": video.timestamps[-1][1],
            "timestamps": video.timestamps,
            "sentences": list(video.captions),
        }
        for video in videos
    }


def write_video(video: DemoVideo, path: pathlib.Path, gop_s: float | None = None) -> None:
    """Encode a video as H.264 with B-frames; the file appears under its name only when it is whole.

    Args:
        video: what to draw.
        path: of the file.
        gop_s: seconds between keyframes, wherever the scenes change; None puts one where they do, and at least one in
            120 frames.
    """
    gop = "keyint=120" if gop_s is None else f"scenecut=0:keyint={round(gop_s * video.frame_rate)}"
    options = {"preset": "veryfast", "crf": "24", "x264-params": f"{_B_FRAMES}:{gop}"}
    unfinished = path.with_suffix(".part")
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(video.frame_rate), options=options)
        stream.width, stream.height, stream.pix_fmt = scenes.WIDTH_PX, scenes.HEIGHT_PX, "yuv420p"
        stream.codec_context.thread_count = 1
        for scene, count in zip(video.scenes, video.frames, strict=True):
            painter = scenes.Painter(scene)
            for index in range(count):
                picture = av.VideoFrame.from_image(painter.frame(index / video.frame_rate))
                container.mux(stream.encode(picture))
        container.mux(stream.encode())
    os.replace(unfinished, path)


def write_videos(
    folder: pathlib.Path, count: int, *, seed: int, processes: int, gop_s: float | None = None
) -> pathlib.Path:
    """Generate unseen videos and their annotation file; videos that are there already are kept.

    Args:
        folder: gets VIDEO_FOLDER and ANNOTATION_FILE. If it holds other captions, they and their videos are replaced.
        count: videos.
        seed: of the scenes.
        processes: that draw and encode.
        gop_s: see write_video; videos of another one belong into another folder.

    Returns:
        Path of the annotation file.
    """
    videos = [make_video(seed, number, unseen=True) for number in range(count)]
    text = json.dumps(activitynet_captions(videos), indent=1) + "\n"
    annotation_file, video_folder = folder / ANNOTATION_FILE, folder / VIDEO_FOLDER
    video_folder.mkdir(parents=True, exist_ok=True)
    if not annotation_file.exists() or annotation_file.read_text() != text:
        for stale in video_folder.glob("scenes_*"):
            stale.unlink()
        annotation_file.write_text(text)
    tasks = [(video, video_folder / f"{video.video_id}.mp4") for video in videos]
    tasks = [(video, path) for video, path in tasks if not path.exists()]
    if tasks:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context) as pool:
            for done in [pool.submit(write_video, video, path, gop_s) for video, path in tasks]:
                done.result()
    return annotation_file
