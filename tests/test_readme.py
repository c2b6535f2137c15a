"""README.md: its commands are commands, its files are there."""

from __future__ import annotations

import pathlib
import re
import shlex

import click
import pytest
from gridclip.benchmarks import readme_table
from gridclip.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("gridclip ")])
def test_commands_parse(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    parent = main.make_context("gridclip", [name])
    command = main.commands[name].make_context(name, arguments, parent=parent)
    assert isinstance(command, click.Context)


def test_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {shlex.split(line, comments=True)[1] for line in LINES if line.startswith("make ")}
    assert targets >= {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_command_is_described() -> None:
    assert all(f"`gridclip {name}`" in README for name in main.commands)


def test_linked_files_are_there() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_measured_figures_are_those_of_the_results() -> None:
    assert readme_table.headlines(README) == README
    details = readme_table.BENCHMARKS_README.read_text("utf-8")
    assert readme_table.everything(details) == details
    assert 5 < sum(row.headline for row in readme_table.rows()) < len(readme_table.rows())
