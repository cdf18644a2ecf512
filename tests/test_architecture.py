"""The shape of the code, checked: imports, the home of each library, and the length of files.

``workers -> forwarder <- supervisor`` is what lets a worker start quickly and die alone; a library with
one home can be replaced, and a reader knows where its surprises are. When this test fails, move the code
to the room it belongs in; change a table here only together with ARCHITECTURE.md.
"""

import ast
import graphlib
import re
import subprocess
import sys
from configparser import ConfigParser
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
        "workers/subscription.py",
        "supervisor/base/zmq_sockets.py",
        "supervisor/membership/publisher.py",
        "supervisor/console/server.py",
        "supervisor/console/client.py",
    ],
    "psutil": ["supervisor/console/process_sampler.py"],
    "click": ["supervisor/cli/*.py"],
    "aiohttp": ["supervisor/web/run.py", "supervisor/web/server.py", "supervisor/web/access.py"],
    "prometheus_client": ["supervisor/web/metrics.py"],
    "rich": ["supervisor/screen/*.py", "supervisor/demo/*.py"],
    "tomli": ["supervisor/cli/config*.py"],
    # Passing messages with descriptors is the one edge that both sides need.
    "socket": [
        "forwarder/channel.py",
        "forwarder/acceptor.py",
        "forwarder/unix_sockets.py",
        "forwarder/socket_address.py",
        "forwarder/tcp_options.py",
        "workers/*",
        "supervisor/*",
        "gateway/*",
    ],
    "h11": ["gateway/api/http_connection.py", "supervisor/attach/http_head.py"],
    # So is waiting for descriptors.
    "selectors": ["forwarder/loop.py", "workers/*", "supervisor/*", "gateway/*"],
    **{
        # forwarder/ has no processes and no clock of its own.
        name: ["workers/*", "supervisor/*", "gateway/*"]
        for name in ("asyncio", "select", "signal", "subprocess", "time")
    },
    # Whether there can be threads is tried out in one place.
    "threading": ["forwarder/process/limits.py", "workers/*", "supervisor/*", "gateway/*"],
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

CORE = ROOT / "forwarder" / "_core"
CORE_SOURCES = sorted(path for path in CORE.rglob("*") if path.suffix in {".c", ".h"})

LINUX_ONLY = {
    "shared/shm.c",
    "system/vm.c",
    "system/waiter.c",
    "system/tap.c",
    "system/cell.c",
    "system/cell_filter.c",
    "system/cell_program.c",
    "system/cell_program.h",
    "relay/datagrams.c",
    "relay/departing.c",
    "relay/dials.c",
    "relay/direction.c",
    "relay/pipe_pool.c",
    "relay/splice_turn.c",
    "relay/window.c",
    "relay/splices.c",
    "system/fork.c",
}
"""The files of the core that another system would need in its own form; all others compile anywhere."""

LINUX_HEADERS = re.compile(r"linux/.*|sys/(epoll|eventfd|inotify|signalfd|syscall|timerfd|prctl)\.h")

DEFINITION = re.compile(
    r"^(?!static|typedef|struct \w+ \{|enum|#|/|\s)[\w *]*?\b(\w+)\([^;{}]*\)\n\{", re.MULTILINE
)
"""A function that other files can call, as it begins in a .c file."""

LONGEST = 400
WIDEST = 128
MOST_FILES = 24
SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Yield every module that a file imports, anywhere in the file."""
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


def unit_of(path):
    """A .c file and its header are one unit: its path in the core without the suffix."""
    return path.relative_to(CORE).with_suffix("").as_posix()


def code_of(path):
    """The text of a C file without its comments and strings."""
    return re.sub(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', "", path.read_text(), flags=re.DOTALL)


def core_includes(path):
    return re.findall(r'^#include "(.*)"$', path.read_text(), re.MULTILINE)


def core_graph():
    """Unit -> the units that it includes, or that define what it calls."""
    graph = {unit_of(path): set() for path in CORE_SOURCES}
    definers = {}
    for path in CORE_SOURCES:
        graph[unit_of(path)] |= {included.removesuffix(".h") for included in core_includes(path)}
        for name in DEFINITION.findall(code_of(path)) if path.suffix == ".c" else ():
            assert definers.setdefault(name, unit_of(path)) == unit_of(path), f"{name} is defined twice"
    for path in CORE_SOURCES:
        if path.suffix == ".c":
            graph[unit_of(path)] |= {
                definers[word] for word in set(re.findall(r"\w+", code_of(path))) & definers.keys()
            }
    assert {definers["ring_put"], definers["bells_publish"], definers["py_os_error"]} == {
        "shared/ring",
        "port/bells",
        "python/py_core",
    }
    return {unit: others - {unit} for unit, others in graph.items()}


def test_no_file_of_the_core_stands_on_itself():
    graph = core_graph()
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
    folders = {}
    for unit, others in graph.items():
        here = unit.rpartition("/")[0]
        folders.setdefault(here, set()).update({other.rpartition("/")[0] for other in others} - {here})
    graphlib.TopologicalSorter(folders).prepare()


def test_a_header_of_the_core_declares_what_its_own_file_defines():
    declaration = re.compile(
        r"^(?!static|typedef|struct \w+ \{|enum|#|/|\s)[\w *]*?\b(\w+)\([^;{}]*\);", re.MULTILINE
    )
    homes = {
        name: unit_of(path)
        for path in CORE_SOURCES
        if path.suffix == ".c"
        for name in DEFINITION.findall(code_of(path))
    }
    strays = [
        (name, path.name)
        for path in CORE_SOURCES
        if path.suffix == ".h" and path.name != "py_types.h"  # the list of all types
        for name in declaration.findall(code_of(path))
        if homes.get(name) != unit_of(path)
    ]
    assert not strays


def test_linux_is_in_a_few_files_of_the_core():
    users = {
        path.relative_to(CORE).as_posix()
        for path in CORE_SOURCES
        for header in re.findall(r"^#include <(.*)>$", path.read_text(), re.MULTILINE)
        if LINUX_HEADERS.fullmatch(header)
    }
    assert users <= LINUX_ONLY


def test_every_library_that_is_installed_has_a_home():
    setup = (ROOT / "setup.cfg").read_text()
    required = setup.partition("install_requires =")[2].partition("\n[")[0].split("\n")
    names = {line.split()[0] for line in required if line.strip()}
    assert {name.replace("pyzmq", "zmq") for name in names} <= HOMES.keys()


def test_an_installation_has_every_package():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.packages.find"]["include"].split()
    folders = {
        path.parent.relative_to(ROOT) for each in PACKAGES for path in (ROOT / each).rglob("__init__.py")
    }
    names = {".".join(folder.parts) for folder in folders}
    assert not {name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)}
    # A folder of modules without an __init__.py would be left out of an installation.
    assert {path.parent.relative_to(ROOT) for path in SOURCES} <= folders | {Path()}


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


HEAVY = {
    "supervisor.supervisor": {"ctypes", "decimal", "h11", "hashlib"},
    "gateway.gateway": {"ctypes", "decimal", "h11", "hashlib", "pathlib", "subprocess", "urllib"},
    "gateway.namespace_process": {"ctypes", "decimal", "h11", "hashlib", "ipaddress", "subprocess", "urllib"},
}
"""What a process does without: 0.2 to 2 MiB each."""


@pytest.mark.parametrize("module", HEAVY)
def test_no_process_loads_anything_large_that_it_may_not_need(module):
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert module in loaded
    # A user's own start-up files may load some of them.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY[module] & (set(loaded) - set(bare))


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


def test_no_line_of_c_is_longer_than_a_screen():
    long = [
        f"{name_of(path)}:{number}"
        for folder in (*PACKAGES, "tests", "scripts")
        for path in (ROOT / folder).rglob("*.[ch]")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > WIDEST
    ]
    assert not long


def test_no_folder_holds_more_than_a_reader_can_survey():
    folders = {}
    for top in (*PACKAGES, "tests", "scripts"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in {".py", ".c", ".h"} and path.name != "__init__.py":
                folders.setdefault(name_of(path.parent), []).append(path.name)
    assert "supervisor/fleet" in folders
    full = {folder: len(names) for folder, names in folders.items() if len(names) > MOST_FILES}
    assert not full, f"give the parts of these a folder each: {full}"


def test_every_file_begins_with_its_purpose():
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
