"""engine/listing.py: which videos a job has, and which it cannot have."""

import json
import os
import pathlib

import pytest
from gridclip import GridClipError
from gridclip.engine.listing.listing import list_image_folders, list_videos


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_are_found_by_suffix_in_nested_folders_and_links(tmp_path):
    videos = tmp_path / "videos"
    touch(videos, "b.MP4", "sub/a.mkv", "sub/deep/v.2.webm", "notes.txt", ".hidden.mp4", ".git/x.mp4", "no_suffix")
    touch(tmp_path / "elsewhere", "linked.avi")
    (videos / "link").symlink_to(tmp_path / "elsewhere")
    (videos / "loop").symlink_to(videos)
    listing = list_videos(videos)
    assert [video.video_id for video in listing.videos] == ["b", "link/linked", "sub/a", "sub/deep/v.2"]
    assert listing.videos[2].path == videos / "sub" / "a.mkv" and not listing.failures


def test_files_of_one_name_are_different_videos(tmp_path):
    names = ["2024-01/clip.mp4", "2024-02/clip.mp4", "2024-02/clip.avi", "clip.MP4", "a.mp4", "a/b.mp4"]
    touch(tmp_path, *names)
    listing = list_videos(tmp_path)
    assert {video.video_id: str(video.path.relative_to(tmp_path)) for video in listing.videos} == {
        "2024-01/clip": "2024-01/clip.mp4",
        "2024-02/clip.mp4": "2024-02/clip.mp4",
        "2024-02/clip.avi": "2024-02/clip.avi",
        "clip": "clip.MP4",
        "a": "a.mp4",
        "a/b": "a/b.mp4",
    }
    assert [video.video_id for video in listing.videos] == sorted(video.video_id for video in listing.videos)
    assert not listing.failures and not listing.notices


def test_the_annotations_ids_decide(tmp_path):
    touch(tmp_path, "c.mp4", "x/c.mp4", "x/d.mkv", "x/y/e.webm", "f.mkv")
    names = ["c", "x/c", "d", "y/e", "f.mp4", "y", "mp4", ".webm"]
    listing = list_videos(tmp_path, names)
    assert {video.video_id: str(video.path.relative_to(tmp_path)) for video in listing.videos} == {
        "c": "c.mp4",
        "x/c": "x/c.mp4",
        "d": "x/d.mkv",
        "y/e": "x/y/e.webm",
        "f.mp4": "f.mkv",
    }
    assert [failure.video_id for failure in listing.failures] == [".webm", "mp4", "y"] and not listing.notices


def test_only_files_that_differ_make_an_annotated_id_ambiguous(tmp_path):
    touch(tmp_path, "x/other.mp4", "y/other.mp4", "x/copy.mp4", "y/copy.mp4", "x/linked.mp4", "two.mp4", "two.mkv")
    (tmp_path / "x/other.mp4").write_bytes(b"one")
    (tmp_path / "y/other.mp4").write_bytes(b"two")
    (tmp_path / "y/linked.mp4").symlink_to(tmp_path / "x/linked.mp4")
    listing = list_videos(tmp_path, ["other", "copy", "linked", "two"])
    assert {video.video_id: str(video.path.relative_to(tmp_path)) for video in listing.videos} == {
        "copy": "x/copy.mp4",
        "linked": "x/linked.mp4",
        "two": "two.mkv",
    }
    assert [(notice.video_id, notice.kind) for notice in listing.notices] == [
        ("copy", "duplicate"),
        ("linked", "duplicate"),
        ("two", "duplicate"),
    ]
    assert f"{tmp_path}/two.mkv is used, not {tmp_path}/two.mp4" in listing.notices[2].detail
    [failure] = listing.failures
    assert (failure.video_id, failure.stage) == ("other", "list")
    assert f"{tmp_path}/x/other.mp4, {tmp_path}/y/other.mp4" in failure.reason
    shards = [listing.shard(2, shard_id) for shard_id in (0, 1)]
    assert sorted(notice.video_id for shard in shards for notice in shard.notices) == ["copy", "linked", "two"]


def test_a_name_that_is_not_unicode_costs_its_video_only(tmp_path):
    touch(tmp_path, "good.mp4")
    for name in (b"bad\xff.mp4", b"caf\xe9/inside.mp4"):
        path = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    listing = list_videos(tmp_path)
    assert [video.video_id for video in listing.videos] == ["good"]
    assert [failure.video_id for failure in listing.failures] == [r"bad\xff", r"caf\xe9/inside"]
    assert all("rename" in failure.reason for failure in listing.failures)
    json.dumps([failure.reason for failure in listing.failures]).encode()
    assert sum(len(listing.shard(2, shard_id).failures) for shard_id in (0, 1)) == 2
    annotated = list_videos(tmp_path, ["good", "inside", "bad\udcff", "\ud800", "nul\0"])
    assert [video.video_id for video in annotated.videos] == ["good", "inside"]
    assert [failure.video_id for failure in annotated.failures] == [r"\ud800", r"bad\xff", "nul\0"]
    assert "Unicode" in annotated.failures[0].reason and "NUL" in annotated.failures[2].reason
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(GridClipError, match=r"none of the 2 videos .* can be used; bad\\xff: .*rename"):
        list_videos(tmp_path)


def test_annotated_videos_only_and_those_without_a_file(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    listing = list_videos(tmp_path, ["z", "b", "b", "a"])
    assert [video.video_id for video in listing.videos] == ["a", "b"]
    assert [(failure.video_id, failure.stage) for failure in listing.failures] == [("z", "list")]
    with pytest.raises(GridClipError, match=r"none of the 1 annotated videos \(first: q\).*3 videos \(first: a\)"):
        list_videos(tmp_path, ["q"])


def test_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(GridClipError, match=r"`video_dir` .*none does not exist"):
        list_videos(tmp_path / "none")
    touch(tmp_path, "file.mp4")
    with pytest.raises(GridClipError, match="is a file, expected a folder"):
        list_videos(tmp_path / "file.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GridClipError, match=r"no video in .*\.mkv"):
        list_videos(tmp_path / "empty")
    with pytest.raises(GridClipError, match=r"no folder in .*img_0001\.jpg"):
        list_image_folders(tmp_path / "empty")


def test_unreadable_folders(tmp_path, monkeypatch):
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_videos(tmp_path)
    assert [video.video_id for video in listing.videos] == ["a"]
    assert [(failure.video_id, failure.stage) for failure in listing.failures] == [("locked", "list")]
    with pytest.raises(GridClipError, match="cannot be read: Permission denied"):
        list_videos(tmp_path / "locked")


def test_shards_share_all_videos_once(tmp_path):
    touch(tmp_path, *(f"v{number}.mp4" for number in range(40)))
    listing = list_videos(tmp_path, [f"v{number}" for number in range(50)])
    shards = [listing.shard(3, shard_id) for shard_id in range(3)]
    assert sorted(video.video_id for shard in shards for video in shard.videos) == [v.video_id for v in listing.videos]
    assert sum(len(shard.failures) for shard in shards) == 10
    assert min(len(shard.videos) for shard in shards) > 5
    fewer = list_videos(tmp_path, [f"v{number}" for number in range(0, 40, 2)]).shard(3, 1)
    assert {v.video_id for v in fewer.videos} < {v.video_id for v in shards[1].videos}  # a video stays in its shard
    with pytest.raises(ValueError, match=r"shard_id \(3\) must be in \[0, 2\]"):
        listing.shard(3, 3)


def test_image_folders(tmp_path):
    touch(tmp_path, "v2/img_0001.jpg", "v1/img_0001.jpg", ".v3.part/img_0001.jpg", "failures.jsonl")
    assert [folder.video_id for folder in list_image_folders(tmp_path).videos] == ["v1", "v2"]


def test_image_folders_in_folders(tmp_path):
    touch(
        tmp_path,
        "2024/v1/IMG_1.JPEG",
        "2024/v1/thumbs/small.png",
        "2024/.v2.part/img_0001.jpg",
        "v/img_0001.jpg",
        "v/w/img_0001.jpg",
        "cut/super_images.json",
        "store/a/b/c",
        "store/store.json",
    )
    (tmp_path / "2024/empty").mkdir()
    bad = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    touch(bad, "img_0001.jpg")
    listing = list_image_folders(tmp_path)
    assert [(folder.video_id, folder.path) for folder in listing.videos] == [
        (name, tmp_path / name) for name in ("2024/empty", "2024/v1", "cut", "store", "v", "v/w")
    ]
    assert [(failure.video_id, failure.stage) for failure in listing.failures] == [(r"bad\xff", "list")]
