"""The shape of the code, checked: who may import whom, which library lives where, how long a file may be.

``workers -> forwarder <- supervisor`` is what lets a worker start quickly and die alone; a library with
one home can be replaced, and a reader knows where its surprises are. When this test fails, move the code
to the room it belongs in; change a table here only together with ARCHITECTURE.md.
"""

import ast
import graphlib
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("forwarder", "workers", "supervisor", "gateway")

ARROWS = {
    "forwarder": {"forwarder"},
    "workers": {"workers", "forwarder"},
    "supervisor": {"supervisor", "forwarder"},
    "gateway": {"gateway", "forwarder"},
}

HOMES = {
    "msgpack": ["forwarder/wire.py"],
    "zmq": [
        "workers/control.py",
        "supervisor/base/zmq_sockets.py",
        "supervisor/fleet/publisher.py",
        "supervisor/console/server.py",
        "supervisor/console/client.py",
    ],
    "psutil": ["supervisor/console/sampler.py"],
    "click": ["supervisor/cli/*.py"],
    "rich": ["supervisor/screen/*.py", "supervisor/demo/*.py"],
    "tomli": ["supervisor/cli/config*.py"],
    # Passing messages with descriptors is the one edge that both sides need.
    "socket": ["forwarder/channel.py", "workers/*", "supervisor/*", "gateway/*"],
    "h11": ["gateway/api/http_connection.py", "supervisor/attach/http_head.py"],
    "pyroute2": ["gateway/inside/netlink.py"],
    # So is waiting for descriptors.
    "selectors": ["forwarder/loop.py", "workers/*", "supervisor/*", "gateway/*"],
    **{
        # forwarder/ has no processes and no clock of its own.
        name: ["workers/*", "supervisor/*", "gateway/*"]
        for name in ("asyncio", "select", "signal", "subprocess", "threading", "time")
    },
    # A process that only attaches to its shared memory removes it on exit, and it starts processes by fork.
    "multiprocessing": [],
}
"""The files that may import a module; a module of the standard library that is not named may be anywhere."""

SLOW_TO_IMPORT = {
    "asyncio",
    "concurrent",
    "dataclasses",
    "inspect",
    "logging",
    "random",
    "socket",
    "subprocess",
}
"""What forwarder/ must not load: a worker's start is time that a VM waits, and its memory is paid per VM."""

LONGEST = 410
SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Yield every module that a file imports, wherever in the file that is."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: a relative import hides which package it means"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_follow_the_arrows_and_libraries_stay_at_home(path):
    name = name_of(path)
    allowed = ARROWS[path.relative_to(ROOT).parts[0]]
    for imported in imports_of(path):
        top = imported.partition(".")[0]
        if top in PACKAGES:
            assert top in allowed, f"{name} imports {imported}"
        elif top in HOMES:
            assert any(fnmatch(name, home) for home in HOMES[top]), f"{name} imports {imported}"
        else:
            assert top in sys.stdlib_module_names, f"{name} imports {imported}: give it a home in HOMES"


def test_no_module_imports_itself_over_others():
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        module: {imported for imported in imports_of(path) if imported in modules and imported != module}
        for module, path in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_library_that_is_installed_has_a_home():
    setup = (ROOT / "setup.cfg").read_text()
    required = setup.partition("install_requires =")[2].partition("\n[")[0].split("\n")
    names = {line.split()[0] for line in required if line.strip()}
    assert {name.replace("pyzmq", "zmq") for name in names} <= HOMES.keys()


def test_the_shared_package_loads_nothing_slow():
    program = (
        "import sys; before = set(sys.modules)\n"
        "import forwarder.membership, forwarder.wire\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert "forwarder.wire" in loaded
    assert not SLOW_TO_IMPORT & {module.partition(".")[0] for module in loaded}


def test_no_file_is_longer_than_a_reader_can_hold():
    folders = (*PACKAGES, "tests", "scripts")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".c", ".h"}
    ]
    assert files
    long = {name_of(path): count for path in files if (count := len(path.read_text().splitlines())) > LONGEST}
    assert not long, f"split by what changes together: {long}"


def test_every_file_begins_by_saying_what_it_is_for():
    silent = [name_of(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_no_folder_imports_itself_over_others():
    folders = {module_of(path): path.parent.relative_to(ROOT).as_posix() for path in SOURCES}
    graph = {}
    for path in SOURCES:
        here = path.parent.relative_to(ROOT).as_posix()
        if "/" not in here:
            continue  # a package's root holds both what its folders stand on and what puts them together
        graph.setdefault(here, set()).update(
            folder
            for imported in imports_of(path)
            if (folder := folders.get(imported)) not in {None, here} and "/" in folder
        )
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
