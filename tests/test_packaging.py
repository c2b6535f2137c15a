"""setup.cfg, MANIFEST.in and constraints.txt in; a wheel and an sdist out that hold all that the commands need."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable

import gridclip
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}
# DALI: the CPU decodes without it; Ray, what the page needs and what URLs need are extras of their own.
OPTIONAL_IMPORTS = {"fsspec", "nvidia", "prometheus_client", "ray", "starlette", "uvicorn"}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config


def test_every_package_is_named() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "tests"]
    found = {path.parent for folder in folders for path in folder.rglob("__init__.py")} | {ROOT}
    names = {".".join(["gridclip", *folder.relative_to(ROOT).parts]) for folder in found}
    assert set(setup_cfg()["options"]["packages"].split()) == names


def test_every_requirement_is_pinned() -> None:
    config = setup_cfg()
    lines = config["options"]["install_requires"].splitlines()
    for requirements in config["options.extras_require"].values():
        lines += requirements.splitlines()
    wanted = {re.split(r"[><=;\[ ]", line)[0].lower().replace("_", "-") for line in lines if line}
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)  # no local versions such as +cpu
    assert wanted <= {pin.split("==")[0].lower().replace("_", "-") for pin in pins}


def requirements(*extras: str) -> list[Requirement]:
    """What pip asks for in an empty environment: the package's own requirements with these extras."""
    config = setup_cfg()
    lines = config["options"]["install_requires"].splitlines()
    for extra in extras:
        lines += config["options.extras_require"][extra].splitlines()
    return [Requirement(line) for line in lines if line]


def everything_installed(*extras: str) -> set[str]:
    """The same with the requirements of these, as far as they are installed here; extras' markers are followed."""
    found: set[str] = set()
    waiting = requirements(*extras)
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)) if wanted.marker else True:
            known = {f"{name}[{extra}]" for extra in wanted.extras} | {name}
            if known <= found:
                continue
            found |= known
            try:
                needed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            for line in needed:
                requirement = Requirement(line)
                environments = [{"extra": extra} for extra in ("", *wanted.extras)]
                if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                    requirement.marker = None
                    waiting.append(requirement)
    return found


def imported(folder: str) -> set[str]:
    """Third-party modules that the modules of a folder (and cli.py) import, wherever in the file."""
    names: set[str] = set()
    for path in [*(ROOT / folder).rglob("*.py"), ROOT / "cli.py"]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"gridclip"}


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_one_extra_brings_all_that_the_commands_import_and_one_runtime(extra: str) -> None:
    named = {canonicalize_name(requirement.name) for requirement in requirements(extra)}
    wheels = importlib.metadata.packages_distributions()
    for module in sorted(set.union(*map(imported, ("dali_pipes", "engine", "export"))) - OPTIONAL_IMPORTS):
        providers = {canonicalize_name(name) for name in wheels.get(module, [module])}
        assert providers & named or (providers & RUNTIMES and named & RUNTIMES), f"{extra} does not bring {module}"
    assert len(everything_installed(extra) & RUNTIMES) == 1


@pytest.mark.parametrize("extra", ["dali", "test"])
def test_extras_that_are_added_to_another_bring_no_runtime(extra: str) -> None:
    """Both wheels write the same files: an extra that brought onnxruntime would overwrite onnxruntime-gpu."""
    assert not everything_installed(extra) & RUNTIMES


def test_the_gpu_extra_is_dali_and_a_bounded_runtime_with_cuda() -> None:
    found = {requirement.name: requirement for requirement in requirements("gpu")}
    runtime = found["onnxruntime-gpu"]
    assert {specifier.operator for specifier in runtime.specifier} == {">=", "<"}
    assert runtime.extras == {"cuda", "cudnn"}
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#")
    assert runtime.specifier.contains(pins["onnxruntime-gpu"])
    assert found["nvidia-dali-cuda130"].specifier.contains(pins["nvidia-dali-cuda130"])


def test_nobody_is_sent_to_a_registry_for_gridclip() -> None:
    """No registry has the package: it is installed from the clone or from a wheel, with extras that exist."""
    extras = set(setup_cfg()["options.extras_require"])
    named = 0
    folders = ("benchmarks", "dali_pipes", "engine", "export", "tests")
    modules = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path != pathlib.Path(__file__)]
    for path in [ROOT / "README.md", ROOT / "Makefile", ROOT / "cli.py", *modules]:
        text = path.read_text("utf-8")
        assert not re.search(r"install [\"']?gridclip\b", text), path
        for group in re.findall(r"(?:\.|\.whl)\[([a-z,]+)\]", text) if path.suffix != ".py" else []:
            assert set(group.split(",")) <= extras, path
            named += 1
    assert named >= 2


def test_the_self_tests_samples_are_package_data() -> None:
    patterns = setup_cfg()["options.package_data"]["gridclip.dali_pipes.nvdali"].split()
    samples = sorted((ROOT / "dali_pipes" / "nvdali" / "samples").iterdir())
    assert len(samples) == 3
    assert all(any(path.match(pattern) for pattern in patterns) for path in samples)
    assert sum(path.stat().st_size for path in samples) < 20_000


def test_the_version_is_stated_once() -> None:
    assert setup_cfg()["metadata"]["version"] == "attr: gridclip.__version__"
    stated = re.findall(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text("utf-8"), re.MULTILINE)
    assert stated == [gridclip.__version__]
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == gridclip.__version__, "the newest version in CHANGELOG.md"


BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(what: str, source: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """What setuptools makes of a source tree: the way of `pip wheel --no-deps --no-build-isolation`, without pip."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{what}", out], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The repository's files, built from a copy and unpacked again."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("sdist")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "shared", "*-output", "fuzz-finds")
    shutil.copytree(ROOT, copy / "gridclip", ignore=ignored)
    for name in (".ci", ".gitignore", ".pre-commit-config.yaml"):
        kept = ROOT / name
        (shutil.copytree if kept.is_dir() else shutil.copy)(kept, copy / "gridclip" / name)
    (copy / "gridclip" / "engine" / "__pycache__").mkdir(exist_ok=True)
    (copy / "gridclip" / "engine" / "__pycache__" / "planted.pyc").touch()
    archive = build("sdist", copy / "gridclip", out)
    with tarfile.open(archive) as tar:
        tar.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that a wheel, built from the sdist, is unpacked into: what `pip install` leaves in site-packages."""
    out = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build("wheel", sdist, out)) as archive:
        archive.extractall(out / "site")
    return out / "site"


def files_in(folder: pathlib.Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_has_what_git_has_and_no_caches(sdist: pathlib.Path) -> None:
    found = files_in(sdist)
    assert not [name for name in found if "__pycache__" in name or name.endswith(".pyc")]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        assert {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()} - found == set()
    assert {"setup.cfg", "Makefile", "tests/conftest.py", "tests/fuzz/__main__.py", ".ci/run"} <= found


def test_the_wheel_has_the_modules_and_their_data_and_nothing_else(wheel: pathlib.Path) -> None:
    found = files_in(wheel)
    assert {name.split("/")[0] for name in found} == {"gridclip", f"gridclip-{gridclip.__version__}.dist-info"}
    product = {name.removeprefix("gridclip/") for name in found if name.startswith("gridclip/")}
    folders = [path.parent for path in ROOT.glob("[!.]*/__init__.py")]
    modules = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert {name for name in product if name.endswith(".py")} == {str(path.relative_to(ROOT)) for path in modules}
    data = {name for name in product if not name.endswith(".py")}
    beside = {"dali_pipes/nvdali/samples", "engine/serve/page", "export/verify_images"}
    assert {name for name in data if str(pathlib.PurePosixPath(name).parent) not in beside} == {
        "py.typed",
        "benchmarks/demo/grids_clip.pt",
        "benchmarks/demo/tiny_clip.pt",
        "benchmarks/demo/tiny_clip.tokenizer.json",
        "benchmarks/demo/tiny_siglip/config.json",
        "benchmarks/demo/tiny_siglip/model.safetensors",
        "benchmarks/demo/tiny_siglip/preprocessor_config.json",
        "benchmarks/demo/tiny_siglip/tokenizer.json",
    }
    assert len(data) == 4 + 4 + 3 + 4 + 4


def test_commands_run_from_the_wheel_in_another_folder(
    wheel: pathlib.Path, tmp_path: pathlib.Path, write_video: Callable[..., pathlib.Path]
) -> None:
    """With nothing of the repository in reach."""

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gridclip.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(wheel), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import gridclip; print(gridclip.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert pathlib.Path(where.stdout.strip()) == wheel / "gridclip" / "__init__.py"
    assert run("--version") == f"gridclip, version {gridclip.__version__}\n"
    assert json.loads(run("doctor", "--json"))["healthy"]
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", duration_s=10)
    plan = json.loads(run("plan", "--video-dir", "videos", "--json"))
    assert (plan["videos"], plan["frames"], plan["super_images"]) == (1, 5, 2)
    run("superimages", "--video-dir", "videos", "--save-dir", "images", "--num-workers", 1)
    assert sorted(path.name for path in (tmp_path / "images" / "a").glob("*.jpg")) == ["img_0001.jpg", "img_0002.jpg"]
    checkpoint = wheel / "gridclip" / "benchmarks" / "demo" / "tiny_clip.pt"
    assert "smallest cosine" in run("export", checkpoint, "--out", "model", "--verify")
    run("embed-videos", "--model", "model", "--video-dir", "videos", "--store", "store", "--num-workers", 1)
    assert "a  " in run("search", "--model", "model", "--store", "store", "a red circle")
    assert "decode" in run("bench", "--help")
    assert "--json" in run("bench", "end-to-end", "--help")
