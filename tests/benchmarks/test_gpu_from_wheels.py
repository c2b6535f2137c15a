"""benchmarks/gpu/from_wheels.py: a machine without a registry; its wheels and its battery are stand-ins."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from gridclip.benchmarks.gpu import from_wheels

STAND_IN = """
import json, pathlib, sys
pathlib.Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps([sys.argv[1:], sys.prefix]))
import wcwidth
sys.exit(int("--quick" in sys.argv))
"""


def make_wheel(folder: pathlib.Path, name: str, files: dict[str, str], version: str = "9.9") -> pathlib.Path:
    """A wheel as pip takes it."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: not-to-be-had\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={digest},{len(text.encode())}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@pytest.fixture
def wheels(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    battery = {f"gridclip/{part}__init__.py": "" for part in ("", "benchmarks/", "benchmarks/gpu/")}
    make_wheel(folder, "gridclip", {**battery, "gridclip/benchmarks/gpu/battery.py": STAND_IN})
    make_wheel(folder, "wcwidth", {"wcwidth.py": "MINE = True\n"})
    make_wheel(folder, "odd_one", {"odd_one.py": ""})
    return folder


def test_a_dry_run_tells_what_is_missing(
    wheels: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"numpy": "2.0", "torch": "2.9+cu130"}
    monkeypatch.setattr(from_wheels, "_installed", machine.get)
    assert from_wheels.main([str(wheels), "--out", str(tmp_path / "out"), "--dry-run"]) == 1
    printed = capsys.readouterr().out
    assert "torch: 2.9+cu130 of this machine" in printed and "wcwidth: wcwidth-9.9-py3-none-any.whl" in printed
    assert "also: odd_one-9.9-py3-none-any.whl" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("missing:")]
    names = set(line.split()[1:])
    assert {"onnxruntime-gpu", "nvidia-dali-cuda130", "pylance"} <= names and not names & {
        "torch",
        "wcwidth",
        "gridclip",
    }
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(from_wheels, "_installed", lambda name: "1")
    (wheels / "gridclip-9.9-py3-none-any.whl").unlink()
    assert from_wheels.main([str(wheels), "--out", str(tmp_path / "out"), "--dry-run", "--source", "."]) == 0


def test_wheels_are_installed_without_what_they_require_and_the_battery_runs_in_order(
    wheels: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, from_wheels.__file__, str(wheels), "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "libnvcuvid.so.1" in ended.stdout  # the first question, whatever its answer
    found = {name: json.loads((out / name).read_text()) for name, _ in from_wheels.RUNS}
    assert all(prefix == str(out / "environment") for _, prefix in found.values())
    assert [options[-2:] for options, _ in found.values()] == [["--steps", "0"], ["--resume", "--quick"], [
        str(out / "work"), "--resume",
    ]]  # fmt: skip
    assert "quick.json: exit status 1" in ended.stdout and "full.json: exit status 0" in ended.stdout


def test_a_checkout_is_installed_under_its_import_name(tmp_path: pathlib.Path) -> None:
    python = from_wheels.install([], [], tmp_path / "environment")
    from_wheels.install_source(pathlib.Path(__file__).resolve().parents[2], python)
    program = "import gridclip, gridclip.engine.choices; print(gridclip.__file__)"
    told = subprocess.run([str(python), "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    installed = pathlib.Path(told.strip()).parent
    assert installed.is_relative_to(tmp_path)
    assert (installed / "benchmarks" / "demo" / "tiny_clip.pt").exists()
    assert (installed / "dali_pipes" / "nvdali" / "samples" / "h264.mp4").exists()


BLOCKED = """
import importlib.abc, importlib.metadata, importlib.util, sys
from gridclip.benchmarks.gpu import from_wheels
WITH_TORCH = {"filelock", "fsspec", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "setuptools"}
allowed = {from_wheels.normalise(name) for name in from_wheels.NEEDED} | WITH_TORCH | {"onnxruntime"}
owners = importlib.metadata.packages_distributions()
find_spec = importlib.util.find_spec

class Registry(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        mine = {from_wheels.normalise(owner) for owner in owners.get(name, [])}
        if mine and not mine & allowed and name != "gridclip":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Registry())


def found(name, package=None):
    try:
        return find_spec(name, package)
    except ModuleNotFoundError:
        return None


importlib.util.find_spec = found
from gridclip.benchmarks.gpu import steps
import importlib
for step in steps.STEPS:
    importlib.import_module(f"gridclip.benchmarks.gpu.{step.module}")
from gridclip.benchmarks.end_to_end import TINY_CHECKPOINT
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export.folder import ensure_model_folder
import pathlib
Encoder(ensure_model_folder(str(TINY_CHECKPOINT)), provider="cpu").encode_texts(["a red ball"])
import lance, nvidia.dali.fn
print("enough")
"""


def test_what_is_packed_is_enough() -> None:
    """The battery's modules, and what a job loads, with every package hidden that is not on the list."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert ended.stdout.strip().endswith("enough"), ended.stderr
