"""The stub of the core declares what the module has, neither more nor less."""

import ast
from pathlib import Path

from forwarder import _core

STUBS = Path(__file__).parents[2] / "forwarder" / "_core"


def declared(statements: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return the names that a file or a class of a stub declares."""
    return {
        node.target.id if isinstance(node, ast.AnnAssign) else node.name: node
        for node in statements
        if isinstance(node, ast.AnnAssign | ast.FunctionDef | ast.ClassDef)
    }


def public(names: object) -> set[str]:
    return {name for name in vars(names) if not name.startswith("__")}


def test_the_stub_declares_what_the_module_has() -> None:
    names = {}
    for path in sorted(STUBS.glob("*.pyi")):
        names |= declared(ast.parse(path.read_text()).body)
    assert set(names) == public(_core)
    classes = {name: node for name, node in names.items() if isinstance(node, ast.ClassDef)}
    assert "Engine" in classes
    for name, node in classes.items():
        assert set(declared(node.body)) - {"__init__"} == public(getattr(_core, name)), name
