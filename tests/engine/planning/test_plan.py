"""engine/plan.py: sizes of jobs, from files and from a video-info file."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.planning import plan


def write_info(path: pathlib.Path, rows: list[tuple[str, int, float]]) -> pathlib.Path:
    """rows: video, frames, frames per second."""
    entries = [
        {"video_name": f"{video}.mp4", "video_frames": frames, "video_fps": fps, "video_duration": frames / (fps or 1)}
        for video, frames, fps in rows
    ]
    path.write_text(json.dumps(entries))
    return path


def write_annotations(path: pathlib.Path, captions: dict[str, list[str]]) -> pathlib.Path:
    path.write_text(
        json.dumps(
            {
                video: {"duration": 1, "timestamps": [[0, 1]] * len(texts), "sentences": texts}
                for video, texts in captions.items()
            }
        )
    )
    return path


def test_video_info(tmp_path: pathlib.Path) -> None:
    # 100 s at 25 fps: 50 wanted frames, 13 super images; 7 s: 3 and 1; 1 s: the first frame.
    info = write_info(tmp_path / "info.json", [("a", 2500, 25.0), ("b", 70, 10.0), ("c", 30, 30.0), ("empty", 0, 0)])
    found = plan.plan_video_info(info, Sampling())
    assert (found.videos, found.frames, found.super_images) == (3, 54, 15)
    assert found.duration_s == pytest.approx(108)
    assert found.longest_s == pytest.approx(100)
    assert found.queries is None
    assert [(each.video_id, each.stage) for each in found.failures] == [("empty", "sample")]


def test_a_short_video_counts_as_failed_without_min_frames(tmp_path: pathlib.Path) -> None:
    info = write_info(tmp_path / "info.json", [("a", 2500, 25.0), ("c", 30, 30.0)])
    found = plan.plan_video_info(info, Sampling(min_frames=0))
    assert found.videos == 1
    assert [each.video_id for each in found.failures] == ["c"]
    assert "period" in found.failures[0].reason


def test_frames_and_time_stamps_that_disagree(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "info.json"
    rows = [("even", 2500, 25.0, 100.0), ("slow", 92, 30.0, 38.8), ("none", 0, 30.0, 5.0), ("damaged", 92, 30.0, 1e9)]
    path.write_text(
        json.dumps(
            [
                {"video_name": name, "video_frames": frames, "video_fps": fps, "video_duration": duration_s}
                for name, frames, fps, duration_s in rows
            ]
        )
    )
    by_count = plan.plan_video_info(path, Sampling())
    assert (by_count.videos, by_count.frames, by_count.super_images) == (3, 52, 15)
    assert by_count.rate_differs == ("damaged", "slow")
    assert re.search(r"^variable rate +2 .*`mode='time'`", plan.as_text(by_count), re.MULTILINE)
    by_time = plan.plan_video_info(path, Sampling(mode="time"))
    assert (by_time.videos, by_time.frames, by_time.super_images) == (2, 70, 18)
    assert [(each.video_id, each.stage) for each in by_time.failures] == [("damaged", "sample"), ("none", "sample")]


def test_a_file_of_variable_rate(shared_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("echo.webm", "rabbit320.mp4"):
        (tmp_path / name).symlink_to(shared_data / "videos" / name)
    found = plan.plan_folder(tmp_path, Sampling(mode="time"))
    assert found.rate_differs == ("echo",)
    assert found.frames == 23 + 4  # 44.6 and 7.8 s


def test_annotations_choose_the_videos(tmp_path: pathlib.Path) -> None:
    info = write_info(tmp_path / "info.json", [("a", 2500, 25.0), ("b", 70, 10.0), ("c", 30, 30.0)])
    annotations = write_annotations(tmp_path / "a.json", {"a": ["one", "two"], "c": ["three", " "], "gone": ["four"]})
    found = plan.plan_video_info(info, Sampling(), anno_file=annotations, exclude={"c", "never heard of"})
    assert (found.videos, found.super_images, found.queries) == (1, 13, 2)
    assert (found.dropped_queries, found.unusable_captions, found.excluded) == (2, 1, 1)
    assert [each.video_id for each in found.failures] == ["gone"]


@pytest.mark.parametrize("by_grid", [{2: 74_021}, {1: 288_795, 2: 74_021, 3: 34_284, 4: 20_324, 5: 13_966}])
def test_activitynet(shared_data: pathlib.Path, tmp_path: pathlib.Path, by_grid: dict[int, int]) -> None:
    procedure = next(shared_data.parent.glob("procedure_*.txt")).read_text()
    unreadable = tmp_path / "unreadable.txt"
    unreadable.write_text("\n".join(re.findall(r"^ +(v_\S+)$", procedure, re.MULTILINE)))
    excluded = plan.read_exclusions([str(unreadable)])
    assert len(excluded) == 16
    found = plan.plan_video_info(
        shared_data / "annotations" / "activitynet_val_1_video_info.json",
        Sampling(grid_size=tuple(by_grid)),
        anno_file=shared_data / "annotations" / "activitynet_val_1.json",
        exclude=excluded,
    )
    assert (found.videos, found.super_images, found.queries) == (4_901, sum(by_grid.values()), 17_443)
    assert found.super_images_by_grid == by_grid
    assert ("at grid size 3  34,284" in plan.as_text(found)) == (len(by_grid) > 1)
    assert not found.failures


def test_folder(small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(small_videos, folder)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video")
    (folder / "more").mkdir()
    shutil.copy(folder / "a.mp4", folder / "more" / "a.mp4")
    found = plan.plan_folder(folder, Sampling(), num_workers=2)
    assert (found.videos, found.frames, found.super_images) == (5, 19, 6)
    assert found.duration_s == pytest.approx(40, abs=0.5)
    assert [(each.video_id, each.stage) for each in found.failures] == [("empty", "open"), ("text", "open")]


def test_a_second_file_of_a_video_is_a_notice(small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "videos"
    for name in ("x", "y"):
        (folder / name).mkdir(parents=True)
        shutil.copy(small_videos / "a.mp4", folder / name)
    found = plan.plan_folder(folder, Sampling(), anno_file=write_annotations(tmp_path / "a.json", {"a": ["one"]}))
    assert (found.videos, found.queries, found.failures) == (1, 1, ())
    assert [(notice.video_id, notice.kind) for notice in found.notices] == [("a", "duplicate")]
    text = plan.as_text(found)
    assert "several files     1" in text and "x/a.mp4 is used, not" in text
    assert plan.plan_folder(folder, Sampling(), exclude={"x/a"}).videos == 1


def test_video_info_gives_the_ids_of_a_folder(tmp_path: pathlib.Path) -> None:
    info = write_info(
        tmp_path / "info.json", [("2024/a", 2500, 25.0), ("b", 70, 10.0), ("y/b", 80, 10.0), ("bad\ud800", 30, 30.0)]
    )
    info.write_text(info.read_text().replace("y/b.mp4", "b.avi"))
    found = plan.plan_video_info(info, Sampling())
    assert (found.videos, [each.video_id for each in found.failures]) == (3, [r"bad\ud800"])
    annotations = write_annotations(tmp_path / "a.json", {"a": ["one"], "b": ["two"], "b.avi": ["three"]})
    found = plan.plan_video_info(info, Sampling(), anno_file=annotations)
    assert (found.videos, found.queries, found.super_images) == (2, 2, 14)
    assert [(each.video_id, each.reason) for each in found.failures] == [
        ("b", "several entries of info.json fit this id: b.avi, b.mp4")
    ]
    assert plan.plan_video_info(info, Sampling(), exclude={"2024/a", r"bad\ud800"}).failures == ()


def test_folder_with_annotations(small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    annotations = write_annotations(tmp_path / "a.json", {"a": ["one"], "c": ["two", "three"], "gone": ["four"]})
    found = plan.plan_folder(small_videos, Sampling(), anno_file=annotations, exclude={"c"})
    assert (found.videos, found.queries, found.dropped_queries, found.excluded) == (1, 1, 3, 1)
    assert [(each.video_id, each.stage) for each in found.failures] == [("gone", "list")]


def test_exclusions_are_ids_and_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ids").write_text("# unreadable\n v_1 \n\nv_2 # audio only\n")
    assert plan.read_exclusions([str(tmp_path / "ids"), "v_3", "2024/v_4"]) == {"v_1", "v_2", "v_3", "2024/v_4"}
    (tmp_path / "ids").write_bytes(b"\xef\xbb\xbfv_1\nbad\xff\n")
    assert plan.read_exclusions([str(tmp_path / "ids")]) == {"v_1", r"bad\xff"}


@pytest.mark.parametrize("value", ["missing.txt", "./ids", "../folder/ids", "/folder/ids"])
def test_a_missing_exclusion_file_is_no_id(value: str) -> None:
    with pytest.raises(GridClipError, match="does not exist"):
        plan.read_exclusions([value])


def test_exclusion_file_with_more_than_ids(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ids.txt").write_text("v_1\nv_2 v_3\n")
    with pytest.raises(GridClipError, match="line 2"):
        plan.read_exclusions([str(tmp_path / "ids.txt")])
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GridClipError, match="not a text file"):
        plan.read_exclusions([str(tmp_path / "ids.txt")])


def test_text_names_every_number(tmp_path: pathlib.Path) -> None:
    rows = [("a", 2500, 25.0)] + [(f"empty{number}", 0, 0.0) for number in range(12)]
    annotations = write_annotations(tmp_path / "a.json", {"a": ["one", ""], **{row[0]: ["x"] for row in rows[1:]}})
    found = plan.plan_video_info(write_info(tmp_path / "info.json", rows), Sampling(), anno_file=annotations)
    text = plan.as_text(found)
    assert re.search(r"^videos +1$", text, re.MULTILINE)
    assert re.search(r"^super images +13 \(13.000 per video\)$", text, re.MULTILINE)
    assert re.search(r"^queries +1 \(12 ", text, re.MULTILINE)
    assert "and 2 more" in text
    json.dumps(found.to_json())
