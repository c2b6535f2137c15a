"""engine/jobs/listing.py: which videos a job has, and which it cannot have."""

import os

import pytest
from gridclip import GridClipError
from gridclip.engine.jobs.listing import list_image_folders, list_videos


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
    assert [video.video_id for video in listing.videos] == ["a", "b", "linked", "v.2"]
    assert listing.videos[0].path == videos / "sub" / "a.mkv" and not listing.failures


def test_an_id_of_two_files_uses_the_first_and_names_both(tmp_path):
    touch(tmp_path, "x/a.mp4", "a.mkv", "b.mp4")
    listing = list_videos(tmp_path)
    assert [video.path for video in listing.videos] == [tmp_path / "a.mkv", tmp_path / "b.mp4"]
    [failure] = listing.failures
    assert failure.video_id == "a" and failure.stage == "list"
    assert str(tmp_path / "x/a.mp4") in failure.reason and str(tmp_path / "a.mkv") in failure.reason


def test_annotated_videos_only_and_those_without_a_file(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "x/c.mp4")
    listing = list_videos(tmp_path, ["z", "b", "b", "a"])
    assert [video.video_id for video in listing.videos] == ["a", "b"]
    assert [(failure.video_id, failure.stage) for failure in listing.failures] == [("z", "list")]
    with pytest.raises(GridClipError, match=r"none of the 1 annotated videos \(first: q\).*3 videos \(first: a\)"):
        list_videos(tmp_path, ["q"])


def test_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(GridClipError, match=r"--video-dir .*none does not exist"):
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
    assert [folder.video_id for folder in list_image_folders(tmp_path)] == ["v1", "v2"]
