"""dali_pipes/ids.py: which ids there are, which names mean them, and that none leads out of a folder."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from gridclip.dali_pipes import ids
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "a.mp4", "c.5"]), min_size=1, max_size=3),
        st.sampled_from([".mp4", ".MP4", ".mkv", ".m2ts"]),
    ).map(lambda name: "/".join(name[0]) + name[1]),
    unique=True,
)


@given(NAMES)
def test_every_file_has_an_id_of_its_own(names: list[str]) -> None:
    named = ids.of_files(names)
    assert list(named) == names
    assert len(set(named.values())) == len(names)
    for name, video_id in named.items():
        bare = name.rpartition(".")[0]
        assert video_id in (name, bare)
        if sum(other.rpartition(".")[0] == bare or other == bare for other in names) == 1:
            assert video_id == bare  # the suffix is kept only where it tells two videos apart


@given(NAMES)
def test_every_id_means_its_own_file(names: list[str]) -> None:
    video_ids = list(ids.of_files(names).values())
    assert ids.answering(video_ids, video_ids) == {video_id: [video_id] for video_id in video_ids}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x/clip", ["x/clip"]),
        ("clip", ["x/clip", "y/clip"]),
        ("clip.mp4", ["x/clip", "y/clip"]),
        ("two", ["two.avi", "two.mp4"]),
        ("two.mp4", ["two.mp4"]),
        ("lip", []),
        ("/clip", []),
        ("../clip", []),
        ("", []),
    ],
)
def test_names_of_an_annotation(name: str, expected: list[str]) -> None:
    assert ids.answering([name], ["x/clip", "y/clip", "two.mp4", "two.avi"]) == {name: expected}


@pytest.mark.parametrize(
    "video_id",
    [
        "",
        " ",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "/a",
        "//a",
        "a//b",
        "a/",
        "a\0b",
        "\0",
        ".hidden",
        "a/.b.part",
        "..\\a",
        "a\\..\\..\\b",
        "\\a",
        "C:\\a",
        "\\\\server\\share\\a",
        "x" * 256,
        "a/" + "x" * 256 + "/b",
        "é" * 128,
        "bad\udcff",
        "\ud800",
    ],
)
def test_no_id_leads_out_of_a_folder(tmp_path: pathlib.Path, video_id: str) -> None:
    with pytest.raises(ids.UnusableId) as error:
        ids.path_below(tmp_path, video_id)
    str(error.value).encode()  # can be printed
    with pytest.raises(ids.UnusableId):
        ids.path_below(tmp_path, video_id, ".npy")


@given(st.text(alphabet=st.sampled_from("./\\aC: \0\udcff"), max_size=12))
def test_a_path_is_below_its_folder_or_refused(video_id: str) -> None:
    folder = pathlib.Path("/store/out")
    try:
        path = ids.path_below(folder, video_id, ".npy")
    except ids.UnusableId:
        return
    assert os.path.normpath(path) == str(path) and path.is_relative_to(folder) and path != folder
    windows = pathlib.PureWindowsPath(video_id)
    assert ".." not in windows.parts and not windows.root


@pytest.mark.parametrize("video_id", ["v_-a.b", "2024/é 1", "a\\b", "Q: what", "x" * 255, "a..b/c"])
def test_ordinary_ids_are_paths(tmp_path: pathlib.Path, video_id: str) -> None:
    path = ids.path_below(tmp_path, video_id)
    path.mkdir(parents=True)
    assert [str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*") if not any(found.iterdir())] == [video_id]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain é \U0001f600", "plain é \U0001f600"),
        (os.fsdecode(b"caf\xe9/\xff"), r"caf\xe9/\xff"),
        (json.loads(r'"\ud83d\ude00"'), "\U0001f600"),
        (json.loads(r'"\ud83d"'), r"\ud83d"),
    ],
)
def test_printable(text: str, printed: str) -> None:
    assert ids.printable(text) == printed
    assert (ids.text_problem(text) is None) == (text == printed)


@given(st.text(alphabet="a.P4mpvwe/ ", max_size=12), st.sampled_from(["", ".mp4", ".MKV", ".5", ".webm"]))
def test_a_bare_name_is_what_pathlib_says(stem: str, suffix: str) -> None:
    path = pathlib.PurePosixPath(stem + suffix)
    expected = str(path.with_suffix("")) if path.suffix.lower() in ids.VIDEO_SUFFIXES else stem + suffix
    assert ids.bare(stem + suffix) == expected
