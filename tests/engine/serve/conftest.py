"""A small store of generated videos of several kinds, the service over it, and a client in this process."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import av
import gridclip
import pytest
from gridclip.benchmarks.demo import videos
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.search.search import Searcher
from gridclip.engine.serve.bounds import Bounds
from gridclip.engine.store.store import Store

pytest.importorskip("starlette")
SEED = 7
LONG = "holidays/2026 in the far north/" + "a very long name of a video that no column is wide enough for " * 2 + "é"
# What becomes of the generated videos: their ids here, and the codec that they are encoded with.
KINDS = {
    "first": "libx264",
    "second": "libx264",
    "hevc": "libx265",
    LONG.strip(): "libx264",
    "old": "mpeg4",
    "holidays/last": "libx264",
}
SUFFIXES = {"libx265": ".mkv", "mpeg4": ".avi"}


@dataclasses.dataclass(frozen=True)
class Planted:
    """A served folder and what is known of it.

    Attributes:
        video_dir, store, encoder: what is served.
        made: the generated videos by id.
    """

    video_dir: pathlib.Path
    store: Store
    encoder: Encoder
    made: dict[str, videos.DemoVideo]

    def longest_caption(self, video_id: str) -> tuple[str, float, float]:
        """The caption that says most, and the seconds of its scene."""
        video = self.made[video_id]
        place = max(range(len(video.captions)), key=lambda each: len(video.captions[each]))
        return video.captions[place], *video.timestamps[place]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: pathlib.Path) -> Planted:
    work = tmp_path_factory.mktemp("served")
    video_dir = work / "videos"
    made = {}
    for number, (video_id, codec) in enumerate(KINDS.items()):
        made[video_id] = videos.make_video(SEED, number, unseen=True)
        path = video_dir / f"{video_id}{SUFFIXES.get(codec, '.mp4')}"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = path if codec == "libx264" else work / "drawn.mp4"
        videos.write_video(made[video_id], drawn)
        if drawn != path:
            encode_again(drawn, path, codec)
    encoder = gridclip.load_model(tiny_model_dir, num_gpus=0)
    gridclip.embed_videos(encoder, video_dir, work / "store", num_workers=1, cells=True)
    return Planted(video_dir, Store.open(work / "store"), encoder, made)


def encode_again(source: pathlib.Path, target: pathlib.Path, codec: str) -> None:
    options = {"x265-params": "log-level=none", "preset": "ultrafast"} if codec == "libx265" else {"qscale": "3"}
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        pictures = old.streams.video[0]
        stream = new.add_stream(codec, rate=pictures.average_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = pictures.width, pictures.height, "yuv420p"
        for frame in old.decode(pictures):
            frame.pict_type = 0
            new.mux(stream.encode(frame))
        new.mux(stream.encode())


@pytest.fixture(scope="session")
def service(planted: Planted) -> object:
    from gridclip.engine.serve.server import make_service

    bounds = Bounds(making=1, picture_bytes=1 << 20)
    searcher = Searcher(planted.store, temperature=0.1)
    return make_service(planted.encoder, searcher, planted.store.reader(), planted.video_dir, bounds)


@pytest.fixture(scope="session")
def client(service: object) -> Iterator[object]:
    from starlette.testclient import TestClient

    application = service.application(local=True, token=None)  # type: ignore[attr-defined]
    with TestClient(application, base_url="http://localhost:8000", raise_server_exceptions=False) as opened:
        yield opened
