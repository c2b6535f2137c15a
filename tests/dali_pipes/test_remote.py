"""dali_pipes/remote.py and opening.py: videos of an object store, slow, cut off and refused reads included."""

from __future__ import annotations

import io
import pathlib
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator

import faulty_store
import numpy as np
import pytest
from faulty_store import BUCKET, FaultyStore
from gridclip import GridClipError
from gridclip.dali_pipes import remote
from gridclip.dali_pipes.contract import SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.cpu import super_images
from gridclip.dali_pipes.opening import opened
from gridclip.dali_pipes.places import Place, RemoteFile, TarMember
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.listing.listing import list_videos

ROOT = f"s3://{BUCKET}"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.02, 0.03))
    with faulty_store.serving(monkeypatch) as store:
        yield store


def pixels(place: Place, decoder: str = "pyav") -> np.ndarray:
    """All super images of a video."""
    events = super_images.super_images(VideoFile("x", place), Sampling(), decoder=decoder)
    return np.concatenate([event.on_cpu() for event in events if isinstance(event, SuperImages)])


def test_listing_by_suffix(store: FaultyStore) -> None:
    for key in (
        "a/x.mp4",
        "a/b/y.MKV",
        "a/notes.txt",
        "a/.hidden.mp4",
        "a/.git/z.mp4",
        "other/x.mp4",
        "a/b/empty.webm",
    ):
        store.put(key, b"" if "empty" in key else b"data")
    for url in (f"{ROOT}/a", f"{ROOT}/a/"):
        listing = list_videos(url)
        assert {video.video_id: video.place for video in listing.videos} == {
            "x": RemoteFile(f"{ROOT}/a/x.mp4", 4),
            "b/y": RemoteFile(f"{ROOT}/a/b/y.MKV", 4),
            "b/empty": RemoteFile(f"{ROOT}/a/b/empty.webm", 0),
        }
    with pytest.raises(VideoError, match=f"open: {ROOT}/a/b/empty.webm: empty file"), opened(listing.videos[0].place):
        pass
    with pytest.raises(GridClipError, match="no file of its own on this machine"):
        _ = listing.videos[0].path
    store.put("lists/l.txt", f"# all\n{ROOT}/a/x.mp4\nlocal.mp4\n".encode())
    listing = list_videos(f"{ROOT}/lists/l.txt")
    assert [(video.video_id, video.place) for video in listing.videos] == [
        (f"{BUCKET}/a/x", RemoteFile(f"{ROOT}/a/x.mp4"))
    ]
    assert [failure.reason for failure in listing.failures] == ["line 3: a path in a remote list, expected a URL"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://no-such-bucket/a", "no such file, folder or bucket|does not exist"),
        (f"{ROOT}/nothing/here", "does not exist"),
        (f"{ROOT}/a/x.mp4", "no video in|is a file"),
        (f"{ROOT}/a/none.tar", "cannot be read: no such file"),
        ("nonsense://x/y", "nonsense:// is unknown .*expected s3, gs"),
    ],
)
def test_what_is_not_there_is_one_sentence(store: FaultyStore, url: str, told: str) -> None:
    store.put("a/x.mp4", b"data")
    with pytest.raises(GridClipError, match=told) as caught:
        list_videos(url)
    assert "\n" not in str(caught.value) and url in str(caught.value)


def test_no_credentials_is_one_sentence(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(GridClipError, match=f"`video_dir` {ROOT}/a cannot be listed: there are no credentials for it"):
        list_videos(f"{ROOT}/a")


@pytest.mark.parametrize("name", ["a.mp4", "c.mkv"])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_pixels_are_those_of_the_local_file(
    store: FaultyStore, small_videos: pathlib.Path, name: str, decoder: str
) -> None:
    store.put(name, (small_videos / name).read_bytes())
    np.testing.assert_array_equal(pixels(RemoteFile(f"{ROOT}/{name}"), decoder), pixels(small_videos / name, decoder))


def test_a_tar_in_the_store(store: FaultyStore, small_videos: pathlib.Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("a.mp4", "b.mp4"):
            tar.add(small_videos / name, name)
    store.put("t/0.tar", packed.getvalue())
    listing = list_videos(f"{ROOT}/t")
    assert [video.video_id for video in listing.videos] == ["0/a", "0/b"]
    for video in listing.videos:
        assert isinstance(video.place, TarMember)
        np.testing.assert_array_equal(pixels(video.place), pixels(small_videos / video.place.name))


@pytest.mark.parametrize("fault", ["refuse", "cut", "drop", "delay"])
def test_a_fault_now_and_then_costs_nothing(
    store: FaultyStore, small_videos: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fault: faulty_store.Fault
) -> None:
    monkeypatch.setattr(remote, "TRY_LIMIT_S", 0.5)
    store.delay_s = 1.0
    store.put("c.mkv", (small_videos / "c.mkv").read_bytes())
    expected = pixels(small_videos / "c.mkv")
    store.faults.extend([fault, fault, None, fault])
    np.testing.assert_array_equal(pixels(RemoteFile(f"{ROOT}/c.mkv")), expected)
    assert not store.faults or list(store.faults) == [fault]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuse", r"\(4 tries\)"),
        ("cut", r"\(4 tries\)"),
        ("drop", r"\(4 tries\)"),
        ("delay", r"nothing came for 0.3 s \(4 tries\)"),
        ("forbid", "permission denied"),
    ],
)
def test_a_fault_that_stays_costs_the_video(
    store: FaultyStore,
    small_videos: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: faulty_store.Fault,
    told: str,
) -> None:
    monkeypatch.setattr(remote, "TRY_LIMIT_S", 0.3)
    store.delay_s = 0.8
    store.put("a.mp4", (small_videos / "a.mp4").read_bytes())
    store.always = fault
    with pytest.raises(VideoError) as caught:
        pixels(RemoteFile(f"{ROOT}/a.mp4"))
    assert caught.value.stage == "open" and caught.value.reason.startswith(f"{ROOT}/a.mp4: ")
    assert re.search(told, caught.value.reason)


def test_a_fault_in_the_middle_is_no_end_of_the_file(
    store: FaultyStore, write_video: Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """FFmpeg may take a read that fails for the end of the file: such a video must not be stored cut short."""
    path = write_video(
        tmp_path / "long.mkv", duration_s=20, width_px=320, height_px=240, options={"qp": "1", "g": "10"}
    )
    assert path.stat().st_size > 1 << 20
    store.put("long.mkv", path.read_bytes())
    store.faults.extend([None, None, "forbid"])
    with pytest.raises(VideoError) as caught:
        pixels(RemoteFile(f"{ROOT}/long.mkv"))
    assert caught.value.stage == "demux" and "long.mkv: permission denied" in caught.value.reason


def test_a_web_server_must_give_parts(small_videos: pathlib.Path) -> None:
    """Python's own one does not: it sends the whole file."""
    program = (
        "import http.server as h; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler); "
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=small_videos, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            assert [video.video_id for video in list_videos(url).videos] == ["a", "b", "c", "d"]
            place = RemoteFile(f"{url}/a.mp4")
            size = (small_videos / "a.mp4").stat().st_size
            assert remote.read(place) == (small_videos / "a.mp4").read_bytes()
            with pytest.raises(OSError, match="the server does not give parts of files"):
                remote.fetch(place, 0, size - 1)
        finally:
            server.kill()


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    remote._connected.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(GridClipError, match=r"s3://b/x needs .*pip install '\.\[remote\]'"):
        list_videos("s3://b/x")
