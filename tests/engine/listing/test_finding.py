"""engine/finding.py: videos of lists of paths and in tars, beside those of folders (test_listing.py)."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import tarfile

import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.opening import opened
from gridclip.dali_pipes.places import RemoteFile, TarMember
from gridclip.engine.listing.finding import where
from gridclip.engine.listing.listing import Listing, list_videos


def touch(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_tar(path: pathlib.Path, *members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def contents(listing: Listing) -> dict[str, bytes]:
    """What each video's place gives, by id."""
    found = {}
    for video in listing.videos:
        with opened(video.place) as file:
            found[video.video_id] = pathlib.Path(file).read_bytes() if isinstance(file, str) else file.read()
    return found


def reasons(listing: Listing) -> dict[str, str]:
    assert {failure.stage for failure in listing.failures} <= {"list"}
    return {failure.video_id: failure.reason for failure in listing.failures}


def test_a_list_names_files_beside_it_and_elsewhere(tmp_path: pathlib.Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    touch(here, "a.mp4", "sub/b.mkv", "sub/b.avi", "no_suffix", "with # sign.mp4")
    touch(there, "c.webm")
    (here / "folder").mkdir()
    lines = [
        "# comment",
        "",
        "a.mp4",
        "  ./sub/../sub/b.mkv\r",
        str(here / "sub/b.avi"),
        "no_suffix",
        "with # sign.mp4",
        "a.mp4",
        str(there / "c.webm"),
        "../there/c.webm",
        "gone.mp4",
        "folder",
    ]
    (here / "list.txt").write_text("\ufeff" + "\n".join(lines) + "\n")
    listing = list_videos(here / "list.txt")
    elsewhere = str(there / "c").lstrip("/")
    assert {video.video_id: video.path for video in listing.videos} == {
        "a": here / "a.mp4",
        "sub/b.mkv": here / "sub/b.mkv",
        "sub/b.avi": here / "sub/b.avi",
        "no_suffix": here / "no_suffix",
        "with # sign": here / "with # sign.mp4",
        elsewhere: there / "c.webm",
    }
    assert reasons(listing) == {
        "gone": f"{here}/gone.mp4: No such file or directory (line 11 of {here}/list.txt)",
        "folder": f"{here}/folder: it is a folder, expected a video (line 12 of {here}/list.txt)",
    }


def test_a_list_and_its_folder_give_the_same_ids(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/a.mkv", "b.mp4", "y/a.mp4")
    (tmp_path / "list").write_text("x/a.mp4\nx/a.mkv\nb.mp4\ny/a.mp4")
    assert list_videos(tmp_path / "list").videos == list_videos(tmp_path).videos


def test_the_annotations_ids_decide_in_a_list_too(tmp_path: pathlib.Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/b.mp4")
    (tmp_path / "list.txt").write_text("x/a.mp4\nx/b.mp4\nx/gone.mp4\nx/other.mp4\n")
    listing = list_videos(tmp_path / "list.txt", ["a", "gone", "unlisted"])
    assert [video.video_id for video in listing.videos] == ["a"]
    found = reasons(listing)
    assert found.keys() == {"gone", "unlisted"}
    assert "gone.mp4: No such file or directory (line 3" in found["gone"] and "no file for this" in found["unlisted"]


def test_names_that_are_not_unicode(tmp_path: pathlib.Path) -> None:
    (pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))).touch()
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_bytes(b"a.mp4\ncaf\xe9.mp4\n")
    listing = list_videos(tmp_path / "list.txt")
    assert [video.video_id for video in listing.videos] == ["a"]
    assert reasons(listing).keys() == {r"caf\xe9"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "no video in .*list: expected the path of one in every line"),
        (b"gone.mp4", "no video in .*; gone: .*No such file"),
        (b"\0\1\2", "not a text file: expected a folder, a tar, or a list of paths"),
        (b"nonsense://x/y.mp4", r"nonsense:// is unknown .*expected s3, gs, hf, http or https"),
    ],
)
def test_lists_of_nothing(tmp_path: pathlib.Path, text: bytes, told: str) -> None:
    (tmp_path / "list").write_bytes(text)
    with pytest.raises(GridClipError, match=told):
        list_videos(tmp_path / "list")


def test_urls_stay_what_they_are() -> None:
    assert where("s3://bucket/a//b") == "s3://bucket/a//b"
    assert where("C:/videos") == pathlib.Path("C:/videos")
    signed = RemoteFile("https://me:secret@host/a/b.mp4?key=secret")
    assert (str(signed), signed.name) == ("https://host/a/b.mp4", "b.mp4")


def test_a_folder_of_tars_is_read_in_place(tmp_path: pathlib.Path) -> None:
    data = {name: hashlib.sha256(name.encode()).digest() * 4000 for name in ("a", "b", "c")}
    long = "very/" + "long" * 60 + ".mp4"
    write_tar(tmp_path / "00000.tar", ("000.mp4", data["a"]), ("000.json", b"{}"), ("000.txt", b"text"))
    write_tar(tmp_path / "sub/00001.tar", ("./d/000.MKV", data["b"]), (long, data["c"]), ("._000.mp4", b"mac"))
    listing = list_videos(tmp_path)
    expected = {"00000/000": data["a"], "sub/00001/d/000": data["b"], f"sub/00001/{long[:-4]}": data["c"]}
    assert contents(listing) == expected and not listing.failures and not listing.notices
    assert list_videos(tmp_path / "00000.tar").videos == listing.videos[:1]
    (tmp_path / "list.txt").write_text("sub/00001.tar\n00000.tar")
    assert list_videos(tmp_path / "list.txt").videos == listing.videos
    by_key = list_videos(tmp_path, ["d/000"])
    assert contents(by_key) == {"d/000": data["b"]}


def test_odd_members_of_a_tar(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, to
            tar.addfile(info, io.BytesIO(data))

        add("first.mp4", b"1" * 700)
        add("hard.mp4", kind=tarfile.LNKTYPE, to="./first.mp4")
        add("hanging.mp4", kind=tarfile.LNKTYPE, to="later.mp4")
        add("soft.mp4", kind=tarfile.SYMTYPE, to="/etc/passwd")
        add("pipe.mp4", kind=tarfile.FIFOTYPE)
        add("../up.mp4", b"up")
        add("/root.mp4", b"root")
        add("twice.mp4", b"old")
        add("folder.mp4", kind=tarfile.DIRTYPE)
        add("twice.mp4", b"new")
        add("empty.mp4")
    listing = list_videos(path)
    kept = Listing([video for video in listing.videos if video.video_id != "odd/empty"], [])
    assert contents(kept) == {"odd/first": b"1" * 700, "odd/hard": b"1" * 700, "odd/twice": b"new"}
    found = reasons(listing)
    assert found.keys() == {"odd/hanging", "odd/soft", "odd/pipe", "odd/../up", "odd/root"}
    assert "not before it" in found["odd/hanging"] and "a link" in found["odd/soft"]
    assert "leads out of a folder" in found["odd/../up"] and "leads out of a folder" in found["odd/root"]
    assert [(notice.video_id, notice.kind) for notice in listing.notices] == [("odd/twice", "duplicate")]
    with pytest.raises(GridClipError, match=r"odd.tar/.*no file of its own on this machine"):
        _ = listing.videos[0].path


def test_a_sparse_member_is_refused(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "holes.mp4").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    write_tar(tmp_path / "s.tar", ("good.mp4", b"good"))
    # An old GNU sparse header, written by hand: type S, one piece of 3 bytes at 1 MiB, the real size behind.
    header = bytearray(tarfile.TarInfo("holes.mp4").tobuf(tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"%011o\0" % 3
    header[156:157] = b"S"
    header[386:398], header[398:410] = b"%011o\0" % (1 << 20), b"%011o\0" % 3
    header[483:495] = b"%011o\0" % ((1 << 20) + 3)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:1024] + bytes(header) + b"end".ljust(512, b"\0") + b"\0" * 1024)
    listing = list_videos(tmp_path / "s.tar")
    assert contents(listing) == {"s/good": b"good"}
    assert "holes (sparse)" in reasons(listing)["s/holes"]


@pytest.mark.parametrize("kept", [512 + 100, 1024, 1024 + 512 + 100, 1024 + 200, 2048])
def test_a_tar_that_is_cut_off(tmp_path: pathlib.Path, kept: int) -> None:
    """Two members of 512 bytes each, with a header before each, cut at every kind of place."""
    whole = write_tar(tmp_path / "t.tar", ("a.mp4", b"a" * 512), ("b.mp4", b"b" * 512)).read_bytes()
    (tmp_path / "t.tar").write_bytes(whole[:kept])
    if kept < 1024:
        with pytest.raises(GridClipError, match="none of the 0 videos .*cut off"):
            list_videos(tmp_path / "t.tar")
        return
    listing = list_videos(tmp_path / "t.tar")
    expected = {"t/a": b"a" * 512} | ({"t/b": b"b" * 512} if kept == 2048 else {})
    assert contents(listing) == expected
    found = reasons(listing)
    assert "cut off" in found["t.tar"]
    assert ("t/b" in found) == (1536 <= kept < 2048)


def test_damaged_tars_end(tmp_path: pathlib.Path) -> None:
    """Every header byte changed once: whatever comes out, it comes soon, and lies inside the tar."""
    data = write_tar(tmp_path / "t.tar", ("a" * 120 + ".mp4", b"a" * 700), ("b.mp4", b"b" * 100)).read_bytes()
    path = tmp_path / "damaged.tar"
    for position in [*range(100, 160), *range(512, 640, 7), *range(1024 + 120, 1024 + 160)]:
        for value in (0, 0x80, 0xFF, ord("7")):
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                listing = list_videos(path)
            except GridClipError:
                continue
            for video in listing.videos:
                assert isinstance(video.place, TarMember)
                assert 0 <= video.place.offset <= video.place.offset + video.place.size <= len(data)


def test_what_is_no_tar(tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.mp4"))
    with pytest.raises(GridClipError, match=r"z.tar is no tar that can be read in place .*uncompressed"):
        list_videos(tmp_path / "z.tar")
    write_tar(tmp_path / "y.tar", ("a.mp4", b"a"))
    listing = list_videos(tmp_path)
    assert contents(listing) == {"y/a": b"a"} and "uncompressed" in reasons(listing)["z.tar"]


def test_tars_beside_videos_are_left_out(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tar(tmp_path / "backup.tar", ("a.mp4", b"a"))
    touch(tmp_path, "a.mp4")
    assert [video.path for video in list_videos(tmp_path).videos] == [tmp_path / "a.mp4"]
    assert "its 1 tars are left out" in caplog.text
