"""The product's modules in, the tree of docs/architecture.md out: one line each, the first of its docstring.

.venv/bin/python docs/tree.py    # after a module came, went or changed its first line; a test fails where it is stale
"""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- tree: written by docs/tree.py -->\n", "<!-- end of the tree -->"
ROOMS = ("dali_pipes", "export", "engine")
NAME_WIDTH = 26


def first_line(path: pathlib.Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    if not text:
        raise SystemExit(f"{path} has no docstring: say in its first line what comes in and what goes out")
    return text.splitlines()[0].rstrip(".")


def lines_of(folder: pathlib.Path, indent: int) -> list[str]:
    """A folder's own line, its modules' and those of the folders in it."""
    lines = [_line(f"{folder.name}/", first_line(folder / "__init__.py"), indent)]
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    lines += [_line(path.name, first_line(path), indent + 1) for path in modules]
    for path in sorted(folder.glob("*/__init__.py")):
        lines += lines_of(path.parent, indent + 1)
    return lines


def tree() -> str:
    """The whole tree as a code block."""
    lines = [_line(name, first_line(ROOT / name), 0) for name in ("__init__.py", "cli.py")]
    for room in ROOMS:
        lines += lines_of(ROOT / room, 0)
    lines.append(_line("benchmarks/", first_line(ROOT / "benchmarks" / "__init__.py"), 0))
    return "\n".join(["```text", *lines, "```", ""])


def rewritten(page: str) -> str:
    """The page with the tree of today between the two marks."""
    before, rest = page.split(START)
    return before + START + tree() + END + rest.split(END, 1)[1]


def _line(name: str, text: str, indent: int) -> str:
    return f"{'  ' * indent + name:<{NAME_WIDTH}}  {text}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
