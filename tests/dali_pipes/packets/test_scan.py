"""Video files that are fine, broken or no videos: what scanning their packets says."""

from __future__ import annotations

import pathlib
import wave

import av
import pytest
from generated_videos import STRUCTURES, Recipe, write
from gridclip.dali_pipes.bitstream.facts import BAD_CONTAINER, BAD_HEADERS, DAMAGED, UNSAFE
from gridclip.dali_pipes.contract import SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.cpu import super_images
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import Sampling

MP4 = next(recipe for recipe in STRUCTURES if recipe.name == "h264_pyramid.mp4")
MKV = next(recipe for recipe in STRUCTURES if recipe.name == "hevc_closed_gop.mkv")


def failure(path: pathlib.Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        list(super_images.super_images(VideoFile("x", path), Sampling(fps=2)))
    return caught.value


def test_summary_of_a_plain_file(tmp_path: pathlib.Path) -> None:
    summary = scan.summarise(write(tmp_path, MP4))
    assert summary == scan.VideoStream(90, 30.0, 3.0, "h264", 128, 96)


def test_missing_folder_and_empty_file(tmp_path: pathlib.Path) -> None:
    assert failure(tmp_path / "none.mp4").reason == "no such file"
    assert failure(tmp_path).reason == "is a directory"
    (tmp_path / "empty.mp4").touch()
    assert failure(tmp_path / "empty.mp4").reason == "empty file"


def test_not_a_video(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 1000)
    error = failure(tmp_path / "text.mp4")
    assert error.stage == "open" and "not a video" in error.reason


def test_audio_only(tmp_path: pathlib.Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 8000)
    assert failure(tmp_path / "sound.wav").reason == "no video stream (only audio)"


def test_cover_art_is_no_video(tmp_path: pathlib.Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame(64, 64, "yuvj420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "no video stream" in failure(tmp_path / "song.mp4").reason


def test_truncated_header_at_the_end(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, MP4)  # its index is written last
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert failure(path).stage == "open"


@pytest.mark.parametrize("recipe", [MP4, MKV], ids=["mp4", "mkv"])
def test_truncated_data(tmp_path: pathlib.Path, recipe: Recipe) -> None:
    source = write(tmp_path, recipe)
    path = tmp_path / ("cut" + source.suffix)
    with av.open(str(source)) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux_one(packet)
    assert scan.summarise(path).frame_count == 90
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = failure(path)
    if recipe is MP4:
        assert error.stage == "demux" and "truncated file" in error.reason and "of 90 video packets" in error.reason
    else:
        assert "truncated file" in error.reason


def test_damaged_frames_are_a_failure_or_concealed_never_a_crash(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, MP4)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    for position in range(start + 2000, len(data) - 6000, 97):
        data[position] ^= 0xFF
    path.write_bytes(data)
    try:
        events = list(super_images.super_images(VideoFile("x", path), Sampling(fps=8)))
    except VideoError as error:
        assert error.stage in ("decode", "demux") and error.reason
    else:
        assert sum(len(event.images) for event in events if isinstance(event, SuperImages)) == 6


def test_zeroed_picture_data_is_reported(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, Recipe("intra.avi", "mjpeg", pixel_format="yuvj420p"))
    data = bytearray(path.read_bytes())
    start = data.index(b"movi") + 2000
    data[start : start + len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)
    assert failure(path).stage in ("decode", "demux")


def table_of(path: pathlib.Path) -> scan.PacketTable:
    with scan.open_video(path) as (container, stream):
        return scan.scan(container, stream)[1]


def test_headers_that_cannot_be_read_stop_pruning(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, MP4)
    data = bytearray(path.read_bytes())
    data[data.index(b"avcC") + 9] = 0xFF  # 31 parameter sets, of which one is there
    path.write_bytes(data)
    table = table_of(path)
    assert not table.prunable and (table.facts & BAD_HEADERS).all()


def test_a_packet_that_the_syntax_does_not_allow_is_damaged(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, MP4)
    sizes = table_of(path).sizes
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4 + int(sizes[:4].sum())  # the fifth packet
    data[start : start + 4] = b"\x7f\0\0\0"  # its first NAL unit, longer than the packet
    path.write_bytes(data)
    table = table_of(path)
    assert not table.prunable and (table.facts & DAMAGED).nonzero()[0].tolist() == [4]
    assert (table.facts & UNSAFE)[-1] == BAD_CONTAINER  # FFmpeg complains of it, but does not say where


def test_ffmpeg_is_listened_to_only_while_a_video_is_open(tmp_path: pathlib.Path) -> None:
    """With PyAV's logging on, FFmpeg's threads wait for Python's lock: others in this process could hang."""
    path = write(tmp_path, MP4)
    assert av.logging.get_level() is None
    with scan.open_video(path):
        with scan.open_video(path):
            assert av.logging.get_level() == av.logging.PANIC
        assert av.logging.get_level() == av.logging.PANIC
    assert av.logging.get_level() is None
    with pytest.raises(VideoError), scan.open_video(tmp_path):
        pass
    assert av.logging.get_level() is None
