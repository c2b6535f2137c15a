"""setup.cfg and constraints.txt: every package is named, every requirement is pinned."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}
OPTIONAL_IMPORTS = {"nvidia"}  # DALI: the CPU decodes without it


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
    assert len(samples) == 3 and all(any(path.match(pattern) for pattern in patterns) for path in samples)
    assert sum(path.stat().st_size for path in samples) < 20_000
