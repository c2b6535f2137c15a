"""setup.cfg and constraints.txt: every package is named, every requirement is pinned."""

from __future__ import annotations

import configparser
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOT_PINNED = {"onnxruntime-gpu"}  # for GPUs only


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
    wanted = {re.split(r"[><=;\[ ]", line)[0].lower().replace("_", "-") for line in lines if line} - NOT_PINNED
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)  # no local versions such as +cpu
    assert wanted <= {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
