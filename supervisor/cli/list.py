"""``supervisor list``: show all running switches of this user."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import click

from forwarder.errors import BulkheadError
from supervisor.base import runtime_dir as runtime_dirs
from supervisor.base.paths import absolute

ANSWER_S = 1.0
"""A supervisor answers in milliseconds; one that hangs must not delay the list."""
AT_ONCE = 16


@click.command("list")
@click.option("--runtime-dir", metavar="DIR", help="Show only the switch of this directory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(runtime_dir: str | None, as_json: bool) -> None:
    """Show all switches of this user: name, state, ports, directory.

    A switch that does not answer within a second is `silent`.
    """
    from supervisor.screen import tables  # noqa: PLC0415 - a page of help needs none of this

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(_ask, _wanted(runtime_dir)))
    if as_json:
        click.echo(json.dumps({"switches": found}))
    else:
        console = tables.console_for()
        console.print(tables.running(found, tables.room(console)))


def _wanted(only: str | None) -> list[str]:
    running = runtime_dirs.running()
    return running if only is None else [each for each in running if each == absolute(only)]


def _ask(directory: str) -> dict[str, Any]:
    """Return the answer of a switch."""
    from supervisor.console.client import Client  # noqa: PLC0415

    said: dict[str, Any] = {"name": None, "ports": None, "uptime_s": None, "version": None}
    try:
        with Client(directory, ANSWER_S) as client:
            answer = cast(dict[str, Any], client.ask("status"))
        said |= {key: answer[key] for key in ("name", "uptime_s", "version")} | {
            "ports": len(answer["ports"]),
            "state": "live",
        }
    except (BulkheadError, KeyError):
        said["state"] = "silent"
    return said | {"runtime_dir": directory}
