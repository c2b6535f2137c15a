"""engine/tar_captions.py: captions that lie beside videos in WebDataset tars."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile

import pytest
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import load_annotations
from gridclip.engine.listing.listing import list_videos


def write_tar(path: pathlib.Path, members: dict[str, bytes | str | object]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, value in members.items():
            data = (
                value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
            )
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_text_comes_before_json_and_ids_are_those_of_the_videos(tmp_path: pathlib.Path) -> None:
    write_tar(
        tmp_path / "00000.tar",
        {
            "000.mp4": b"video",
            "000.json": {"caption": "not this", "url": "https://x/y"},
            "000.txt": "\ufeffA dog runs.\n",
            "001.json": {"caption": "A cat sleeps."},
            "001.mp4": b"video",
            "002.mp4": b"no caption",
            "002.json": {"url": "https://x/z"},
            "003.mp4": b"two",
            "003.json": {"caption": ["One.", "Two."]},
            "d/004.x.webm": b"dots",
            "d/004.x.txt": "Dots.",
        },
    )
    write_tar(tmp_path / "00001.tar", {"000.mp4": b"video", "000.txt": "", "000.json": {"caption": "Empty text."}})
    found = load_annotations(tmp_path)
    assert [(query.video_id, query.text) for query in found.queries] == [
        ("00000/000", "A dog runs."),
        ("00000/001", "A cat sleeps."),
        ("00000/003", "One."),
        ("00000/003", "Two."),
        ("00000/d/004.x", "Dots."),
        ("00001/000", "Empty text."),
    ]
    assert found.format == "webdataset" and not found.problems
    assert all(query.moments == [] for query in found.queries)
    every = [video.video_id for video in list_videos(tmp_path).videos]
    assert sorted(found.video_ids) == every
    listing = list_videos(tmp_path, found.video_ids)
    assert [video.video_id for video in listing.videos] == every and not listing.failures
    one = load_annotations(tmp_path / "00001.tar")
    assert [(query.video_id, query.text) for query in one.queries] == [("00001/000", "Empty text.")]


def test_what_is_damaged_costs_itself_only(tmp_path: pathlib.Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        {
            "1.txt": b"caf\xe9",
            "2.json": "{",
            "3.json": {"caption": 7},
            "4.txt": "x" * ((1 << 20) + 1),
            "5.json": "[" * 100_000,
            "6.txt": "Good.",
            "7.txt": "Cut off.",
        },
    )
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: data.index(b"Cut off.") + 3])
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    found = load_annotations(tmp_path)
    assert [(query.video_id, query.text) for query in found.queries] == [("a/6", "Good.")]
    told = "\n".join(found.problems)
    for part in ("a.tar: ", "a.tar/1.txt", "a.tar/2.json", "a.tar/3.json", "a.tar/4.txt", "a.tar/5.json", "b.tar: "):
        assert told.count(part) == 1, (part, told)


def test_folders_without_captions(tmp_path: pathlib.Path) -> None:
    with pytest.raises(GridClipError, match=r"it is a folder without tars, expected an annotation file"):
        load_annotations(tmp_path)
    write_tar(tmp_path / "a.tar", {"1.mp4": b"video"})
    with pytest.raises(GridClipError, match="holds no usable caption"):
        load_annotations(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(GridClipError, match=r"a\.tar is no tar"):
        load_annotations(tmp_path)
