"""Reading only what the wanted frames need, against a scan of every packet: same frames, same times, fewer bytes."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator

import av
import faulty_store
import numpy as np
import pytest
from damaged_videos import copied
from faulty_store import BUCKET, FaultyStore
from generated_videos import STRUCTURES, Recipe, write
from gridclip.dali_pipes import opening, remote
from gridclip.dali_pipes.contract import VideoError
from gridclip.dali_pipes.cpu import reading
from gridclip.dali_pipes.cpu.reading import Reading, open_needed, open_reading
from gridclip.dali_pipes.packets import index, needed, sample_table, scan
from gridclip.dali_pipes.packets.needed import IndexFeed
from gridclip.dali_pipes.places import Place, RemoteFile
from gridclip.dali_pipes.read_ahead import ReadAhead
from gridclip.dali_pipes.sampling import Sampling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whole_decodes import decode_all

SAMPLINGS = (Sampling(fps=0.5), Sampling(fps=2, mode="time"), Sampling(fps=8))
LISTED = [recipe for recipe in STRUCTURES if recipe.name.endswith((".mp4", ".mov"))]
# One packet may hold one field of a frame; a frame may lie in the packet of another one.
SCANNED = ("h264_mbaff.mp4", "mpeg4.mp4")


@pytest.fixture(autouse=True)
def any_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files and small gains, too."""
    monkeypatch.setattr(needed, "LEAST_FILE_BYTES", 0)
    monkeypatch.setattr(needed, "MOST_SHARE", 9.0)
    monkeypatch.setattr(opening, "LOCAL_JUMP_BYTES", 0)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.02, 0.03))
    with faulty_store.serving(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("structures")
    return {recipe.name: write(folder, recipe) for recipe in LISTED}


def chosen(video: Reading) -> bool:
    """Whether packets were chosen by the header."""
    return isinstance(video.kept, IndexFeed)


def frames_of(video: Reading) -> list[np.ndarray]:
    return list(video.frames("pyav"))


def assert_same(path: Place, sampling: Sampling, on_damage: reading.OnDamage = "fail") -> bool:
    """Whether packets were chosen; asserts that nobody can tell by what comes out."""
    with open_reading(path, sampling, on_damage) as every, open_needed(path, sampling, on_damage) as some:
        assert some.summary == every.summary
        assert np.array_equal(some.planned_s, every.planned_s) and np.array_equal(some.wanted, every.wanted)
        for column in ("pts", "sizes", "shown", "times_s"):
            assert np.array_equal(getattr(some.table, column), getattr(every.table, column)), column
        frames = frames_of(some)
        assert len(frames) == len(every.wanted)
        assert np.array_equal(frames, frames_of(every))
        assert (some.damage.replaced, some.damage.concealed) == (every.damage.replaced, every.damage.concealed)
        return chosen(some)


@pytest.mark.parametrize("name", [recipe.name for recipe in LISTED])
def test_every_structure_gives_the_frames_of_a_scan(structures: dict[str, pathlib.Path], name: str) -> None:
    for sampling in SAMPLINGS:
        assert assert_same(structures[name], sampling) == (name not in SCANNED)


def test_real_files_give_the_frames_of_a_scan(shared_data: pathlib.Path) -> None:
    for path in sorted((shared_data / "videos").iterdir()):
        for sampling in SAMPLINGS[:2]:
            assert assert_same(path, sampling) == (path.suffix == ".mp4"), path.name


def test_steps_of_decoding_are_left_out_as_after_a_scan(shared_data: pathlib.Path) -> None:
    fast, path = Sampling(fps=2, decode="fast"), shared_data / "videos" / "bbb480.mp4"
    assert assert_same(path, fast)
    with open_needed(path, fast) as left_out, open_needed(path, Sampling(fps=2)) as exact:
        assert not np.array_equal(frames_of(left_out), frames_of(exact))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codec=st.sampled_from(["libx264", "libx265"]),
    gop=st.integers(1, 30),
    b_frames=st.integers(0, 4),
    open_gop=st.booleans(),
    frames=st.integers(1, 60),
    first_pts=st.integers(-9, 0),
    fps=st.floats(0.3, 12),
    variable_rate=st.booleans(),
)
def test_any_structure_gives_the_frames_of_a_scan(
    tmp_path: pathlib.Path,
    codec: str,
    gop: int,
    b_frames: int,
    open_gop: bool,
    frames: int,
    first_pts: int,
    fps: float,
    variable_rate: bool,
) -> None:
    settings_ = f"scenecut=0:bframes={b_frames}:b-adapt=0:open-gop={int(open_gop)}"
    options = {"libx264": ("x264-params", settings_), "libx265": ("x265-params", f"log-level=none:pools=1:{settings_}")}
    recipe = Recipe(
        "any.mp4",
        codec,
        frames=frames,
        options=(("preset", "ultrafast"), options[codec]),
        gop=gop,
        size=(64, 48),
        first_pts=max(first_pts, 1 - frames),
        variable_rate=variable_rate,
    )
    path = write(tmp_path, recipe)
    try:
        with open_reading(path, Sampling(fps=fps)):
            pass
    except VideoError as error:
        with pytest.raises(VideoError, match=error.reason), open_needed(path, Sampling(fps=fps)):
            pass
        return
    assert_same(path, Sampling(fps=fps))


def read_count(video: Reading) -> int:
    assert isinstance(video.kept, IndexFeed)
    return len(video.kept._kept)


def test_whole_gops_and_what_follows_the_last_wanted_frame_are_not_read(tmp_path: pathlib.Path) -> None:
    recipe = Recipe("short_gops.mp4", options=(("x264-params", "scenecut=0:bframes=0"),), gop=10, frames=300)
    path = write(tmp_path, recipe)  # 30 fps: a wanted frame in each sixth GOP, the first of it
    with open_needed(path, Sampling(fps=0.5)) as video:
        assert video.wanted.tolist() == [0, 60, 120, 180, 240] and read_count(video) == 5
        assert [len(each) for each in np.split(video.table.facts, 5)] == [60] * 5
        assert np.flatnonzero(video.table.facts).tolist() == [0, 60, 120, 180, 240]
        everything = decode_all(path)
        assert np.array_equal(frames_of(video), [everything[index] for index in video.wanted])
    with open_needed(path, Sampling(fps=0.5), only=np.array([2, 4, 99])) as video:
        assert len(video.wanted) == 5 and read_count(video) == 3  # the file's first packet is always looked at
        part = video.part(np.array([2, 4]))
        assert np.array_equal(frames_of(part), [everything[120], everything[240]])


def test_frames_whose_packets_were_not_read_are_right_as_well(structures: dict[str, pathlib.Path]) -> None:
    for name in ("h264_pyramid.mp4", "hevc_open_gop.mp4", "av1.mp4"):
        everything = decode_all(structures[name])
        with open_needed(structures[name], Sampling(fps=8), only=np.array([5])) as video:
            assert chosen(video) and np.array_equal(frames_of(video), [everything[index] for index in video.wanted])


def test_large_files_are_read_again_where_a_segment_lies(
    structures: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "KEEP_PACKETS_BYTES", 0)
    for name in ("h264_pyramid.mp4", "hevc_layers.mp4", "av1.mp4", "mjpeg.mov"):
        assert assert_same(structures[name], Sampling(fps=4))
        with open_needed(structures[name], Sampling(fps=4)) as video:
            assert read_count(video) == 0


def test_keyframes_and_numbers_of_hidden_frames_need_every_packet(structures: dict[str, pathlib.Path]) -> None:
    """Which packets are starts stands in the packets themselves, unless each is one."""
    keyframes = Sampling(fps=2, max_shift_s=1.0)
    assert not assert_same(structures["h264_pyramid.mp4"], keyframes)
    assert assert_same(structures["mjpeg.mov"], keyframes)
    assert not assert_same(structures["h264_edit_list.mp4"], Sampling(fps=2, edit_lists="ignore"))
    assert assert_same(structures["h264_pyramid.mp4"], Sampling(fps=2, edit_lists="ignore"))


@pytest.mark.parametrize("position", [0, 3, 33, 45, 70])
@pytest.mark.parametrize("emptied", [False, True])
def test_damage_costs_what_it_costs_a_scan(
    structures: dict[str, pathlib.Path], tmp_path: pathlib.Path, position: int, emptied: bool
) -> None:
    lost = {"emptied" if emptied else "zeroed": (position,)}
    for name in ("h264_pyramid.mp4", "hevc_open_gop.mp4"):
        path = copied(structures[name], tmp_path / name, **lost)
        for fps in (0.5, 4):
            try:
                assert_same(path, Sampling(fps=fps), "nearest")
            except VideoError as error:
                with (
                    pytest.raises(VideoError, match=error.stage),
                    open_needed(path, Sampling(fps=fps), "nearest") as some,
                ):
                    frames_of(some)


def set_number(path: pathlib.Path, box: bytes, at: int, value: int) -> None:
    """Overwrites four bytes of a box's payload."""
    data = bytearray(path.read_bytes())
    start = data.index(box) + 4 + at
    data[start : start + 4] = struct.pack(">I", value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("box", "at", "value"),
    [
        (b"stss", 12, 40),  # the second keyframe is said to be a packet at which decoding cannot start
        (b"ctts", 4, 9),  # fewer entries than samples
        (b"ctts", 12, 1 << 29),  # an offset that FFmpeg does not believe
        (b"stts", 12, 0),  # frames that last no time
        (b"stsd", 4, 2),
        (b"stco", 8, 1 << 30),  # packets beyond the end of the file
    ],
)
def test_headers_that_are_wrong_lead_to_a_scan(
    structures: dict[str, pathlib.Path], tmp_path: pathlib.Path, box: bytes, at: int, value: int
) -> None:
    path, sampling = tmp_path / "wrong.mp4", Sampling(fps=0.7)  # two wanted frames, in the first two GOPs
    path.write_bytes(structures["h264_pyramid.mp4"].read_bytes())
    set_number(path, box, at, value)
    try:
        with open_reading(path, sampling, "nearest") as video:
            expected = frames_of(video)
    except VideoError as error:
        with pytest.raises(VideoError, match=error.stage), open_needed(path, sampling, "nearest") as video:
            frames_of(video)
        return
    with open_needed(path, sampling, "nearest") as video:
        assert not chosen(video) and np.array_equal(frames_of(video), expected)


def test_parameter_sets_that_change_in_what_is_read_lead_to_a_scan(tmp_path: pathlib.Path) -> None:
    """Two streams of one file, one after the other, of which the second brings its own sets."""
    paths = [
        write(tmp_path, Recipe(name, options=(("x264-params", f"bframes=0:scenecut=0:{extra}"),), gop=15, frames=30))
        for name, extra in (("a.mp4", "cabac=1"), ("b.mp4", "cabac=0"))
    ]
    joined = tmp_path / "joined.mp4"
    with av.open(str(joined), "w") as new:
        stream, shift = None, 0
        for number, path in enumerate(paths):
            with av.open(str(path)) as old:
                stream = stream or new.add_stream_from_template(old.streams.video[0], opaque=True)
                extradata = old.streams.video[0].codec_context.extradata
                sets = sets_of(extradata)
                for packet in old.demux(video=0):
                    if not packet.size:
                        continue
                    copy = av.Packet((sets if number and packet.is_keyframe else b"") + bytes(packet))
                    copy.pts, copy.dts, copy.time_base = packet.pts + shift, packet.dts + shift, packet.time_base
                    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                    new.mux_one(copy)
            shift += 15360
    assert not assert_same(joined, Sampling(fps=2), "nearest")


def sets_of(extradata: bytes) -> bytes:
    """The parameter sets of avcC, each after its length of four bytes."""
    position, found = 5, b""
    for mask in (0x1F, 0xFF):
        count, position = extradata[position] & mask, position + 1
        for _ in range(count):
            size = int.from_bytes(extradata[position : position + 2], "big")
            found += struct.pack(">I", size) + extradata[position + 2 : position + 2 + size]
            position += 2 + size
    return found


def test_fragmented_files_are_scanned(structures: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fragmented.mp4"
    with (
        av.open(str(structures["h264_pyramid.mp4"])) as old,
        av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux_one(packet)
    assert not assert_same(path, Sampling(fps=4))


def test_sample_times_are_those_of_ffmpegs_packets(
    structures: dict[str, pathlib.Path], shared_data: pathlib.Path
) -> None:
    for path in [*structures.values(), *(shared_data / "videos").glob("*.mp4")]:
        with av.open(str(path)) as container, opening.seekable(path) as file:
            stream = container.streams.best("video")
            packets = [packet for packet in container.demux(stream) if packet.size]
            times = sample_table.read_sample_times(file, stream.id, len(packets))
        shifts = np.array([packet.pts - packet.dts for packet in packets]) - times.offsets
        assert len(set(shifts.tolist())) == 1, path.name
        assert times.durations.tolist() == [packet.duration for packet in packets], path.name


@settings(max_examples=300)
@given(st.data())
def test_damaged_headers_are_a_doubt_never_a_crash(structures: dict[str, pathlib.Path], data: st.DataObject) -> None:
    whole = structures["h264_open_gop.mp4"].read_bytes()
    damaged = bytearray(whole)
    start = whole.index(b"moov") - 4
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(start, len(whole) - 1))] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    damaged = damaged[: data.draw(st.sampled_from([len(whole), len(whole) - 100, start + 50]))]
    file = ReadAhead(lambda a, b: bytes(damaged[a:b]), len(damaged))
    try:
        times = sample_table.read_sample_times(file, 1, 90)
    except sample_table.Doubt:
        return
    assert len(times.durations) == len(times.offsets) == 90


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_an_error_or_frames_never_a_crash(
    structures: dict[str, pathlib.Path], tmp_path: pathlib.Path, data: st.DataObject
) -> None:
    whole = structures[data.draw(st.sampled_from(["h264_slices.mp4", "hevc_open_gop.mp4", "av1.mp4"]))].read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(32, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damaged)
    try:
        with open_needed(path, Sampling(fps=4), "nearest") as video:
            assert len(frames_of(video)) == len(video.wanted)
    except VideoError as error:
        assert error.stage and error.reason


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "KEEP_PACKETS_BYTES", 0)
    path = write(tmp_path, LISTED[0])
    with (
        pytest.raises(VideoError, match="became shorter|ends .* too early"),
        open_needed(path, Sampling(fps=4)) as video,
    ):
        path.write_bytes(path.read_bytes()[:5000])
        frames_of(video)


def test_an_object_store_gives_only_what_is_needed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, store: FaultyStore
) -> None:
    monkeypatch.setattr(needed, "MOST_SHARE", 0.9)
    options = (("preset", "ultrafast"), ("x264-params", "scenecut=0:bframes=0:qp=0"))
    path = write(tmp_path, Recipe("large.mp4", options=options, gop=15, frames=300, size=(320, 240)))
    store.put("large.mp4", path.read_bytes())
    place = RemoteFile(f"s3://{BUCKET}/large.mp4", path.stat().st_size)
    sampling = Sampling(fps=0.5)
    with open_reading(place, sampling) as video:
        expected = frames_of(video)
    scanned = store.bytes_read
    store.reads.clear()
    with open_needed(place, sampling) as video:
        assert chosen(video) and np.array_equal(frames_of(video), expected)
    assert scanned > 0.95 * path.stat().st_size > 10 << 20
    assert store.bytes_read < 0.3 * scanned
    store.reads.clear()
    store.faults.extend([None] * 4 + ["cut", "refuse", "drop"])
    with open_needed(place, sampling) as video:
        assert chosen(video) and np.array_equal(frames_of(video), expected)
    assert not store.faults
    store.forbidden = "large"
    with pytest.raises(VideoError, match="permission denied"), open_needed(place, sampling):
        pass


def test_a_store_that_fails_in_the_middle_is_an_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, store: FaultyStore
) -> None:
    monkeypatch.setattr(scan, "KEEP_PACKETS_BYTES", 0)
    path = write(tmp_path, Recipe("v.mp4", options=(("x264-params", "qp=0"),), gop=15, frames=90, size=(320, 240)))
    store.put("v.mp4", path.read_bytes())
    place = RemoteFile(f"s3://{BUCKET}/v.mp4", path.stat().st_size)
    with (
        pytest.raises(VideoError, match="permission denied") as caught,
        open_needed(place, Sampling(fps=8)) as video,
    ):
        assert chosen(video)
        store.forbidden = "v.mp4"
        frames_of(video)
    assert caught.value.stage == "demux"


def test_other_containers_say_so(shared_data: pathlib.Path) -> None:
    for name in ("echo.webm", "pancake.mkv"):
        path = shared_data / "videos" / name
        with (
            scan.open_video(path) as (container, stream),
            opening.seekable(path) as file,
            pytest.raises(sample_table.Doubt, match="does not list its packets"),
        ):
            index.read_index(container, stream, file)
