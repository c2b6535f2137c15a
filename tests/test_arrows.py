"""Who may import whom: arrows run one way, down the floors below, and never in a circle.

Every import of the product counts: at the top of a file, inside a function, under TYPE_CHECKING, and in the programs
that a module holds as text for another process. It is a test of our own, not import-linter's: it needs no installed
package (ours lies on the repository's root), reads those programs, too, and knows that the face is lazy.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import graphlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "gridclip"

# Parts of the product: what each may import besides itself. A module belongs to the longest name that begins its own.
# `gridclip` itself is the face.
FACE = "gridclip"
MAY_IMPORT: dict[str, set[str]] = {
    "gridclip": {"gridclip.engine", "gridclip.export", "gridclip.dali_pipes"},
    "gridclip.cli": {"gridclip.engine", "gridclip.export", "gridclip.dali_pipes", "gridclip.benchmarks"},
    "gridclip.engine": {"gridclip.engine.choices", "gridclip.dali_pipes", "gridclip.export.model_info"},
    "gridclip.engine.choices": set(),
    "gridclip.export": {"gridclip.dali_pipes"},
    "gridclip.export.model_info": {"gridclip.dali_pipes"},
    "gridclip.dali_pipes": set(),
    "gridclip.benchmarks": {"gridclip.cli", "gridclip.engine", "gridclip.export", "gridclip.dali_pipes"},
}
# The face is lazy: what it imports when it is imported itself.
FACE_IMPORTS_AT_ONCE = {"gridclip.engine.choices"}
# What the parts below the face may take from it.
OF_THE_FACE = {"ArgumentError", "GridClipError", "__version__"}
ABOVE_THE_FACE = {"gridclip.cli", "gridclip.benchmarks"}
# Rooms of dali_pipes. `""` are the modules that lie in dali_pipes itself: contract, sampling, grid, ids, ...
ROOMS: dict[str, set[str]] = {
    "": set(),
    "bitstream": {""},
    "packets": {"", "bitstream"},
    "processes": {"", "packets"},
    "image_folders": {"", "packets"},
    "cpu": {"", "bitstream", "packets", "processes", "image_folders"},
    "nvdali": {"", "bitstream", "packets", "processes", "image_folders", "cpu"},
}
# Edges that still stand against the arrows, each with why it will go. One that is no longer needed fails the test.
EXPECTED_TO_VANISH: dict[tuple[str, str], str] = {}


@dataclasses.dataclass(frozen=True)
class Edge:
    """One import statement."""

    importer: str
    imported: str
    line: int
    lazy: bool  # inside a function, or for type checking only
    name: str = ""  # what is taken from the module, where that is known

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def module_files(root: pathlib.Path = ROOT) -> dict[str, pathlib.Path]:
    """Every module of the product by name; `tests` is none."""
    folders = [path.parent for path in root.glob("[!.]*/__init__.py")]
    paths = [*root.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    named = {}
    for path in paths:
        parts = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def edges(name: str, source: str, *, is_package: bool, modules: Iterable[str]) -> Iterator[Edge]:
    """The imports of a module that lead to modules of the product."""
    known = set(modules)
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    package = (name if is_package else name.rpartition(".")[0]).split(".")
    for node in ast.walk(tree):
        lazy = id(node) not in top
        targets: list[tuple[str, str]] = []  # (module, name)
        if isinstance(node, ast.Import):
            targets = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                module = f"{base}.{alias.name}"
                targets.append((module, "") if module in known else (base, alias.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and f"from {PACKAGE}" in node.value:
            try:
                program = ast.unparse(ast.parse(node.value))
            except SyntaxError:
                continue  # a text that only speaks of the package
            inside = edges(name, program, is_package=is_package, modules=known)
            targets, lazy = [(edge.imported, edge.name) for edge in inside], True
        for target, taken in targets:
            if target.split(".")[0] == PACKAGE:
                yield Edge(name, target, node.lineno, lazy, taken)


@functools.cache
def all_edges(root: pathlib.Path = ROOT) -> tuple[Edge, ...]:
    """The product's imports."""
    return tuple(edge for name in sorted(module_files(root)) for edge in edges_of(name, root=root))


def edges_of(name: str, *, more: str = "", root: pathlib.Path = ROOT) -> list[Edge]:
    """The imports of one module of the product, with `more` at the end of it."""
    files = module_files(root)
    source = files[name].read_text("utf-8") + "\n" + more
    return list(edges(name, source, is_package=files[name].name == "__init__.py", modules=files))


def part_of(module: str, parts: Iterable[str]) -> str:
    """The longest of the parts that the module lies in."""
    return max((part for part in parts if lies_in(module, {part})), key=len)


def room_of(module: str) -> str | None:
    """The room of dali_pipes that a module lies in; None: it lies elsewhere."""
    parts = module.split(".")
    if parts[:2] != [PACKAGE, "dali_pipes"]:
        return None
    return parts[2] if len(parts) > 2 and parts[2] in ROOMS else ""


def lies_in(module: str, parts: Iterable[str]) -> bool:
    """Whether the module is one of the parts, or inside one."""
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def against_the_arrows(found: Iterable[Edge]) -> list[str]:
    """A sentence for every edge that no floor allows."""
    wrong = []
    for edge in found:
        importer, imported = part_of(edge.importer, MAY_IMPORT), part_of(edge.imported, MAY_IMPORT)
        if importer == FACE and imported != FACE and not edge.lazy and edge.imported not in FACE_IMPORTS_AT_ONCE:
            wrong.append(f"{edge} when it is imported: the face is lazy")
        if imported == FACE:
            if importer not in ABOVE_THE_FACE | {FACE} and edge.name not in OF_THE_FACE:
                wrong.append(f"{edge}, {edge.name or 'the whole'}: from the face it may take {sorted(OF_THE_FACE)}")
        elif not lies_in(edge.imported, MAY_IMPORT[importer] | ({importer} - {FACE})):
            listed = ", ".join(sorted(MAY_IMPORT[importer])) or "nothing else of the product"
            wrong.append(f"{edge}: {importer} may import {listed}")
        above, below = room_of(edge.importer), room_of(edge.imported)
        if above is not None and below is not None and above != below and below not in ROOMS[above]:
            listed = ", ".join(room or "the modules beside the rooms" for room in sorted(ROOMS[above])) or "no room"
            wrong.append(f"{edge}: dali_pipes/{above} may import {listed}")
    return wrong


def graph(found: Iterable[Edge], *, lazy: bool = True) -> Mapping[str, set[str]]:
    """Imported modules by importer; without the face, whose errors everybody imports and which imports when asked."""
    arrows: dict[str, set[str]] = {}
    for edge in found:
        if FACE not in (edge.importer, edge.imported) and edge.importer != edge.imported and (lazy or not edge.lazy):
            arrows.setdefault(edge.importer, set()).add(edge.imported)
    return arrows


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first one at the end again; empty: there are none."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def without_expected(found: Iterable[Edge]) -> list[Edge]:
    return [edge for edge in found if (edge.importer, edge.imported) not in EXPECTED_TO_VANISH]


def test_arrows_run_one_way() -> None:
    assert against_the_arrows(without_expected(all_edges())) == []


def test_there_is_no_circle() -> None:
    found = circle(graph(without_expected(all_edges())))
    assert not found, "a circle: " + " -> ".join(found)


def test_no_exception_outlives_its_reason() -> None:
    present = {(edge.importer, edge.imported) for edge in all_edges()}
    assert EXPECTED_TO_VANISH.keys() <= present, f"not needed any more: {EXPECTED_TO_VANISH.keys() - present}"
    for expected in EXPECTED_TO_VANISH:
        others = [
            edge
            for edge in all_edges()
            if (edge.importer, edge.imported) == expected or (edge.importer, edge.imported) not in EXPECTED_TO_VANISH
        ]
        assert against_the_arrows(others) or circle(graph(others)), f"{expected} breaks no rule: remove it"


def test_every_room_has_its_floor() -> None:
    folders = {path.parent.name for path in (ROOT / "dali_pipes").glob("*/__init__.py")}
    assert folders == ROOMS.keys() - {""}


@pytest.mark.parametrize(
    ("module", "line", "told"),
    [
        (
            "gridclip.dali_pipes.grid",
            "from ..engine.scoring import retrieval",
            "imports gridclip.engine.scoring.retrieval",
        ),
        ("gridclip.dali_pipes.ids", "def f():\n    from ..export.folder import x", "imports gridclip.export.folder"),
        ("gridclip.engine.search.search", "import gridclip.export.folder", "imports gridclip.export.folder"),
        ("gridclip.engine.search.search", "if TYPE_CHECKING:\n    from ...cli import x", "imports gridclip.cli"),
        ("gridclip.export.graph_writer", "from ..engine.store import store", "imports gridclip.engine.store.store"),
        ("gridclip.export.graph_writer", "from ..benchmarks import measure", "imports gridclip.benchmarks.measure"),
        ("gridclip.engine.search.search", "P = 'from gridclip.export import folder'", "imports gridclip.export.folder"),
        ("gridclip.dali_pipes.bitstream.facts", "from ..packets import scan", "dali_pipes/bitstream may import"),
        ("gridclip.dali_pipes.cpu.reading", "from ..nvdali import graph", "dali_pipes/cpu may import"),
        ("gridclip.dali_pipes.grid", "from .bitstream import facts", "dali_pipes/ may import no room"),
        ("gridclip", "from .engine import search", "the face is lazy"),
        ("gridclip.engine.choices", "from . import search", "may import nothing else"),
        ("gridclip.engine.search.search", "from ... import evaluate", "from the face it may take"),
    ],
)
def test_a_planted_edge_is_found_and_named(module: str, line: str, told: str) -> None:
    planted = against_the_arrows(edges_of(module, more=line))
    assert any(wrong.startswith(f"{module}, line ") and told in wrong for wrong in planted), planted


def test_a_planted_circle_is_found_and_named() -> None:
    found = without_expected(all_edges())
    back = Edge("gridclip.dali_pipes.sampling", "gridclip.dali_pipes.grid", 1, lazy=True)  # grid imports sampling
    assert {back.importer, back.imported} <= set(circle(graph([*found, back])))


def test_an_allowed_edge_is_no_finding() -> None:
    names = ["gridclip.engine.encoding.encoder", "gridclip.export.model_info"]
    line = "from ...export import model_info\nfrom ...export.model_info import ModelInfo"
    found = list(edges(names[0], line, is_package=False, modules=names))
    assert [edge.imported for edge in found] == [names[1]] * 2
    assert against_the_arrows(found) == []
