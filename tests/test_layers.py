"""Dependencies go one way: the imports of every file are read and held against the layers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "whydeep"
QUESTIONS = ("representation", "approximation", "generalization", "optimization")
TOOLS = {"core", "data", "networks"}


def imported(file: Path, source: str | None = None) -> set[str]:
    """Full names of the modules that a file imports, wherever in it the import stands."""
    package = ["whydeep", *file.relative_to(ROOT).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(source if source is not None else file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def allowed(file: Path) -> set[str] | None:
    """Names of the parts of whydeep that a file may import; None: all."""
    parts = file.relative_to(ROOT).parts
    top = parts[0]
    if top == "core":
        # The registry walks the theorems and instruments by name; it imports nothing of theirs.
        return {"core"}
    if top in ("data", "networks"):
        return {"core", top}
    if top == "report":
        return {"core", "report"}
    if top in QUESTIONS:
        if "theorems" in parts or "instruments" in parts:
            return TOOLS | set(QUESTIONS)
        return TOOLS | {top}
    return None


def violations(file: Path, source: str | None = None) -> list[str]:
    may = allowed(file)
    if may is None:
        return []
    found = []
    for name in imported(file, source):
        parts = name.split(".")
        if parts[0] != "whydeep" or len(parts) < 2 or not (ROOT / parts[1]).is_dir():
            continue
        tool = not {"theorems", "instruments"} & set(file.relative_to(ROOT).parts)
        if parts[1] not in may or (tool and len(parts) > 2 and parts[2] in ("theorems", "instruments")):
            found.append(f"{file.relative_to(ROOT.parent)} imports {name}")
    return found


def test_dependencies_go_one_way() -> None:
    assert [line for file in ROOT.rglob("*.py") for line in violations(file)] == []


def test_the_report_does_not_import_torch() -> None:
    files = list((ROOT / "report").glob("*.py"))
    assert files
    assert [file.name for file in files if any(n.split(".")[0] == "torch" for n in imported(file))] == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/claim.py", "import whydeep.data"),
        ("data/idx.py", "def f():\n    from whydeep.optimization import Backprop"),
        ("approximation/pieces.py", "from whydeep.generalization.risk import gap"),
        ("approximation/pieces.py", "from . import theorems\nfrom .theorems import x"),
        ("report/page.py", "from whydeep.networks import mlp"),
    ],
)
def test_a_wrong_import_is_seen(file: str, source: str) -> None:
    assert violations(ROOT / file, source)


def test_files_stay_small() -> None:
    long = {
        str(file.relative_to(ROOT)): n
        for file in ROOT.rglob("*.py")
        if (n := len(file.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
