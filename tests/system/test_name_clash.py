"""PyPI's ``supervisor`` beside ours, in real environments: one line names the clash, in every order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (("--help",), ("--version",), ("run", "--help"), ("status",), ("run",))


def pip(*arguments: str, python: str | Path = sys.executable) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Ours, built from this tree, and theirs."""
    tree, made = tmp_path_factory.mktemp("tree") / "bulkhead", tmp_path_factory.mktemp("wheels")
    ignored = (".*", "build", "tests", "docs", "*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*ignored))
    try:
        pip("download", "--no-deps", "--dest", str(made), "supervisor")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"PyPI cannot be reached: {error.stderr.strip().splitlines()[-1]}")
    (theirs,) = made.glob("supervisor-*")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), str(tree))
    (ours,) = made.glob("bulkhead_switch-*.whl")
    return str(ours), str(theirs)


class Environment:
    """A virtual environment that has our dependencies, and neither of the two packages."""

    def __init__(self, path: Path) -> None:
        venv.create(path, with_pip=True)
        self.bin = path / "bin"
        (site,) = path.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    def install(self, *arguments: str) -> None:
        pip("install", "--no-deps", "--no-index", *arguments, python=self.bin / "python")

    def uninstall(self, name: str) -> None:
        pip("uninstall", "--yes", name, python=self.bin / "python")

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([str(self.bin / name), *arguments])


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd="/", env=clean | environment
    )


def line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a command that refused to start."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "virtual environment of its own" in done.stderr
    return done.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["ours-first", "theirs-first"])
def test_each_order_of_installation_and_an_uninstall_give_one_line(
    environment: Environment, wheels: tuple[str, str], order: tuple[int, int]
) -> None:
    for index in order:
        environment.install(wheels[index])
    for arguments in COMMANDS:
        for name in ("bulkhead", "supervisor"):
            assert "(supervisord) is installed over this one" in line(environment.run(name, *arguments))
    environment.uninstall("supervisor")
    for arguments in COMMANDS:
        assert "supervisor/__init__.py is missing" in line(environment.run("bulkhead", *arguments))
    pip(
        "install",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        wheels[0],
        python=environment.bin / "python",
    )
    for name in ("bulkhead", "supervisor"):
        assert environment.run(name, "--version").stdout.startswith("bulkhead ")


def test_every_command_shows_the_version_without_the_other_package(
    environment: Environment, wheels: tuple[str, str]
) -> None:
    environment.install(wheels[0])
    version = Path(wheels[0]).name.split("-")[1]
    for name in ("bulkhead", "supervisor"):
        done = environment.run(name, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"bulkhead {version} (protocol ")
        assert environment.run(name, "status").stderr.startswith("Error: no supervisor runs in ")


@pytest.mark.parametrize("upgrade", [False, True])
def test_both_packages_in_one_target_directory_are_told_apart(
    tmp_path: Path, wheels: tuple[str, str], upgrade: bool
) -> None:
    """Pip leaves a package of the first one alone, or replaces it whole."""
    for wheel in wheels:
        pip("install", "--no-deps", "--no-index", *["--upgrade"] * upgrade, "--target", str(tmp_path), wheel)
    done = run([sys.executable, "-m", "bulkhead", "--version"], PYTHONPATH=str(tmp_path))
    if upgrade:
        assert "(supervisord) is installed over this one" in line(done)
    else:
        assert done.stdout.startswith("bulkhead "), "theirs was left out"


@pytest.mark.parametrize("hidden", [True, False])
def test_two_target_directories(tmp_path: Path, wheels: tuple[str, str], hidden: bool) -> None:
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    for folder, wheel in zip(folders, wheels, strict=True):
        pip("install", "--no-deps", "--no-index", "--target", str(folder), wheel)
    path = os.pathsep.join(map(str, reversed(folders) if hidden else folders))
    done = run([sys.executable, "-m", "bulkhead", "--version"], PYTHONPATH=path)
    if hidden:
        assert str(folders[1]) in line(done)
    else:
        assert done.stdout.startswith("bulkhead ")


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a copy of this tree's packages with something beside them on the path."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "bulkhead.py", home)
    for package in ("forwarder", "gateway", "supervisor", "workers"):
        shutil.copytree(ROOT / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))

    def start(*before: Path, command: str = "--version") -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (*before, home, sysconfig.get_path("purelib"))))
        # Without site-packages' hooks, which would take from this tree what the copy lacks.
        return run([sys.executable, "-S", "-m", "bulkhead", command], PYTHONPATH=path)

    return start


@pytest.mark.parametrize("name", ["forwarder", "gateway", "workers", "supervisor"])
def test_any_other_package_of_one_of_our_names_is_named(
    tmp_path: Path, copy: Callable[..., subprocess.CompletedProcess[str]], name: str
) -> None:
    other = tmp_path / "other" / name
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    assert f"another package named `{name}` hides this one's: {other}" in line(copy(other.parent))
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / f"{name}.py").touch()
    assert f"another package named `{name}` hides" in line(copy(tmp_path / "module"))


def test_a_module_that_is_missing_is_named(
    tmp_path: Path, copy: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert copy().stdout.startswith("bulkhead ")
    (tmp_path / "home" / "supervisor" / "cli" / "run.py").unlink()
    assert "the module supervisor.cli.run of this package is missing" in line(copy(command="--help"))
    shutil.rmtree(tmp_path / "home" / "gateway")
    assert "gateway/__init__.py is missing" in line(copy())
