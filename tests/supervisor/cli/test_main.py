"""The group of all commands: each is there under its name, and imported only when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest

from supervisor.cli import main
from supervisor.cli.main import COMMANDS

HERE = Path(main.__file__).parent


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_name_that_is_listed(name: str) -> None:
    found = main.main.get_command(click.Context(main.main), name)
    assert found is not None
    assert found.name == name
    assert name in main.main.list_commands(click.Context(main.main))


def test_no_command_is_forgotten() -> None:
    made = {
        f"{path.stem}:{node.name}"
        for path in HERE.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(each, ast.Call) and ast.unparse(each.func) in ("click.command", "click.group")
            for each in node.decorator_list
        )
    }
    assert made - {"main:main"} == set(COMMANDS.values())


def test_the_version_needs_no_command_and_no_library_but_one() -> None:
    code = (
        "import sys; from supervisor.cli.main import main\n"
        "main(['--version'], standalone_mode=False)\n"
        "print(*(each for each in sys.modules if each.startswith('supervisor.')))\n"
        "print(*({'zmq', 'psutil', 'h11', 'msgpack', 'logging', 'rich'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, ours, libraries = done.stdout.split("\n")[:3]
    assert version.startswith("bulkhead ")
    assert ours.split() == ["supervisor.cli", "supervisor.cli.main"]
    assert not libraries
