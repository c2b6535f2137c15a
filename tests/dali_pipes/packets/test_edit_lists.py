"""packets/edit_lists.py: counts, rates and pictures of files with edit lists, against decord itself."""

import dataclasses
import pathlib

import av
import decord
import numpy as np
import pytest
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.packets.edit_lists import counted
from gridclip.dali_pipes.sampling import Sampling, completed
from gridclip.engine.planning.plan import plan_folder


def cut(source: pathlib.Path, path: pathlib.Path, start_s: float) -> pathlib.Path:
    """The video from start_s on, copied: the packets before it stay, hidden by an edit list."""
    with av.open(str(source)) as opened, av.open(str(path), "w") as out:
        stream = opened.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in opened.demux(stream):
            if packet.pts is not None and packet.dts is not None and packet.size:
                packet.stream = copied
                packet.pts -= round(start_s / float(stream.time_base or 1))
                packet.dts -= round(start_s / float(stream.time_base or 1))
                out.mux(packet)
    return path


@pytest.fixture(scope="module", params=["b-frames", "no b-frames", "all keyframes", "rabbit"])
def hidden(request, tmp_path_factory, write_video) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("edited")
    (folder / "only").mkdir()
    if request.param == "rabbit":
        source = request.getfixturevalue("shared_data") / "videos" / "rabbit320.mp4"
        return cut(source, folder / "only" / "v.mp4", 1.5)
    options = {
        "b-frames": {"preset": "veryfast", "bf": "2", "g": "20"},
        "no b-frames": {"preset": "veryfast", "bf": "0", "g": "30"},
        "all keyframes": {"preset": "veryfast", "g": "1"},
    }[request.param]
    write_video(folder / "whole.mp4", duration_s=18, options=options)
    return cut(folder / "whole.mp4", folder / "only" / "v.mp4", 0.9)


def test_counts_and_rates_are_decords(hidden):
    reader = decord.VideoReader(str(hidden))
    summary = scan.summarise(hidden)
    assert counted(summary).frame_count == len(reader)
    assert counted(summary).avg_fps == pytest.approx(reader.get_avg_fps())
    with av.open(str(hidden)) as container:
        assert summary.frame_count == sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("fps", [0.5, 0.77, 2.0])
def test_pictures_are_those_that_decord_gives(hidden, fps):
    reader = decord.VideoReader(str(hidden))
    count = int(len(reader) * fps / reader.get_avg_fps())
    given = reader.get_batch(np.linspace(0, len(reader), count, endpoint=False, dtype=int)).asnumpy().astype(int)
    summary = scan.summarise(hidden)
    shown = decord.VideoReader(str(hidden)).get_batch(range(summary.frame_count)).asnumpy().astype(int)
    distances = [np.abs(shown - picture).sum((1, 2, 3)) for picture in given]
    assert max(each.min() for each in distances) == 0
    expected = [int(each.argmin()) for each in distances]
    with open_reading(hidden, Sampling(fps=fps, edit_lists="ignore")) as reading:
        planned = reading.planned.tolist()
        pictures = list(reading.frames("pyav"))
    if summary.cut_off / reader.get_avg_fps() <= 1 / fps:
        assert planned == expected
    else:  # decord goes back in time once
        assert planned == np.maximum.accumulate(expected).tolist()
    reader = decord.VideoReader(str(hidden), width=446, height=336)
    scaled = reader.get_batch(range(summary.frame_count)).asnumpy()[planned]
    assert len(pictures) == count
    assert np.abs(np.stack(pictures).astype(int) - scaled).mean() < 4  # the same pictures, scaled by another program


def test_files_without_edit_lists_are_the_same(small_videos):
    sampling = Sampling(fps=2)
    for name in ("a.mp4", "c.mkv"):
        planned = []
        for rule in ("apply", "ignore"):
            with open_reading(small_videos / name, dataclasses.replace(sampling, edit_lists=rule)) as reading:
                planned.append(reading.planned.tolist())
        assert planned[0] == planned[1]


def test_a_plan_counts_them(hidden):
    for rule in ("apply", "ignore"):
        reader, stream = decord.VideoReader(str(hidden)), scan.summarise(hidden)
        count = len(reader) if rule == "ignore" else stream.frame_count
        planned = plan_folder(hidden.parent, Sampling(fps=2, edit_lists=rule))
        assert planned.frames == int(count * 2 / reader.get_avg_fps())


def test_settings():
    assert (
        completed({"fps": 0.5})["edit_lists"] == "apply"
        and completed({"fps": 1, "edit_lists": "ignore"})["edit_lists"] == "ignore"
    )
    with pytest.raises(ValueError, match="edit_lists"):
        Sampling(edit_lists="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hidden ones have no time"):
        Sampling(edit_lists="ignore", mode="time")
