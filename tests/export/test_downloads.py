"""Known models from a stand-in for the hub: whole, in halves, changed on the way, changed at home, and not at all."""

from __future__ import annotations

import json
import pathlib
import threading
from collections.abc import Iterator

import gridclip
import pytest
from click.testing import CliRunner
from gridclip import GridClipError
from gridclip.cli import main
from gridclip.export import download, downloads, known_models
from gridclip.export.folder import ensure_model_folder
from gridclip.export.known_models import KNOWN_MODELS, KnownModel, find_known_model
from gridclip.export.listing import list_models
from gridclip.export.model_info import read_model_info

from .hub_server import Hub, Repository

TINY_SIGLIP = pathlib.Path(gridclip.__file__).parent / "benchmarks" / "demo" / "tiny_siglip"
NAME, PLACE = "siglip2-base-patch16-224", "google/siglip2-base-patch16-224"
FILES = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"]
VOCABULARY_PLACE = "openai/clip-vit-large-patch14"


def siglip() -> Repository:
    """The demo's tiny SigLIP where a large one would be, among files that nobody needs."""
    files = {path.name: path.read_bytes() for path in TINY_SIGLIP.iterdir()}
    return Repository(files | {"README.md": b"card", "flax/model.msgpack": b"other"}, large={"model.safetensors"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.push(PLACE, siglip())
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_S", 0)
    monkeypatch.setattr(download, "_BLOCK_BYTES", 1 << 16)


def test_a_model_is_fetched_once_and_its_name_finds_it(hub: Hub, tmp_path: pathlib.Path) -> None:
    folder = downloads.download_model(NAME, tmp_path)
    assert folder == tmp_path / "checkpoints" / NAME
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, downloads.RECORD])
    assert all((folder / name).read_bytes() == (TINY_SIGLIP / name).read_bytes() for name in FILES)
    record = {each["name"]: each for each in json.loads((folder / downloads.RECORD).read_text())["files"]}
    assert {each["revision"] for each in record.values()} == {siglip().sha}
    assert record["model.safetensors"]["checksum"] == download.file_sha256(TINY_SIGLIP / "model.safetensors")
    assert (record["model.safetensors"]["checksum_kind"], record["config.json"]["checksum_kind"]) == (
        "SHA-256",
        "git blob",
    )
    asked = len(hub.requests)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert downloads.download_model(PLACE, tmp_path) == folder
    assert len(hub.requests) == asked and times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert list_models(tmp_path).downloaded == {NAME: folder}


def test_a_model_s_name_exports_it_and_then_needs_neither_hub_nor_checkpoint(hub: Hub, tmp_path: pathlib.Path) -> None:
    folder = ensure_model_folder(NAME, tmp_path)
    info = read_model_info(folder)
    assert (info.name, info.family, info.source) == (NAME, "siglip", NAME)
    for path in (tmp_path / "checkpoints" / NAME).iterdir():
        path.unlink()
    hub.commits.clear()
    assert ensure_model_folder(PLACE, tmp_path) == folder


def test_a_folder_of_that_name_is_a_path(hub: Hub, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert downloads.name_of_download(NAME) == downloads.name_of_download(PLACE) == NAME
    (tmp_path / NAME).symlink_to(TINY_SIGLIP)
    (tmp_path / "ViT-L").mkdir()
    (tmp_path / "ViT-L" / "14").touch()
    assert downloads.name_of_download(NAME) is None and downloads.name_of_download("ViT-L/14") == "ViT-L/14"
    assert read_model_info(ensure_model_folder(NAME, tmp_path / "cache")).name == NAME
    assert not hub.requests


def test_half_a_download_goes_on_with_the_commit_it_began(hub: Hub, tmp_path: pathlib.Path) -> None:
    small = [0, 0, 0]  # of one file: the weights come last
    hub.breaks = [10**6] * 3 + [700_000, *small]
    with pytest.raises(GridClipError, match="the next run goes on after the 700000 bytes in .*model.safetensors.part"):
        downloads.download_model(NAME, tmp_path)
    (known,) = [model for model in KNOWN_MODELS if model.name == NAME]
    assert downloads.find_download(known, tmp_path) is None and not list_models(tmp_path).downloaded
    hub.push(PLACE, Repository({"model.safetensors": b"another"}))
    hub.requests.clear()
    folder = downloads.download_model(NAME, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (TINY_SIGLIP / "model.safetensors").read_bytes()
    assert hub.fetched() == ["model.safetensors"] and hub.requests[-1][1] == "bytes=700000-"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_changed_on_the_way_is_refused(hub: Hub, tmp_path: pathlib.Path, name: str) -> None:
    body = (TINY_SIGLIP / name).read_bytes()
    hub.sent[name] = body[:-2] + b"x" + body[-1:]
    with pytest.raises(GridClipError, match=f"{name}: the download has (SHA-256|git blob) .* and was removed"):
        downloads.download_model(NAME, tmp_path)
    assert not list((tmp_path / "checkpoints" / NAME).glob(f"{name}*"))
    hub.sent.clear()
    assert (downloads.download_model(NAME, tmp_path) / name).read_bytes() == body


def test_what_is_changed_at_home_is_noticed_by_the_next_export(
    hub: Hub, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = downloads.download_model(NAME, tmp_path) / "model.safetensors"
    body = bytearray(weights.read_bytes())
    body[-1] ^= 1
    weights.write_bytes(body)
    hub.requests.clear()
    ensure_model_folder(NAME, tmp_path)
    assert "model.safetensors is damaged" in caplog.text and hub.fetched() == ["model.safetensors"]
    assert weights.read_bytes() == (TINY_SIGLIP / "model.safetensors").read_bytes()


def test_a_damaged_record_is_made_again_from_the_hub(
    hub: Hub, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = downloads.download_model(NAME, tmp_path)
    good = json.loads((folder / downloads.RECORD).read_text())
    outside = {"files": [good["files"][0] | {"name": "../config.json"}]}
    for bad in ('{"files": [', '{"files": [{}]}', "[]", json.dumps(outside)):
        (folder / downloads.RECORD).write_text(bad)
        hub.requests.clear()
        assert downloads.download_model(NAME, tmp_path) == folder
        assert json.loads((folder / downloads.RECORD).read_text()) == good and not hub.fetched()
    assert caplog.text.count("is damaged") == 4


def test_a_vocabulary_comes_from_openai_where_the_repository_has_none(hub: Hub, tmp_path: pathlib.Path) -> None:
    hub.push(VOCABULARY_PLACE, Repository({"tokenizer.json": b"{}", "model.safetensors": b"of another model"}))
    hub.push("facebook/PE-Core-T16-384", Repository({"PE-Core-T16-384.pt": b"weights", "config.yaml": b"x"}))
    path = downloads.download_model("PE-Core-T16-384", tmp_path)
    assert path == tmp_path / "checkpoints" / "PE-Core-T16-384" / "PE-Core-T16-384.pt"
    assert path.read_bytes() == b"weights" and path.with_name("tokenizer.json").read_bytes() == b"{}"
    assert find_known_model("PE-Core-T16-384") in [
        model for model in KNOWN_MODELS if downloads.find_download(model, tmp_path) == path
    ]


@pytest.mark.parametrize("place", [PLACE, "facebook/metaclip-2-worldwide-b32"])
def test_openai_s_vocabulary_is_not_taken_for_a_family_s_own(hub: Hub, tmp_path: pathlib.Path, place: str) -> None:
    hub.push(VOCABULARY_PLACE, Repository({"tokenizer.json": b"{}"}))
    hub.push(place, Repository({"model.safetensors": b"weights", "config.json": b"{}"}))
    with pytest.raises(GridClipError, match=rf"{place} on the hub has no tokenizer\.json, which a model of"):
        downloads.download_model(place, tmp_path)
    assert not hub.fetched()


def test_weights_in_parts_are_fetched_with_their_index(hub: Hub, tmp_path: pathlib.Path) -> None:
    name = "CLIP-ViT-bigG-14-laion2B-39B-b160k"
    parts = {f"model-0000{number}-of-00002.safetensors": bytes([number]) for number in (1, 2)}
    others = {"pytorch_model.bin": b"x", "model-00001-of-00002.bin": b"x", "modelx-00001-of-00002.safetensors": b"x"}
    small = {"model.safetensors.index.json": b"{}", "open_clip_config.json": b"{}", "tokenizer.json": b"{}"}
    hub.push(f"laion/{name}", Repository(small | parts | others, large=set(parts)))
    folder = downloads.download_model(name, tmp_path)
    assert {path.name for path in folder.iterdir()} == {*small, *parts, downloads.RECORD}


def test_of_timms_repositories_the_whole_model_is_taken(
    hub: Hub, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside open_clip's file is model.safetensors, which is the image tower alone."""
    known = KnownModel("eva02", "clip", "MIT", 1, 1, 224, place="timm/eva02")
    monkeypatch.setattr(known_models, "KNOWN_MODELS", (*KNOWN_MODELS, known))
    files = ("model.safetensors", "open_clip_pytorch_model.bin", "open_clip_config.json", "tokenizer.json")
    hub.push("timm/eva02", Repository(dict.fromkeys(files, b"{}")))
    folder = downloads.download_model("eva02", tmp_path)
    assert {path.name for path in folder.iterdir()} == {*files[1:], downloads.RECORD}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": b"{}", "tokenizer.json": b"{}"}, f"{PLACE} on the hub does not have any of model.safetensors"),
        ({"model.safetensors": b""}, f"{PLACE} on the hub has no tokenizer.json"),
    ],
)
def test_a_repository_without_what_is_needed_is_told(
    hub: Hub, tmp_path: pathlib.Path, files: dict[str, bytes], said: str
) -> None:
    hub.push(PLACE, Repository(files))
    with pytest.raises(GridClipError, match=said):
        downloads.download_model(NAME, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_hub_without_the_repository_or_no_hub_at_all_is_told(
    hub: Hub, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commits.clear()
    with pytest.raises(GridClipError, match=f"cannot ask {hub.url} for the files of {PLACE}: .*404"):
        downloads.download_model(NAME, tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(GridClipError, match="Without a network, fetch its folder elsewhere and pass its path"):
        downloads.download_model(NAME, tmp_path)


def test_a_cache_that_cannot_be_written_is_told(hub: Hub, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GridClipError, match="cannot write .*set GRIDCLIP_CACHE"):
        downloads.download_model(NAME, tmp_path / "file")
    assert not hub.fetched()


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: pathlib.Path) -> None:
    for name, near in (("siglip2-so400m-patch14-385", "siglip2-so400m-patch14-384"), ("openai/ViT-L-14", "ViT-L/14")):
        with pytest.raises(GridClipError, match=f"model '{name}' is not known: did you mean [^?]*{near}.*list_models"):
            downloads.download_model(name, tmp_path)
    with pytest.raises(GridClipError, match="model 'wholly different' is not known: `list_models`"):
        downloads.download_model("wholly different", tmp_path)
    with pytest.raises(GridClipError, match="neither a file or folder nor a known name: did you mean .*ViT-B/32"):
        ensure_model_folder("ViT-B-32", tmp_path)


def test_the_command_downloads_and_says_where(
    hub: Hub, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIDCLIP_CACHE", str(tmp_path))
    result = CliRunner().invoke(main, ["models", "--download", NAME])
    folder = tmp_path / "checkpoints" / NAME
    assert (result.exit_code, result.stdout) == (0, f"{NAME}: {folder}\n")
    told = json.loads(CliRunner().invoke(main, ["models", "--download", NAME, "--json"]).stdout)
    assert {model["name"]: model["downloaded"] for model in told["known"] if model["downloaded"]} == {NAME: str(folder)}
    assert CliRunner().invoke(main, ["models", "--download", "ViT"]).exit_code != 0


def test_git_names_a_file_s_content_so(tmp_path: pathlib.Path) -> None:
    """As `git hash-object` does for an empty file and for "hello" with a line's end."""
    (tmp_path / "empty").touch()
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert download.git_blob(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert download.git_blob(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"
