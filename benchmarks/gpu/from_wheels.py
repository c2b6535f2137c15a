"""Wheels and a bare machine (Python 3.12, torch, no registry) in; `bench gpu` in the order of worth, its JSON, out.

    python3 from_wheels.py WHEELS --out RESULTS            install, then the probe, the quick battery and the full one
    python3 from_wheels.py WHEELS --out RESULTS --dry-run  what is missing, and what would be run

Only Python's own library is used: copy this file beside the wheels. The wheels are installed without their
dependencies into a new environment that sees the machine's own packages (torch, numpy), so that nothing of the machine
is changed and no registry is asked. WHEELS holds a wheel of gridclip, too (`pip wheel --no-deps .`), or --source names
a checkout, which is copied and installed as it is. To pack wheels: `pip download --no-deps --only-binary=:all:
--python-version 3.12 --platform manylinux_2_28_x86_64 -d WHEELS NAME ...` of what `--dry-run` calls missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

# What the battery imports on a card, with what that imports, in the order of installing.
NEEDED = (
    "numpy",
    "torch",
    "click",
    "onnx",
    "ml_dtypes",
    "protobuf",
    "typing_extensions",
    "pyarrow",
    "Pillow",
    "av",
    "safetensors",
    "tokenizers",
    "ftfy",
    "wcwidth",
    "rich",
    "markdown-it-py",
    "mdurl",
    "Pygments",
    "flatbuffers",
    "onnxruntime-gpu",
    "nvidia-dali-cuda130",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvjpeg",
    "nvidia-libnvcomp-cu13",
    "nvtx",
    "makefun",
    "optree",
    "gast",
    "astunparse",
    "six",
    "libcst",
    "packaging",
    "PyWavelets",
    "pylance",
    "lance-namespace",
    "lance-namespace-urllib3-client",
    "gridclip",
)
# Left out: jpeg4py has no wheel, Pillow reads JPEG without it; huggingface_hub only looks for vocabularies; decord is a
# second decoder that the battery does not name.
RUNS: tuple[tuple[str, list[str]], ...] = (
    ("probe.json", ["--steps", "0"]),
    ("quick.json", ["--quick"]),
    ("full.json", []),
)
PROBE = (
    "import ctypes, sys\n"
    "for name in ('libcuda.so.1', 'libnvcuvid.so.1'):\n"
    "    try:\n"
    "        ctypes.CDLL(name); print(name, 'is there')\n"
    "    except OSError as error:\n"
    "        print(name, 'IS MISSING:', error)\n"
)


@dataclasses.dataclass(frozen=True)
class Package:
    """A needed package, and where it comes from: a wheel, the machine, or nowhere (both None)."""

    name: str
    wheel: pathlib.Path | None
    installed: str | None

    def __str__(self) -> str:
        if self.wheel is not None:
            return f"{self.name}: {self.wheel.name}"
        return f"{self.name}: {'MISSING' if self.installed is None else f'{self.installed} of this machine'}"


def find_packages(wheels: pathlib.Path) -> list[Package]:
    """Every needed package; a wheel goes before what the machine has."""
    found = {}
    for wheel in sorted(wheels.glob("*.whl")):
        found[normalise(wheel.name.split("-")[0])] = wheel
    return [Package(name, found.get(normalise(name)), _installed(name)) for name in NEEDED]


def extra_wheels(wheels: pathlib.Path) -> list[pathlib.Path]:
    """Wheels that are no needed package by name: they are installed first, in the order of their names."""
    needed = set(map(normalise, NEEDED))
    return [wheel for wheel in sorted(wheels.glob("*.whl")) if normalise(wheel.name.split("-")[0]) not in needed]


def normalise(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def install(packages: Sequence[Package], extra: Sequence[pathlib.Path], environment: pathlib.Path) -> pathlib.Path:
    """A new environment with these wheels, which sees the machine's own packages; its Python.

    None with its dependencies: a machine without a registry could not get them. What the environment has hides what the
    machine has, so that onnxruntime-gpu goes before an onnxruntime of the CPU.
    """
    shutil.rmtree(environment, ignore_errors=True)
    make = [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(environment)]
    subprocess.run(make, check=True)
    python = environment / "bin" / "python"
    wheels = [str(wheel) for wheel in [*extra, *(package.wheel for package in packages)] if wheel is not None]
    if wheels:
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
        subprocess.run([*pip, "--no-index", "--no-deps", "--force-reinstall", *wheels], check=True)
    return python


def _site_packages(python: pathlib.Path) -> pathlib.Path:
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    return pathlib.Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())


def install_source(source: pathlib.Path, python: pathlib.Path) -> None:
    """A checkout of gridclip instead of a wheel: copied under its import name."""
    target = _site_packages(python) / "gridclip"
    unneeded = shutil.ignore_patterns("__pycache__", "results", "charts")
    for part in ("benchmarks", "dali_pipes", "engine", "export"):
        shutil.copytree(source / part, target / part, ignore=unneeded)
    for path in source.glob("*.py"):
        shutil.copy(path, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Installs, probes, measures; the exit status of the last battery."""
    arguments = _parser().parse_args(argv)
    packages = find_packages(arguments.wheels)
    extra = extra_wheels(arguments.wheels)
    print("\n".join(map(str, packages)))
    print("\n".join(f"also: {wheel.name}" for wheel in extra))
    missing = [package.name for package in packages if package.wheel is None and package.installed is None]
    if arguments.source is not None:
        missing = [name for name in missing if name != "gridclip"]
    out = arguments.out.resolve()
    commands = [_command(pathlib.Path("python"), out, name, options) for name, options in RUNS]
    if arguments.dry_run:
        print("missing:", " ".join(missing) or "nothing")
        print("would be run:", *(" ".join(map(str, command)) for command in commands), sep="\n  ")
        return 1 if missing else 0
    if missing:
        print(f"missing, so steps that need them will say so: {' '.join(missing)}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", PROBE], check=False)  # the first question, in a second
    python = install(packages, extra, out / "environment")
    if arguments.source is not None:
        install_source(arguments.source, python)
    status = 0
    for name, options in RUNS[: arguments.runs]:
        status = subprocess.run(_command(python, out, name, options), check=False).returncode
        print(f"{name}: exit status {status}", flush=True)
    return status


def _command(python: pathlib.Path, out: pathlib.Path, name: str, options: Sequence[str]) -> list[str]:
    battery = [str(python), "-m", "gridclip.benchmarks.gpu.battery", "--json", str(out / name)]
    return [*battery, "--work-dir", str(out / "work"), "--resume", *options]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=pathlib.Path, metavar="WHEELS", help="a folder of *.whl files")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("gpu-results"), help="for JSON, logs and the environment"
    )
    parser.add_argument("--source", type=pathlib.Path, help="a checkout of gridclip, where there is no wheel of it")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many of: the probe, quick, full")
    parser.add_argument("--dry-run", action="store_true", help="tell what is missing and what would be run, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
