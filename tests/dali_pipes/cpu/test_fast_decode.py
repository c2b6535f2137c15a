"""`Sampling(decode="fast")`: its frames are those of a plain decode that leaves the same step out."""

from __future__ import annotations

import functools
import pathlib

import av
import fake_model
import numpy as np
import pytest
import whole_decodes
from av.video.reformatter import VideoReformatter
from generated_videos import Recipe, write
from gridclip import GridClipError
from gridclip.dali_pipes.cpu import decoding, super_images
from gridclip.dali_pipes.cpu.decoders import DECODERS, in_turn
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.nvdali import sources as dali_sources
from gridclip.dali_pipes.sampling import Sampling, of_record
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import sources
from gridclip.engine.jobs.embed_videos import embed_videos
from gridclip.engine.jobs.super_images import make_super_images
from gridclip.engine.store.store import Store

# At a rate at which the loop filter has something to do. Keyframes are 30 frames apart, wanted ones 10.
OPTIONS = (("preset", "veryfast"), ("crf", "40"), ("x264-params", "keyint=30:scenecut=0:bframes=2"))
FPS = 3.0
FAST = Sampling(fps=FPS, decode="fast")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write(tmp_path_factory.mktemp("fast"), Recipe("a.mp4", frames=90, gop=30, options=OPTIONS))


def without_filter(path: pathlib.Path) -> list[np.ndarray]:
    """Every frame of the file, by a plain sequential decode that filters keyframes alone."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"skip_loop_filter": "nokey"}
        return [decoding.to_rgb(frame, reformatter) for frame in container.decode(stream)]


def test_frames_are_those_of_a_whole_decode_that_leaves_the_same_out(video: pathlib.Path) -> None:
    expected, exact = without_filter(video), whole_decodes.decode_all(video)
    with open_reading(video, FAST) as reading:
        wanted = reading.wanted.tolist()
        assert reading.decoded_packets == 0
        whole = list(reading.whole_file(0))
    frames = list(super_images.frames(video, FPS, decode="fast"))
    assert len(frames) == len(wanted) == 9
    differ = []
    for index, frame, of_whole in zip(wanted, frames, whole, strict=True):
        assert np.array_equal(frame, expected[index]) and np.array_equal(of_whole, expected[index])
        differ.append(not np.array_equal(frame, exact[index]))
    assert differ == [index % 30 != 0 for index in wanted]  # keyframes are exact
    assert all(map(np.array_equal, super_images.frames(video, FPS), [exact[index] for index in wanted]))


def test_only_pyav_does_it() -> None:
    assert in_turn("auto", "fast") == in_turn("pyav", "fast") == ["pyav"]
    assert [name for name, decoder in DECODERS.items() if decoder.takes_fast] == ["pyav"]
    with pytest.raises(ValueError, match=r"decoder \('decord'\) decodes exactly"):
        in_turn("decord", "fast")


def test_with_a_gpu_the_default_is_pyav_and_dali_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali_sources, "why_not", lambda: None)
    assert sources.uses_dali("auto", 0)
    assert not sources.uses_dali("auto", 0, "fast") and not sources.uses_dali("pyav", 0, "fast")
    for decoder in ("dali", "hybrid", "decord"):
        with pytest.raises(GridClipError, match=f"`decoder='{decoder}'` decodes exactly.*use `decoder='pyav'`"):
            sources.uses_dali(decoder, 0, "fast")


def test_settings() -> None:
    assert of_record({"fps": 1.0}).decode == "exact"  # recorded before there was a choice
    with pytest.raises(ValueError, match=r"decode \('quick'\) must be one of exact, fast"):
        Sampling(decode="quick")  # type: ignore[arg-type]


def test_stores_of_both_are_not_mixed(tmp_path: pathlib.Path) -> None:
    stores = {name: Store.open(tmp_path / name, create=True) for name in ("old", "exact", "fast")}
    given = {"fps": 0.5, "grid_size": 2, "mode": "frames"}
    stores["old"].claim_sampling(given)
    stores["exact"].claim_sampling({**given, "decode": "exact"})
    stores["fast"].claim_sampling({**given, "decode": "fast"})
    stores["old"].claim_sampling({**given, "decode": "exact"})  # resumed
    stores["old"].require_alike(stores["exact"])
    with pytest.raises(GridClipError, match="sampling decode = 'fast', this run has 'exact'"):
        stores["fast"].claim_sampling({**given, "decode": "exact"})
    with pytest.raises(GridClipError, match="sampling decode = 'exact', this run has 'fast'"):
        stores["old"].claim_sampling({**given, "decode": "fast"})
    for name in ("old", "exact"):
        with pytest.raises(GridClipError, match="decode = 'fast'.*with 'exact'"):  # a merge
            stores[name].require_alike(stores["fast"])


def test_folders_of_both_are_not_mixed(video: pathlib.Path, tmp_path: pathlib.Path) -> None:
    job = {"sampling": FAST, "num_workers": 1}
    assert make_super_images(video.parent, tmp_path / "out", **job).done == 1
    assert make_super_images(video.parent, tmp_path / "out", resume=True, **job).failures == 0
    job["sampling"] = Sampling(fps=FPS)
    with pytest.raises(GridClipError, match="made with decode = fast, this run has exact"):
        make_super_images(video.parent, tmp_path / "out", resume=True, **job)


def test_a_job_that_cannot_do_it_leaves_what_there_is(video: pathlib.Path, tmp_path: pathlib.Path) -> None:
    encoder = Encoder(fake_model.write(tmp_path / "model"), provider="cpu")
    for make in (make_super_images, functools.partial(embed_videos, encoder)):
        with pytest.raises(GridClipError, match="`decoder='decord'` decodes exactly"):
            make(video.parent, tmp_path / "out", sampling=FAST, decoder="decord", overwrite=True, num_workers=1)
    assert not (tmp_path / "out").exists()
