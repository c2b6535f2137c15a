"""CONTRIBUTING.md, CHANGELOG.md, docs/: links lead somewhere, the tree is today's, README knows every command."""

from __future__ import annotations

import importlib.util
import pathlib
import re
from types import ModuleType

import click
import pytest
from gridclip.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text("utf-8")
NOT_A_MODULES = {"cli", "fuzz", "kills", "benchmarks"}  # tests of a command or a program, which has more than one file


def tree_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tree", ROOT / "docs" / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tree_is_todays() -> None:
    tree = tree_program()
    page = tree.PAGE.read_text("utf-8")
    assert tree.rewritten(page) == page, "run .venv/bin/python docs/tree.py"


def test_the_tree_has_every_module() -> None:
    text = tree_program().tree()
    for room in ("dali_pipes", "engine", "export"):
        for path in (ROOT / room).rglob("*.py"):
            named = f"{path.parent.name}/" if path.name == "__init__.py" else path.name
            assert re.search(rf"^ *{re.escape(named)} +\S", text, re.MULTILINE), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link.split("#")[0]).exists()] == []


def test_every_recipe_is_linked() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert [path.name for path in (ROOT / "docs" / "recipes").glob("*.md") if f"recipes/{path.name})" not in text] == []


def commands(group: click.Group, name: str) -> dict[str, click.Command]:
    """Every command by what a user types, those of groups included."""
    found: dict[str, click.Command] = {}
    for word, command in group.commands.items():
        found[f"{name} {word}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{name} {word}")
    return found


def test_every_command_is_in_readmes_table() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `gridclip ")]
    for typed, command in commands(main, "gridclip").items():
        parent, _, word = typed.rpartition(" ")
        row = next((row for row in rows if f"`{typed}`" in row), None)
        if parent != "gridclip":
            row = next((row for row in rows if f"`{parent}`" in row and f"`{word}`" in row), None)
        assert row, f"{typed} ({command.get_short_help_str()}) is not in README's table of commands"


def test_the_table_has_no_command_that_is_not_there() -> None:
    typed = re.findall(
        r"`(gridclip [a-z-]+)`", "".join(line for line in README.splitlines() if line[:12] == "| `gridclip ")
    )
    assert typed
    assert set(typed) <= commands(main, "gridclip").keys()


def test_tests_mirror_the_folders() -> None:
    """A folder of tests is a folder of the product (or names a program), and README says where they are."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    for folder in folders - {pathlib.Path()}:
        assert folder.parts[0] in NOT_A_MODULES or (ROOT / folder / "__init__.py").is_file(), f"tests/{folder}"
    assert "docs/architecture.md" in README
    assert "`tests/engine/scoring/test_retrieval.py`" in README
    assert (ROOT / "tests" / "engine" / "scoring" / "test_retrieval.py").is_file()


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text[text.index("## Why each dependency") :]
    for block in re.findall(
        r"(?:install_requires|\ncpu|\ngpu|\ndali) =\n((?:    .+\n)+)", (ROOT / "setup.cfg").read_text()
    ):
        for line in block.splitlines():
            name = re.split(r"[>=<;\[ ]", line.strip())[0]
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", table), f"{name}: say why it is there"
