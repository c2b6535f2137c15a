"""engine/jobs/dry_run.py: what it says a job would do is what the job then does, and it writes nothing."""

import pathlib

import coloured_videos
import fake_model
import gridclip
import pytest
from click.testing import CliRunner
from gridclip import GridClipError, Sampling
from gridclip.cli import main
from gridclip.engine.jobs import dry_run

SAMPLING = Sampling(super_img_size=64)


@pytest.fixture
def videos(tmp_path) -> pathlib.Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, colour in enumerate(list(coloured_videos.COLOURS)[:3]):
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=8 * number + 4)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def tree(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_it_says_what_the_job_then_does_and_writes_nothing(videos, tmp_path):
    model = gridclip.load_model(fake_model.write(tmp_path / "model"), num_gpus=0)
    store, out = tmp_path / "s", tmp_path / "out"
    before = tree(tmp_path)
    said = dry_run.of_embed_videos(videos, store, SAMPLING)
    assert said == dry_run.of_superimages(videos, out, SAMPLING)
    assert tree(tmp_path) == before
    did = gridclip.embed_videos(model, videos, store, sampling=SAMPLING, num_workers=1)
    assert (said.todo, said.super_images, said.failures) == (did.done, did.super_images, did.failures)
    assert (said.videos, said.finished, said.failed_before) == (4, 0, 0)

    coloured_videos.write(videos / "new.mp4", "red", duration_s=4)
    coloured_videos.write(videos / "broken.mp4", "red", duration_s=4)
    said = dry_run.of_embed_videos(videos, store, SAMPLING)
    assert (said.videos, said.finished, said.failed_before, said.todo, said.super_images) == (5, 3, 1, 2, 2)
    said = dry_run.of_embed_videos(videos, store, SAMPLING, retry_failed="open")
    assert (said.videos, said.todo) == (1, 1)
    assert dry_run.of_embed_videos(videos, store, SAMPLING, overwrite=True).todo == 5
    shards = [dry_run.of_embed_videos(videos, store, SAMPLING, num_shards=3, shard_id=shard) for shard in range(3)]
    assert sum(shard.todo for shard in shards) == 2

    gridclip.superimages(videos, out, sampling=SAMPLING, num_workers=1)
    assert dry_run.of_superimages(videos, out, SAMPLING).todo == 0
    (out / "hole").mkdir()
    said = dry_run.of_embed_images(out, tmp_path / "t")
    did = gridclip.embed_images(model, out, tmp_path / "t", num_workers=1)
    assert (said.todo, said.super_images, said.failures) == (did.done, did.super_images, did.failures)


def test_a_folder_that_is_no_store_is_refused(videos):
    with pytest.raises(GridClipError, match="is not a store"):
        dry_run.of_embed_videos(videos, videos, SAMPLING)


def test_the_commands_have_it(videos, tmp_path):
    for command in (
        ["embed-videos", "--model", "nowhere", "--video-dir", videos, "--store", tmp_path / "s"],
        ["superimages", "--video-dir", videos, "--save-dir", tmp_path / "out"],
    ):
        result = CliRunner().invoke(main, [*map(str, command), "--dry-run"])
        assert result.exit_code == 0, result.output
        assert "would do 3 of 4 videos, 6 super images" in result.output
    assert not (tmp_path / "s").exists() and not (tmp_path / "out").exists()
