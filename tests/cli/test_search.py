"""gridclip search: every option, on small generated videos and the demo's tiny CLIP."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import tarfile

import av
import gridclip
import numpy as np
import pytest
from click.testing import CliRunner, Result
from gridclip.cli import main
from gridclip.engine.moments.best import Moment
from gridclip.engine.search import text as search_text
from gridclip.engine.search.files import Files
from gridclip.engine.search.search import Hit
from PIL import Image


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_videos: pathlib.Path, tiny_model_dir: pathlib.Path) -> str:
    path = tmp_path_factory.mktemp("search") / "store"
    model = gridclip.load_model(tiny_model_dir)
    size = model.info.image_size
    sampling = gridclip.Sampling(fps=1, grid_size=2, super_img_size=size)
    gridclip.embed_videos(model, small_videos, path, sampling=sampling, num_workers=1)
    return str(path)


@pytest.fixture
def search(store: str, tiny_model_dir: pathlib.Path):  # type: ignore[no-untyped-def]
    def run(*arguments: object, status: int = 0, stdin: str | None = None) -> Result:
        words = ["search", "--store", store, "--model", str(tiny_model_dir), *map(str, arguments)]
        result = CliRunner().invoke(main, words, input=stdin)
        assert result.exit_code == status, result.output
        return result

    return run


def test_json_is_what_the_library_finds(search, store: str, tiny_model_dir: pathlib.Path) -> None:
    told = json.loads(search("a circle", "--json", "--moments", 2, "--top", 3).stdout)
    hits = gridclip.search(tiny_model_dir, "a circle", store, moments=2, top=3)
    assert told["sentences"] == ["a circle"] and told["index"] == "exact" and len(told["results"]) == 3
    for result, hit in zip(told["results"], hits, strict=True):
        assert result["video_id"] == hit.video_id and result["score"] == pytest.approx(hit.score)
        assert [moment["start_s"] for moment in result["moments"]] == [moment.start_s for moment in hit.moments]
    assert max(len(result["moments"]) for result in told["results"]) == 2


def test_one_thing_after_the_other_and_not_a_third(search) -> None:
    told = json.loads(search("a circle", "--then", "a star", "--not", "a square", "--json").stdout)
    assert told["sentences"] == ["a circle", "a star"] and told["unwanted"] == ["a square"]
    longest = next(result for result in told["results"] if result["video_id"] == "c")
    first, second = longest["moments"]
    assert first["start_s"] < second["start_s"]
    alone = json.loads(search("a circle", "--then", "a star", "--json").stdout)
    scores = {result["video_id"]: result["score"] for result in alone["results"]}
    assert all(result["score"] <= scores[result["video_id"]] + 1e-6 for result in told["results"])


def test_a_frame_finds_its_own_video(search, small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with av.open(str(small_videos / "c.mkv")) as container:
        frame = next(container.decode(video=0)).to_image()
    frame.save(tmp_path / "frame.png")
    told = json.loads(search("--image", tmp_path / "frame.png", "--json", "--aggregate", "max").stdout)
    assert told["results"][0]["video_id"] == "c" and told["image"] == str(tmp_path / "frame.png")


def test_a_picture_is_laid_out_as_the_embeddings_that_are_searched(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    model = gridclip.load_model(tiny_model_dir)
    sampling = gridclip.Sampling(fps=1, grid_size=(1, 2), super_img_size=model.info.image_size)
    gridclip.embed_videos(model, small_videos, tmp_path / "store", sampling=sampling, num_workers=1)
    with av.open(str(small_videos / "c.mkv")) as container:
        next(container.decode(video=0)).to_image().save(tmp_path / "frame.png")
    for grid_size in (None, 1, 2):
        hits = gridclip.search(
            model, [], tmp_path / "store", image=tmp_path / "frame.png", aggregate="max", grid_size=grid_size
        )
        assert hits[0].video_id == "c"


def test_pictures_that_cannot_be_read_are_told(search, tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((1, 1), np.uint8)).resize((9_000, 9_300)).save(tmp_path / "large.png")
    assert "cannot be read as a picture" in search("--image", tmp_path / "text.png", status=1).output
    assert "9,000 x 9,300 pixels" in search("--image", tmp_path / "large.png", status=1).output
    assert "cannot be read as a picture" in search("--image", tmp_path / "missing.png", status=1).output


def test_every_line_of_standard_input_is_a_sentence(search) -> None:
    lines = search("-", "--json", "--top", 1, stdin="a circle\n\n  \na star\n").stdout.splitlines()
    assert [json.loads(line)["sentences"] for line in lines] == [["a circle"], ["a star"]]
    printed = search("-", "--top", 2, stdin="a circle\na star\n").stdout.splitlines()
    assert printed[0] == "a circle" and printed[3] == "a star" and len(printed) == 6
    assert search("-", stdin="\n").stdout == ""


def test_wrong_usage(search, tmp_path: pathlib.Path) -> None:
    assert "give a sentence or a picture (--image)" in search(status=2).output
    assert "the sentence is empty" in search("a circle", "--then", " ", status=2).output
    assert "--clip-dir needs --video-dir" in search("a circle", "--clip-dir", tmp_path, status=2).output
    assert "'moments'" in search("a circle", "--moments", 0, status=2).output.replace("--moments", "'moments'")


def test_clips_are_written_beside_what_is_printed(search, small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    options = ["--video-dir", small_videos, "--clip-dir", tmp_path / "clips", "--moments", 2, "--json"]
    told = json.loads(search("a circle", *options).stdout)
    moments = [(result["video_id"], moment) for result in told["results"] for moment in result["moments"]]
    assert len(moments) > 4
    for video_id, moment in moments:
        clip = pathlib.Path(moment["clip"])
        assert clip == tmp_path / "clips" / f"{video_id}_{moment['start_s']:.1f}-{moment['end_s']:.1f}s.mp4"
        with av.open(str(clip)) as container:
            assert container.streams.video[0].width == 64 and next(container.decode(video=0)) is not None
    assert len(list((tmp_path / "clips").iterdir())) == len(moments)


def test_a_video_whose_file_is_gone_is_told_and_the_others_get_clips(
    search, small_videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "c.mkv").symlink_to(small_videos / "c.mkv")
    done = search("a circle", "--video-dir", tmp_path / "videos", "--clip-dir", tmp_path / "clips")
    assert "no file for this video" in done.stderr and len(done.stdout.splitlines()) == 4
    assert [clip.name[:2] for clip in (tmp_path / "clips").iterdir()] == ["c_"]


def test_clips_of_videos_in_a_tar(search, small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "00.tar", "w") as tar:
        tar.add(small_videos / "c.mkv", "c.mkv")
    search("a circle", "--video-dir", tmp_path / "00.tar", "--clip-dir", tmp_path / "clips")
    (clip,) = (tmp_path / "clips").iterdir()
    with av.open(str(clip)) as container:
        assert container.streams.video[0].width == 64 and next(container.decode(video=0)) is not None


def test_lines_for_a_terminal_are_links(tmp_path: pathlib.Path) -> None:
    moments = [Moment(0.0, 8.0, 0.5), Moment(16.0, 20.04, 0.25)]
    hits = [Hit("a b", 0.75, 0.0, 8.0, moments), Hit("evil\x1b]8;;", -0.1, None, None, [])]
    files = Files({"a b": tmp_path / "a b.mp4"}, {("a b", moments[1]): tmp_path / "clip.mp4"})
    plain = search_text.as_lines(hits, search_text.PLAIN, files)
    assert plain == [
        "   1  a b           0.7500  0.0 to 8.0 s",
        "                    0.2500  16.0 to 20.0 s",
        r"   2  evil\x1b]8;;  -0.1000  time unknown",
    ]
    shown = search_text.as_lines(hits, search_text.TERMINAL, files)
    assert f"\x1b]8;;{(tmp_path / 'a b.mp4').as_uri()}\x1b\\\x1b[1ma b\x1b[0m\x1b]8;;\x1b\\" in shown[0]
    assert f"\x1b]8;;{(tmp_path / 'clip.mp4').as_uri()}\x1b\\16.0 to 20.0 s" in shown[1]
    assert "a%20b.mp4" in shown[0] and r"evil\x1b]8;;" in shown[2]


def test_it_prints_no_escapes_where_there_is_no_terminal(search, small_videos: pathlib.Path) -> None:
    assert "\x1b" not in search("a circle", "--video-dir", small_videos).stdout


def test_the_shell_needs_no_torch(store: str, tiny_model_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    words = ["search", "--store", store, "--model", str(tiny_model_dir), "a circle", "--num-gpus", "0"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output


def test_an_index_is_made_and_demanded(
    store: str,
    search,  # type: ignore[no-untyped-def]
    tmp_path: pathlib.Path,
    tiny_model_dir: pathlib.Path,
) -> None:
    told = search("a circle", "--index", "ann", status=1).output
    assert "has no index of cells at grid size 2 for softmax" in told and "or leave out --index ann" in told
    words = ["serve", "--store", store, "--model", str(tiny_model_dir), "--port", "0", "--index", "ann"]
    served = CliRunner().invoke(main, words)
    assert served.exit_code == 1 and "or leave out --index ann" in served.output
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    words = ["--store", str(copy)]
    first, second = (CliRunner().invoke(main, ["index", *words, *more]) for more in ([], ["--json"]))
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    videos = gridclip.Store.open(copy).finished_videos()
    assert f"{len(videos)} videos ({len(videos)} new)" in first.output
    done = json.loads(second.stdout)
    assert (done["videos"], done["new_videos"], done["new_rows"]) == (len(videos), 0, 0)
    found = json.loads(search("a circle", *words, "--index", "ann", "--json").stdout)
    exact = json.loads(search("a circle", *words, "--index", "exact", "--json").stdout)
    assert (found.pop("index"), exact.pop("index")) == ("ann", "exact") and found == exact
    told = search("a circle", "--then", "a star", *words, "--index", "ann", status=2).output
    assert "--index ann: there is no index for several sentences in order" in told
