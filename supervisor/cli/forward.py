"""``supervisor forward``: forward ports and sockets of the host to VMs, while the switch runs."""

import json
from typing import Any, cast

import click

from supervisor.cli.options import directory, runtime_dir_option

FORMS = """\b
A FORWARD is one of
  tcp:HOST:PORT:GUEST:PORT    connections to that address of the host
  udp:HOST:PORT:GUEST:PORT    datagrams to it
  unix:PATH:GUEST:PORT        connections to that socket, which is made (0600)

GUEST is the VM's address, which `supervisor status` shows; an IPv6 address stands in [brackets]. Port 0 of
the host: any that is free."""


@click.group()
@runtime_dir_option
@click.pass_context
def forward(context: click.Context, runtime_dir: str | None) -> None:
    """Forward ports and sockets of the host to VMs.

    The switch needs a gateway (`run --gateway`).
    """
    context.obj = runtime_dir


@forward.command("add", epilog=FORMS)
@runtime_dir_option
@click.argument("forwards", metavar="FORWARD...", nargs=-1, required=True)
def add(runtime_dir: str | None, forwards: tuple[str, ...]) -> None:
    """Begin to forward."""
    for text in forwards:
        click.echo(f"added {_ask(runtime_dir, 'forward_add', forward=text)['forward']}")


@forward.command("remove")
@runtime_dir_option
@click.argument("forwards", metavar="FORWARD...", nargs=-1, required=True)
def remove(runtime_dir: str | None, forwards: tuple[str, ...]) -> None:
    """End a forward; existing connections stay.

    A FORWARD is named as `list` shows it, or by its first part, like tcp:127.0.0.1:8080.
    """
    for text in forwards:
        click.echo(f"removed {_ask(runtime_dir, 'forward_remove', forward=text)['forward']}")


@forward.command("list")
@runtime_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(runtime_dir: str | None, as_json: bool) -> None:
    """Show all forwards, one a line."""
    answer = _ask(runtime_dir, "forward_list")
    if as_json:
        click.echo(json.dumps(answer))
    else:
        for text in answer["forwards"]:
            click.echo(text)
        if not answer["forwards"]:
            click.echo("no forwards", err=True)


def _ask(runtime_dir: str | None, name: str, /, **arguments: object) -> dict[str, Any]:
    from supervisor.console.client import Client  # noqa: PLC0415 - a page of help needs no zmq

    given = runtime_dir or click.get_current_context().obj
    with Client(directory(given)) as client:
        return cast(dict[str, Any], client.ask(name, **arguments))
