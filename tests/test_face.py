"""gridclip itself, the library: light to import, documented, and its examples run as they stand."""

from __future__ import annotations

import doctest
import inspect
import json
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
from typing import Any

import gridclip
import pytest
from gridclip import ArgumentError, GridClipError, Sampling, Store

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
HEAVY = {"numpy", "torch", "av", "lance", "onnx", "onnxruntime", "click", "pyarrow", "rich", "tokenizers", "PIL"}
FUNCTIONS = [name for name in gridclip.__all__ if inspect.isfunction(getattr(gridclip, name))]
CAPTIONS = {"a": ["a red circle moves", "two squares"], "b": ["a green triangle"], "c": ["a star"]}


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory,
    small_videos: pathlib.Path,
    tiny_checkpoint: pathlib.Path,
    tiny_model_dir: pathlib.Path,
) -> pathlib.Path:
    """A folder with what the examples name: videos, super images, captions, a checkpoint and a store."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "videos").symlink_to(small_videos)
    shutil.copy(tiny_checkpoint, folder / "ViT-L-14.pt")
    shutil.copy(tiny_model_dir / "tokenizer.json", folder / "ViT-L-14.tokenizer.json")
    (folder / "captions.json").write_text(json.dumps({video: {"sentences": said} for video, said in CAPTIONS.items()}))
    model = gridclip.load_model(tiny_model_dir)
    gridclip.embed_videos(model, folder / "videos", folder / "store", num_workers=1)
    gridclip.embed_text(model, folder / "captions.json", folder / "store")
    gridclip.superimages(folder / "videos", folder / "super-images", num_workers=1)
    return folder


@pytest.fixture
def examples(prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(prepared)
    return prepared


def run_example(name: str, text: str) -> None:
    """Runs a docstring's or page's `>>>` lines in the working folder."""
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert example.examples, f"{name} has no example"
    told: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.append)
    assert not failed, "".join(told)


def loaded_after(program: str) -> set[str]:
    program += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_it_brings_in_nothing_heavy() -> None:
    assert not HEAVY & loaded_after("import gridclip; dir(gridclip); gridclip.__version__; gridclip.GridClipError")


def test_its_names() -> None:
    assert set(gridclip.__all__) >= set(
        "Sampling plan superimages load_model export_model embed_videos embed_images embed_text Store evaluate search "
        "GridClipError".split()
    )
    assert gridclip.__all__ == sorted(gridclip.__all__) and set(gridclip.__all__) <= set(dir(gridclip))
    assert all(getattr(gridclip, name).__doc__ for name in gridclip.__all__)
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        gridclip.frobnicate  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_what_goes_in_and_comes_out(name: str) -> None:
    function = getattr(gridclip, name)
    text = inspect.getdoc(function) or ""
    described = re.findall(r"^    ([\w, ]+): ", text.partition("Args:")[2].partition("\n\n")[0], re.MULTILINE)
    assert [each for line in described for each in line.split(", ")] == list(inspect.signature(function).parameters)
    inherits = "the result and the errors" in text
    assert inherits or ("Returns:" in text and "Raises:" in text)
    assert "return" in function.__annotations__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_run(examples: pathlib.Path, name: str) -> None:
    run_example(name, inspect.getdoc(getattr(gridclip, name)) or "")


def test_the_readmes_library_runs(examples: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but for the checkpoint's name: nothing is downloaded here."""
    section = README.partition("## As a library\n")[2].partition("\n## ")[0]
    programs = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert programs and '"ViT-L/14"' in programs[0]
    names: dict[str, Any] = {}
    for program in programs:
        exec(program.replace('"ViT-L/14"', '"ViT-L-14.pt"').replace("STORE", "readme-store"), names)
    assert names["done"].done == 4 and names["hits"][0].score <= 1
    assert pathlib.Path("readme-store").is_dir()


def test_a_model_may_be_named_and_a_store_be_open(examples: pathlib.Path) -> None:
    store, model = Store.open("store"), gridclip.load_model("ViT-L-14.pt")
    by_names = gridclip.search("ViT-L-14.pt", "a star", "store")
    assert gridclip.search(model, "a star", store) == by_names
    assert gridclip.evaluate(store).recall == gridclip.evaluate(pathlib.Path("store")).recall


def test_captions_in_memory_are_those_of_a_file(examples: pathlib.Path) -> None:
    model = gridclip.load_model("ViT-L-14.pt")
    gridclip.embed_text(model, CAPTIONS, "in-memory")
    gridclip.embed_text(model, "captions.json", "from-file")
    tables = [Store.open(name).read_queries() for name in ("in-memory", "from-file")]
    assert tables[0].queries == tables[1].queries
    assert (tables[0].vectors == tables[1].vectors).all()
    with pytest.raises(GridClipError, match="no usable caption"):
        gridclip.embed_text(model, {"a": [""]}, "in-memory")


def test_super_images_are_of_the_models_size_by_default(examples: pathlib.Path) -> None:
    model = gridclip.load_model("ViT-L-14.pt")
    sampling = Store.open("store").sampling
    assert sampling is not None and sampling["super_img_size"] == model.info.image_size != Sampling().super_img_size


def test_wrong_arguments_are_value_errors_and_errors_of_the_library(examples: pathlib.Path) -> None:
    assert issubclass(ArgumentError, GridClipError) and issubclass(ArgumentError, ValueError)
    model = gridclip.load_model("ViT-L-14.pt")
    with pytest.raises(ArgumentError, match="either `video_dir` or `video_info`"):
        gridclip.plan()
    with pytest.raises(ArgumentError, match="`shard_id=2` must be less than `num_shards=2`"):
        gridclip.embed_videos(model, "videos", "s", num_shards=2, shard_id=2)
    with pytest.raises(ArgumentError, match="`overwrite=True` would remove"):
        gridclip.embed_videos(model, "videos", "s", num_shards=2, overwrite=True)
    with pytest.raises(ArgumentError, match=r"`max_text_length=999` is more .* `context_length=999`"):
        gridclip.embed_text(model, "captions.json", "s", max_text_length=999)
    with pytest.raises(ArgumentError, match="the sentence is empty"):
        gridclip.search(model, " ", "store")
    with pytest.raises(GridClipError, match="there is no store at"):
        gridclip.search(model, "a star", "nowhere")
    assert not pathlib.Path("s").exists()


def test_errors_come_through_worker_processes() -> None:
    error = pickle.loads(pickle.dumps(ArgumentError("`store` is wrong")))
    assert type(error) is ArgumentError and str(error) == "`store` is wrong"
